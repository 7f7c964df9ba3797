//! A store that changes resource by resource: what is served is what a file with the same resources
//! would give, and what a change leaves alone is not made anew.

use std::{
    cell::{Ref, RefCell},
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use pointsman_gateway::{
    admin_api::{
        AdminApi, Ask, Context,
        access::Access,
        store::{Change, Contents, Store, StoreError, Turn},
    },
    config::{
        collection::Collection,
        compile::{self, Compiled},
        document::{Document, Format, Parsed, item::ItemReader},
        items::Items,
        settings::Settings,
        snapshot::{Backend, Snapshot},
    },
    gateway::State,
    plugin::registry::Registry,
    ports::{LocalFuture, Sink, SinkSpec, Sinks},
    upstream::{driver::SharedHealth, resolve::Found},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A store without a disk.
#[derive(Default)]
struct Memory {
    contents: RefCell<Contents>,
    touched: RefCell<Vec<String>>,
    /// How many changes are still to be overtaken by another one of the same resources.
    overtaken: RefCell<usize>,
}

impl Store for Memory {
    fn contents(&self) -> Ref<'_, Contents> {
        self.contents.borrow()
    }

    fn turn(&self) -> LocalFuture<'_, Result<Turn, StoreError>> {
        Box::pin(async { Ok(Turn::new(())) })
    }

    fn commit(&self, change: Change, _: Turn) -> LocalFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if *self.overtaken.borrow() > 0 {
                *self.overtaken.borrow_mut() -= 1;
                self.contents.borrow_mut().apply(&Change {
                    expect: Vec::new(),
                    ..change
                });
                return Err(StoreError::Overtaken);
            }
            if !self.contents.borrow().allows(&change) {
                return Err(StoreError::Overtaken);
            }
            let mut touched = self.touched.borrow_mut();
            touched.extend(change.delete.iter().cloned());
            touched.extend(change.put.iter().map(|put| put.key.clone()));
            self.contents.borrow_mut().apply(&change);
            Ok(())
        })
    }
}

struct NoSinks;

impl Sinks for NoSinks {
    fn open(&self, _: &SinkSpec) -> Arc<dyn Sink> {
        Arc::new(Self)
    }

    fn problem(&self, _: &SinkSpec) -> Option<String> {
        None
    }
}

impl Sink for NoSinks {
    fn push(&self, _: Bytes) {}

    fn dropped(&self) -> u64 {
        0
    }

    fn pending(&self) -> u64 {
        0
    }
}

/// A gateway's configuration, fed by its Admin API.
struct Bench {
    store: Memory,
    registry: Registry,
    items: Items,
    health: Arc<SharedHealth>,
    now: Instant,
    generation: u64,
}

