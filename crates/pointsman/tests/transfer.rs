//! `pointsman export` and `import`: the same resources in a file, in the embedded store and in etcd.

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Gateway, Upstream, admin::upstream, etcd::Etcd, get, run, wait_until};

/// A folder with settings that name the store of `deployment`; the store is `store.redb` in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(deployment: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = format!("deployment: {deployment}\npointsman: {{store_file: store.redb}}\n");
        std::fs::write(folder.path().join("config.yaml"), settings).expect("written");
        Self(folder)
    }

    fn embedded() -> Self {
        Self::new("{role: traditional}")
    }

    fn file(name: &str) -> Self {
        Self::new(&format!(
            "{{role: data_plane, role_data_plane: {{config_provider: {name}}}}}"
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let config = self.path("config.yaml").display().to_string();
        run(&[arguments, &["--config", &config]].concat())
    }

    fn export(&self, to: &Path) -> Value {
        let (code, _, err) = self.run(&["export", "--output", &to.display().to_string()]);
        assert_eq!(code, Some(0), "{err}");
        read(to)
    }

    /// Must succeed; returns what it said.
    fn import(&self, from: &Path, more: &[&str]) -> String {
        let from = from.display().to_string();
        let (code, _, err) = self.run(&[&["import", &from][..], more].concat());
        assert_eq!(code, Some(0), "{err}");
        err
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a document");
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return serde_json::from_str(&text).expect("JSON");
    }
    let json = text.strip_suffix("#END\n").expect("a whole document");
    yaml(json)
}

/// Keys are quoted and scalars JSON, so that it needs no reader of YAML: `check` is one.
fn yaml(text: &str) -> Value {
    let place = Place::file("yaml");
    place.write("apisix.yaml", &format!("{text}#END\n"));
    place.export(&place.path("back.json"))
}

const DOCUMENT: &str = r#"
routes:
  - {id: 1, uri: /one, upstream_id: u, plugins: {key-auth: {}}}
  - {id: two, uri: "/${{NAME:=two}}", upstream: {nodes: {"127.0.0.1:1": 1}}, priority: 5}
upstreams:
  - {id: u, nodes: [{host: 127.0.0.1, port: 1, weight: 1}]}
consumers:
  - {username: ann}
  - {id: ann/credentials/one, plugins: {key-auth: {key: sesame}}}
#END
"#;

fn without_times(mut document: Value) -> Value {
    for items in document.as_object_mut().expect("a map").values_mut() {
        for item in items.as_array_mut().expect("a list") {
            let item = item.as_object_mut().expect("a map");
            item.remove("create_time");
            item.remove("update_time");
        }
    }
    document
}

/// From a file into the store, out of it, into another and so on: nothing changes on the way.
#[test]
fn resources_move_between_a_file_and_the_store() {
    let first = Place::embedded();
    let given = first.write("given.yaml", DOCUMENT);
    let said = first.import(&given, &[]);
    assert!(
        said.contains("5 resource(s) were added, 0 changed and 0 removed"),
        "{said}"
    );
    let exported = first.export(&first.path("out.yaml"));
    assert_eq!(exported["routes"][1]["uri"], "/two", "of the environment");
    assert_eq!(exported["consumers"][1]["id"], "ann/credentials/one");
    #[cfg(unix)]
    {
        let metadata = std::fs::metadata(first.path("out.yaml")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o077, 0, "it holds keys");
    }
    // What a file holds comes out as it stands.
    let file = Place::file("json");
    std::fs::write(file.path("apisix.json"), exported.to_string()).expect("written");
    assert_eq!(file.export(&file.path("out.json")), exported);
    let (code, out, err) = file.run(&["check"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("2 route(s) can be served"), "{out}");
    // And into another store.
    let second = Place::embedded();
    second.import(&file.path("out.json"), &[]);
    assert_eq!(second.export(&second.path("out.json")), exported);
    let again = second.import(&file.path("out.json"), &["--replace"]);
    assert!(
        again.contains("0 resource(s) were added, 0 changed and 0 removed; 5"),
        "{again}"
    );
}

/// What the document does not have stays, or goes if that is asked for; and a dry run does neither.
#[test]
fn what_is_not_in_the_document_goes_only_if_asked_for() {
    let place = Place::embedded();
    place.import(&place.write("given.yaml", DOCUMENT), &[]);
    let next = r#"{"upstreams": [{"id": "u", "nodes": {"127.0.0.1:2": 1}}, {"id": "v", "nodes": {"127.0.0.1:3": 1}}]}"#;
    let next = place.write("next.json", next);
    let count = |document: &Value, name: &str| document[name].as_array().map_or(0, Vec::len);
    let counts = || {
        let document = place.export(&place.path("out.json"));
        ["routes", "upstreams", "consumers"].map(|name| count(&document, name))
    };
    let said = place.import(&next, &["--replace", "--dry-run"]);
    assert!(
        said.contains("1 resource(s) would be added, 1 changed and 4 removed"),
        "{said}"
    );
    assert_eq!(counts(), [2, 1, 2]);
    place.import(&next, &[]);
    assert_eq!(counts(), [2, 2, 2]);
    place.import(&next, &["--replace"]);
    assert_eq!(counts(), [0, 2, 0]);
}

/// All that is wrong is told, also what resources say of each other, and nothing is done.
#[test]
fn a_document_that_is_wrong_is_refused_as_a_whole() {
    let place = Place::embedded();
    let wrong = |document: Value| {
        let path = place.write("wrong.json", &document.to_string());
        let (code, _, err) = place.run(&["import", &path.display().to_string()]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("nothing was changed"), "{err}");
        err
    };
    let good = json!({"id": "good", "uri": "/a", "upstream": {"nodes": {"127.0.0.1:1": 1}}});
    let said = wrong(
        json!({"routes": [{"id": "a", "uri": 5}, good, {"id": "b", "uri": "/b",
        "plugins": {"no-such": {}}}]}),
    );
    assert!(said.contains("routes[0] (id a): "), "{said}");
    assert!(
        said.contains("routes[2] (id b): unknown plugin [no-such]"),
        "{said}"
    );
    let said = wrong(json!({"routes": [{"id": "a", "uri": "/a", "upstream_id": "gone"}, good]}));
    assert!(said.contains("gone"), "{said}");
    assert_eq!(place.export(&place.path("out.json")), json!({}));
    // A document that is none, and a place that is no store.
    let text = place.write("text.yaml", "routes: [\n#END\n");
    let (code, _, err) = place.run(&["import", &text.display().to_string()]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("text.yaml: line "), "{err}");
    let file = Place::file("yaml");
    let (code, _, err) = file.run(&["import", &text.display().to_string()]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("names no store"), "{err}");
}

/// The file belongs to the gateway that runs: it can be exported by nobody else, and nothing is lost.
#[test]
fn the_store_of_a_gateway_that_runs_is_left_alone() {
    let gateway = Gateway::with_store();
    let body = json!({"uri": "/a", "upstream": {"nodes": {"127.0.0.1:1": 1}}});
    gateway.asked(201, "PUT", "/routes/1", body);
    let config = gateway.folder().join("config.yaml").display().to_string();
    let document = gateway.folder().join("document.json");
    std::fs::write(&document, "{}").expect("written");
    let document = document.display().to_string();
    for command in [vec!["export"], vec!["import", &document, "--replace"]] {
        let (code, _, err) = run(&[&command[..], &["--config", &config]].concat());
        assert_eq!(code, Some(1), "{err}");
        assert!(
            err.contains("another process has it open: stop its gateway"),
            "{err}"
        );
    }
    gateway.asked(200, "GET", "/routes/1", Value::Null);
}

/// Into etcd, where a gateway serves it at once, and out of it: more than etcd takes in one piece.
#[test]
fn resources_move_into_etcd_and_out_of_it() {
    let Some(etcd) = Etcd::start() else { return };
    let place = Place::new(&etcd.deployment(""));
    let gateway = Gateway::start_with(support::Start {
        deployment: &etcd.deployment(""),
        ..support::Start::default()
    });
    let echo = Upstream::named("a");
    let routes = (0..150).map(|number| {
        json!({"id": format!("r{number:03}"), "uri": format!("/{number}"), "upstream_id": "u"})
    });
    let mut target = upstream(echo.address);
    target["id"] = json!("u");
    let document = json!({
        "routes": routes.collect::<Vec<_>>(), "upstreams": [target],
        "consumers": [{"username": "ann"}],
    });
    let path = place.write("document.json", &document.to_string());
    let said = place.import(&path, &[]);
    assert!(said.contains("152 resource(s) were added"), "{said}");
    for number in [0, 149] {
        wait_until("a route", || {
            let response = get(gateway.proxy, &format!("/{number}"), &[]);
            (response.status == 200).then_some(())
        });
    }
    let exported = without_times(place.export(&place.path("out.json")));
    assert_eq!(exported, document);
    // And away again, whoever refers first.
    let none = place.write("none.json", "{}");
    let said = place.import(&none, &["--replace"]);
    assert!(said.contains("0 changed and 152 removed"), "{said}");
    wait_until("no route", || {
        (get(gateway.proxy, "/0", &[]).status == 404).then_some(())
    });
    assert_eq!(place.export(&place.path("out.json")), json!({}));
}
