use super::*;
use crate::{config::text, plugin::registry::Registry};

const NOW_MS: u64 = 1_700_000_000_000;

fn document_of(yaml: &str) -> Value {
    text::yaml(yaml).expect("YAML").value
}

fn import_into(contents: &Contents, document: &Value, alone: bool) -> Result<Import, Vec<String>> {
    let registry = Registry::new();
    let context = Context {
        registry: &registry,
        env: &|_| None,
        now_ms: NOW_MS,
    };
    import(document, contents, &context, alone)
}

/// A store that has taken `document` in.
fn stored(document: &Value) -> Contents {
    let mut contents = Contents::default();
    let import = import_into(&contents, document, false).expect("sound");
    assert!(contents.allows(&import.change));
    contents.apply(&import.change);
    contents
}

const DOCUMENT: &str = r#"
routes:
  - id: 7
    uri: /seven
    upstream: {nodes: {"127.0.0.1:80": 1}}
  - uri: /unnamed
    upstream_id: u
upstreams:
  - {id: u, nodes: {"127.0.0.1:80": 1}}
consumers:
  - {username: ann}
  - id: ann/credentials/one
    plugins: {key-auth: {key: sesame}}
plugin_metadata:
  - {id: http-logger, log_format: {host: "$host"}}
"#;

/// What a document has is in the store under the keys of the Admin API, and comes out as it was but for
/// what it did not say: ids and times.
#[test]
fn a_document_comes_out_as_it_went_in() {
    let given = document_of(DOCUMENT);
    let contents = stored(&given);
    let keys: Vec<&str> = contents.under("/").map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "/consumers/ann",
            "/consumers/ann/credentials/one",
            "/plugin_metadata/http-logger",
            "/routes/7",
            "/routes/arr_2",
            "/upstreams/u",
        ]
    );
    let shown = document(&contents);
    let mut expected = given;
    let stamp = |item: &mut Value| {
        for time in ["create_time", "update_time"] {
            write::set(item, time, json!(NOW_MS / 1000));
        }
    };
    for name in ["routes", "upstreams", "consumers"] {
        for item in expected[name].as_array_mut().expect("a list") {
            stamp(item);
        }
    }
    expected["routes"][0]["id"] = json!("7");
    expected["routes"][1]["id"] = json!("arr_2");
    assert_eq!(shown, expected);
    // And so in both forms of a file.
    for format in [Format::Yaml, Format::Json] {
        let written = text(&shown, format);
        let read = text::yaml(&written).expect("YAML, as JSON is").value;
        assert_eq!(read, shown, "{written}");
    }
    assert!(text::has_end_marker(&text(&shown, Format::Yaml)));
    // Once more: nothing is to be done.
    let again = import_into(&contents, &shown, true).expect("sound");
    assert_eq!((again.added, again.changed, again.same), (0, 0, 6));
    assert!(again.change.put.is_empty() && again.change.delete.is_empty());
}

#[test]
fn what_is_replaced_keeps_its_birthday_and_the_rest_goes_if_asked() {
    let contents = stored(&document_of(DOCUMENT));
    let next = document_of(
        "routes: [{id: 7, uri: /eight, create_time: 5, upstream_id: u}]\n\
         upstreams: [{id: u, nodes: {\"127.0.0.1:81\": 1}}]",
    );
    let import = import_into(&contents, &next, false).expect("sound");
    assert_eq!((import.added, import.changed, import.same), (0, 2, 0));
    assert!(import.change.delete.is_empty());
    let put = |key: &str| {
        let found = import.change.put.iter().find(|put| put.key == key);
        serde_json::from_str::<Value>(&found.expect("written").text).expect("JSON")
    };
    assert_eq!(put("/routes/7")["create_time"], 5);
    assert_eq!(put("/upstreams/u")["create_time"], NOW_MS / 1000);
    let alone = import_into(&contents, &next, true).expect("sound");
    assert_eq!(
        alone.change.delete,
        [
            "/routes/arr_2",
            "/consumers/ann/credentials/one",
            "/consumers/ann",
            "/plugin_metadata/http-logger",
        ]
    );
    assert!(contents.allows(&alone.change));
    // In pieces, it comes to the same; who is referred to is written first.
    let (mut whole, mut pieced) = (contents.clone(), contents.clone());
    whole.apply(&alone.change);
    let pieces = pieces(&alone.change, 1);
    assert_eq!(pieces.len(), 6);
    assert_eq!(pieces[0].put[0].key, "/upstreams/u");
    for piece in pieces {
        assert_eq!(piece.expect.len(), 1);
        assert!(pieced.allows(&piece));
        pieced.apply(&piece);
    }
    assert_eq!(document(&whole), document(&pieced));
}

/// etcd takes only so much at once, by number and by bytes.
#[test]
fn pieces_have_room_for_what_is_in_them() {
    let put = |number: usize, bytes: usize| Put {
        key: format!("/ssls/{number}"),
        text: Arc::from("x".repeat(bytes)),
        expires_ms: None,
    };
    let sizes = [400 << 10, 100 << 10, 100 << 10, 900 << 10, 1, 1, 1];
    let change = Change {
        put: (0..)
            .zip(sizes)
            .map(|(number, bytes)| put(number, bytes))
            .collect(),
        ..Change::default()
    };
    let counts: Vec<usize> = pieces(&change, 2).iter().map(|one| one.put.len()).collect();
    assert_eq!(counts, [2, 1, 1, 2, 1]);
}

/// Others that share an etcd may have what a document of ours cannot say.
#[test]
fn what_a_document_cannot_say_stays() {
    let mut contents = stored(&document_of(DOCUMENT));
    contents.apply(&Change {
        put: vec![Put {
            key: "/protos/1".to_owned(),
            text: Arc::from("{}"),
            expires_ms: None,
        }],
        ..Change::default()
    });
    let import = import_into(&contents, &json!({}), true).expect("sound");
    assert_eq!(import.change.delete.len(), 6);
    assert!(!import.change.delete.contains(&"/protos/1".to_owned()));
}

/// All that is wrong is told at once, and by its place.
#[test]
fn a_document_that_is_wrong_changes_nothing() {
    let wrong = document_of(
        "routes: [{id: a, uri: 5}, {id: b, uri: /b, plugins: {no-such: {}}}, {id: c, uri: /c, upstream_id: u}, {id: c, uri: /d, upstream_id: u}]\n\
         upstreams: {}\nstream_routes: []\nrouts: []",
    );
    let errors = import_into(&Contents::default(), &wrong, true).expect_err("wrong");
    let begins = [
        "routes[0] (id a): ",
        "routes[1] (id b): ",
        "routes[3] (id c): the id is used twice",
        "upstreams: wrong type: expected array",
    ];
    assert_eq!(errors.len(), begins.len(), "{errors:?}");
    for (error, begin) in errors.iter().zip(begins) {
        assert!(error.starts_with(begin), "{error}");
    }
    let left_out = document_of("stream_routes: []\nrouts: []");
    let import = import_into(&Contents::default(), &left_out, true).expect("nothing wrong");
    assert_eq!(
        import.left_out,
        [
            "stream_routes: out of scope",
            "routs: no collection of a document"
        ]
    );
    assert!(import_into(&Contents::default(), &json!([]), false).is_err());
}