fn no_env(_: &str) -> Option<String> {
    None
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a moment to begin with")]
    fn new() -> Self {
        Self {
            store: Memory::default(),
            registry: Registry::new(),
            items: Items::default(),
            health: SharedHealth::new(),
            now: Instant::now(),
            generation: 0,
        }
    }

    /// A request to the Admin API: status and body.
    fn ask(&self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let api = AdminApi {
            access: Access {
                allow: None,
                keys: None,
            },
            cors: true,
            server: HeaderValue::from_static("x"),
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = format!("/apisix/admin{path}");
        let headers = HeaderMap::new();
        let ask = Ask {
            method,
            path: &path,
            query,
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let context = Context {
            registry: &self.registry,
            env: &no_env,
            now_ms: 1_000_000,
        };
        let answering = api.answer(&ask, &body, &context, &self.store);
        // Nothing here waits for anything.
        let response = futures_now(answering);
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        (response.status().as_u16(), body)
    }

    fn put(&self, path: &str, body: Value) {
        let (status, told) = self.ask(&Method::PUT, path, &body);
        assert!(status == 200 || status == 201, "{path} {body}: {told}");
    }

    /// The document as the store's changes have brought it about.
    fn document(&mut self) -> Document {
        let reader = ItemReader {
            catalog: &self.registry,
            env: &no_env,
        };
        let contents = self.store.contents.borrow();
        for key in self.store.touched.take() {
            match contents.get(&key) {
                None => self.items.remove(&key),
                Some(stored) => {
                    let value = serde_json::from_str(&stored.text).expect("JSON");
                    self.items.put(&key, stored.created, value, &reader);
                }
            }
        }
        self.items.document().document
    }

    fn snapshot(&mut self, previous: Option<&Snapshot>) -> Snapshot {
        let document = self.document();
        self.compile(document, previous)
    }

    fn compile(&mut self, document: Document, previous: Option<&Snapshot>) -> Snapshot {
        self.generation += 1;
        let Compiled { snapshot, .. } = compile::compile(compile::Input {
            document: Arc::new(document),
            lines: &Parsed::default().lines,
            settings: &Arc::new(Settings::default()),
            registry: &self.registry,
            sinks: &NoSinks,
            env: &no_env,
            secrets: &std::sync::Arc::default(),
            health: &self.health,
            previous,
            generation: self.generation,
            now: self.now,
        });
        snapshot
    }

    /// The file that has what the store has.
    fn file(&self) -> Document {
        let contents = self.store.contents.borrow();
        let mut root: BTreeMap<&str, Vec<(u64, Value)>> = BTreeMap::new();
        for (key, stored) in contents.under("/") {
            let (collection, id) = Collection::of_key(key).expect("a collection");
            let mut value: Value = serde_json::from_str(&stored.text).expect("JSON");
            let name = match collection {
                Collection::Credentials => {
                    value["id"] = json!(id);
                    "consumers"
                }
                other => other.name(),
            };
            root.entry(name).or_default().push((stored.created, value));
        }
        let mut whole = Map::new();
        for (name, mut items) in root {
            items.sort_by_key(|(created, _)| *created);
            let items = items.into_iter().map(|(_, value)| value).collect();
            whole.insert(name.to_owned(), Value::Array(items));
        }
        let text = Value::Object(whole).to_string();
        let text = if text == "{}" {
            "null".to_owned()
        } else {
            text
        };
        let parsed = Document::parse(&text, Format::Json, &no_env, &self.registry);
        let parsed = parsed.expect("readable");
        assert_eq!(
            parsed.problems,
            [],
            "what the Admin API takes, a file may say"
        );
        parsed.document
    }
}

/// The outcome of a future that never waits.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// Everything that can be told apart of a snapshot from outside.
fn described(snapshot: &Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .routes
        .iter()
        .map(|route| {
            let plugins: Vec<&str> = route.chain.entries().iter().map(|one| one.name).collect();
            let backend = match &route.backend {
                Backend::Upstream(upstream) => {
                    let nodes: Vec<String> = upstream
                        .nodes
                        .iter()
                        .map(|node| format!("{}:{}", node.host, node.port))
                        .collect();
                    format!("{} {nodes:?} {}", upstream.key, upstream.retries)
                }
                Backend::None => "none".to_owned(),
                Backend::UpstreamMissing => "no upstream".to_owned(),
                Backend::ServiceMissing => "no service".to_owned(),
                Backend::PluginConfigMissing => "no plugin_config".to_owned(),
                Backend::NothingToPick => "nothing to pick".to_owned(),
            };
            format!(
                "{} {plugins:?} {backend} {:?}",
                route.id, route.service_name
            )
        })
        .collect();
    for key in ["k0", "k1", "k2"] {
        let owner = snapshot.consumers.identify("key-auth", key);
        let owner = owner.map(|one| (&one.consumer.username, &one.credential_id));
        lines.push(format!("{key} {owner:?}"));
    }
    lines.extend(
        snapshot
            .global
            .entries()
            .iter()
            .map(|one| one.name.to_owned()),
    );
    for collection in ["routes", "services", "upstreams", "plugin_metadata"] {
        let dumps = snapshot.document.dump(collection);
        lines.extend(
            dumps
                .iter()
                .map(|dump| format!("{} {}", dump.key, dump.value)),
        );
    }
    lines
}

type Asked = (Method, String, Value);

fn put(path: String, body: Value) -> Asked {
    (Method::PUT, path, body)
}

fn an_upstream() -> impl Strategy<Value = Value> {
    (1..4u16).prop_map(|port| json!({"nodes": {format!("127.0.0.1:{port}"): 1}}))
}

fn some_plugins() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"cors": {}})),
        Just(json!({"key-auth": {}, "request-id": {}})),
        Just(json!({"proxy-rewrite": {"uri": "/x"}})),
    ]
}

