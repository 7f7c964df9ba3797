//! What operators get wrong in their files: told with the place, and never worth an outage.

mod support;

use support::{Gateway, Upstream, get, run, write_config};

/// A folder with a `config.yaml` and an `apisix.yaml` of exactly that text; the first one's path.
fn folder(apisix: &str, document: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), apisix, "");
    std::fs::write(folder.path().join("apisix.yaml"), document).expect("written");
    let config = folder.path().join("config.yaml");
    let config = config.to_str().expect("UTF-8").to_owned();
    (folder, config)
}

/// What `check` says of a document, with its exit code.
fn check(document: &str) -> (Option<i32>, String) {
    let (_kept, config) = folder("", &format!("{document}\n#END\n"));
    let (code, _, stderr) = run(&["check", "--config", &config]);
    (code, stderr)
}

fn route(upstream: &Upstream) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    )
}

/// Some editors begin every file with a byte order mark. It means nothing.
#[test]
fn a_byte_order_mark_is_skipped() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&format!("\u{feff}{}", route(&upstream)));
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    gateway.reload(&format!("\u{feff}# another\n{}", route(&upstream)));
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    assert!(!gateway.stderr().contains("unknown collection"));

    let (kept, config) = folder("", "");
    let text = std::fs::read_to_string(&config).expect("readable");
    let text = text.replace("config_provider: yaml", "config_provider: json");
    std::fs::write(&config, format!("\u{feff}{text}")).expect("written");
    std::fs::write(
        kept.path().join("apisix.json"),
        "\u{feff}{\"routes\": [{\"id\": 1, \"uri\": \"/x\", \"upstream\": {\"nodes\": {\"a:1\": 1}}}]}",
    )
    .expect("written");
    let (code, stdout, stderr) = run(&["check", "--config", &config]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("1 route(s)"), "{stdout}");
}

/// A document that names no collection at all is a mistake, not the wish to have no routes.
#[test]
fn a_misspelt_only_collection_wipes_nothing() {
    let upstream = Upstream::named("a");
    let document = route(&upstream);
    let gateway = Gateway::start(&document);
    let misspelt = document.replace("routes:", "routess:");
    let told = gateway.reload_refused(&format!("{misspelt}#END\n"));
    for part in [
        "line 1: ",
        "`routess`",
        "did you mean `routes`",
        "upstreams, ",
    ] {
        assert!(told.contains(part), "{told} lacks {part}");
    }
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    let (code, stderr) = check(&misspelt);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("error: ") && stderr.contains("`routess`"),
        "{stderr}"
    );

    // Beside one that is known it is a warning, and what is out of scope is known.
    let (code, stderr) = check(&format!("routes: []\n{misspelt}"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("routess: unknown collection"), "{stderr}");
    for empty in ["", "routes: []", "routes:", "stream_routes: []", "{}"] {
        assert_eq!(check(empty).0, Some(0), "{empty:?}");
    }
    // Who wants no routes says so.
    gateway.reload("");
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 404);
}