fn a_route() -> impl Strategy<Value = Asked> {
    let named = (0..3u8, 0..3usize).prop_map(|(id, field)| {
        let field = ["upstream_id", "service_id", "plugin_config_id"][field];
        json!({field: id.to_string()})
    });
    let inline = an_upstream().prop_map(|upstream| json!({"upstream": upstream}));
    let backend = prop_oneof![inline, named];
    (0..3u8, backend, some_plugins()).prop_map(|(id, mut body, plugins)| {
        body["uri"] = json!(format!("/{id}"));
        body["plugins"] = plugins;
        put(format!("/routes/{id}"), body)
    })
}

fn what_routes_name() -> impl Strategy<Value = Asked> {
    let service = (0..3u8, 0..3u8, some_plugins()).prop_map(|(id, upstream, plugins)| {
        let body = json!({"upstream_id": upstream.to_string(), "plugins": plugins, "name": "s"});
        put(format!("/services/{id}"), body)
    });
    let upstream = (0..3u8, an_upstream());
    let upstream = upstream.prop_map(|(id, body)| put(format!("/upstreams/{id}"), body));
    let sets = (any::<bool>(), 0..3u8, some_plugins()).prop_map(|(is_global, id, plugins)| {
        let name = if is_global {
            "global_rules"
        } else {
            "plugin_configs"
        };
        put(format!("/{name}/{id}"), json!({"plugins": plugins}))
    });
    prop_oneof![service, upstream, sets]
}

fn a_consumer() -> impl Strategy<Value = Asked> {
    (any::<bool>(), 0..3u8, 0..3u8).prop_map(|(is_credential, id, key)| {
        let plugins = json!({"key-auth": {"key": format!("k{key}")}});
        if is_credential {
            let path = format!("/consumers/u{id}/credentials/c");
            return put(path, json!({"plugins": plugins}));
        }
        let body = json!({"username": format!("u{id}"), "plugins": plugins});
        put("/consumers".to_owned(), body)
    })
}

fn a_change() -> impl Strategy<Value = Asked> {
    let patch = (0..3u8, 0..2u8).prop_map(|(id, status)| {
        let body = json!({"status": status});
        (Method::PATCH, format!("/routes/{id}"), body)
    });
    let names = [
        "routes/",
        "services/",
        "upstreams/",
        "plugin_configs/",
        "global_rules/",
        "consumers/u",
    ];
    let delete = (0..names.len(), 0..3u8, any::<bool>()).prop_map(move |(at, id, force)| {
        let force = if force { "?force=true" } else { "" };
        let path = format!("/{}{id}{force}", names[at]);
        (Method::DELETE, path, Value::Null)
    });
    let metadata = Just(put(
        "/plugin_metadata/http-logger".to_owned(),
        json!({"log_format": {"h": "$host"}}),
    ));
    prop_oneof![patch, delete, metadata]
}

/// One request to the Admin API; many of them will be refused.
fn request() -> impl Strategy<Value = Asked> {
    prop_oneof![a_route(), what_routes_name(), a_consumer(), a_change()]
}

proptest! {
    /// Whatever is written in whatever order, and compiled at whatever moments: it is what the file
    /// with the same resources gives.
    #[test]
    fn a_store_is_served_as_the_file_would_be(
        requests in prop::collection::vec((request(), any::<bool>()), 1..40),
    ) {
        let mut bench = Bench::new();
        let mut previous: Option<Snapshot> = None;
        for ((method, path, body), compiles) in requests {
            let (status, told) = bench.ask(&method, &path, &body);
            prop_assert!(status < 500, "{method} {path} {body}: {told}");
            if compiles {
                previous = Some(bench.snapshot(previous.as_ref()));
            }
        }
        let stored = bench.snapshot(previous.as_ref());
        let file = bench.file();
        let filed = bench.compile(file, None);
        prop_assert_eq!(described(&stored), described(&filed));
    }
}

fn route(uri: &str, plugins: Value) -> Value {
    json!({"uri": uri, "plugins": plugins, "upstream": {"nodes": {"127.0.0.1:1": 1}}})
}

fn kept(before: &Snapshot, after: &Snapshot) -> Vec<(bool, bool)> {
    let same = |at: usize| {
        let (before, after) = (&before.routes[at], &after.routes[at]);
        let backend = match (&before.backend, &after.backend) {
            (Backend::Upstream(before), Backend::Upstream(after)) => Arc::ptr_eq(before, after),
            _ => false,
        };
        (Arc::ptr_eq(&before.chain, &after.chain), backend)
    };
    (0..before.routes.len()).map(same).collect()
}

/// What a change leaves alone is taken over, and what it touches is made anew.
#[test]
fn only_what_changed_is_made_anew() {
    let mut bench = Bench::new();
    bench.put("/services/s", json!({"plugins": {"cors": {}}}));
    bench.put("/routes/1", route("/1", json!({"request-id": {}})));
    let mut with_service = route("/2", json!({"key-auth": {}}));
    with_service["service_id"] = json!("s");
    bench.put("/routes/2", with_service);
    let mut checked = route("/3", json!({}));
    checked["upstream"]["checks"] = json!({"active": {"healthy": {}, "unhealthy": {}}});
    bench.put("/routes/3", checked);
    bench.put("/consumers", json!({"username": "u"}));
    let first = bench.snapshot(None);
    bench.put("/routes/4", route("/4", json!({})));
    let second = bench.snapshot(Some(&first));
    assert!(Arc::ptr_eq(&first.consumers, &second.consumers));
    let key = json!({"plugins": {"key-auth": {"key": "k"}}});
    bench.put("/consumers/u/credentials/1", key);
    let second = bench.snapshot(Some(&second));
    assert!(second.consumers.identify("key-auth", "k").is_some());
    // What is checked gets its targets from every compilation.
    assert_eq!(
        kept(&first, &second),
        [(true, true), (true, true), (true, false)]
    );
    bench.put("/services/s", json!({"plugins": {}}));
    let third = bench.snapshot(Some(&second));
    assert_eq!(kept(&second, &third)[..2], [(true, true), (false, true)]);
    assert_eq!(third.routes[1].chain.entries().len(), 1);
    let (status, _) = bench.ask(&Method::DELETE, "/services/s?force=true", &Value::Null);
    assert_eq!(status, 200);
    let fourth = bench.snapshot(Some(&third));
    assert_eq!(kept(&third, &fourth)[..2], [(true, true), (false, false)]);
    bench.put("/plugin_metadata/http-logger", json!({"log_format": {}}));
    let fifth = bench.snapshot(Some(&fourth));
    assert_eq!(kept(&fourth, &fifth)[0], (false, true));
    bench.put("/routes/1", route("/1", json!({"request-id": {}})));
    let sixth = bench.snapshot(Some(&fifth));
    assert_eq!(
        kept(&fifth, &sixth),
        [(false, false), (false, false), (true, false), (true, true)]
    );
}

/// Names are asked for by every compilation: whoever is at one is made anew, and its name goes on being looked up.
#[test]
fn names_are_kept_by_changes_elsewhere() {
    let mut bench = Bench::new();
    let now = bench.now;
    let proxy = json!({"ai-proxy": {"provider": "openai-compatible", "auth": {},
        "override": {"endpoint": "http://name.test"}}});
    bench.put("/routes/1", json!({"uri": "/1", "plugins": proxy}));
    let first = Arc::new(bench.snapshot(None));
    let state = State::new(Arc::clone(&first), bench.health.lock().availability());
    bench.health.lock().put_in_force(first, &state, now);
    let lookup = bench.health.lock().poll_lookup(now).expect("a name");
    let found = Found {
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        ttl: Duration::from_secs(60),
        unknown: None,
    };
    bench
        .health
        .lock()
        .on_lookup(&lookup, Ok(found), now, &state);
    for uri in ["/2", "/3"] {
        bench.put(&format!("/routes{uri}"), route(uri, json!({})));
        let next = Arc::new(bench.snapshot(Some(&state.snapshot())));
        bench.health.lock().put_in_force(next, &state, now);
    }
    let later = now + Duration::from_secs(3600);
    let due = bench.health.lock().poll_lookup(later);
    assert_eq!(
        due.map(|due| due.name.to_string()),
        Some("name.test".to_owned())
    );
}

/// Somebody else may be faster: a PATCH looks again, and both changes are there.
#[test]
fn a_patch_that_was_overtaken_looks_again() {
    let bench = Bench::new();
    bench.put("/routes/1", route("/1", json!({})));
    *bench.store.overtaken.borrow_mut() = 3;
    let (status, told) = bench.ask(&Method::PATCH, "/routes/1", &json!({"desc": "d"}));
    assert_eq!((status, &told["value"]["desc"]), (200, &json!("d")));
    assert_eq!(bench.store.contents.borrow().revision(), 5);
    *bench.store.overtaken.borrow_mut() = usize::MAX;
    let (status, _) = bench.ask(&Method::PATCH, "/routes/1", &json!({"desc": "e"}));
    assert_eq!(status, 409, "it does not try for ever");
}
