//! `ai-proxy` and what it shares with `ai-proxy-multi`: an LLM request and where it may go.
//!
//! The plugin sends nothing. In the access phase it reads the request, works out which protocol
//! the client speaks, and sets the exchange's destination; the attempt loop treats that like any
//! other. `ai-proxy` is a pool of one instance that is never retried.

mod intake;
mod models;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use pointsman_ai::{
    DirectApi, PathChoice, Protocol, Provider, Replaced, RequestBody, Sent, SessionMeter, Shaper,
    StreamMeter, StreamTranslator, Translation, sign::AwsKeys,
};
use pointsman_balance::{Passive, Pool, Tally, TargetId};
use serde_json::Value;

use crate::{
    config::{
        plugin::ai_proxy::{Cooldown, Retry},
        plugin_schema::Faults,
    },
    exchange::Exchange,
    forward::judge::RetryPolicy,
    plugin::{
        Phases, Plugin, Step,
        registry::{Building, PluginKind},
    },
    plugins::ai_instance,
    semantic::{Ranked, Semantic},
    tokens::GcpAuth,
    upstream::{
        HashKey,
        destination::{Destination, Keepalive, Timeouts},
        resolve::Named,
    },
};

/// The instances of one AI plugin and the rules for using them.
pub struct AiTarget {
    /// Resource and plugin: the identity that the balancing position has.
    pub key: String,
    /// Who may be picked.
    pub pool: Pool,
    /// One per member of the pool, in the same order.
    pub instances: Vec<AiInstance>,
    /// What a hash ring hashes.
    pub hash_key: Option<HashKey>,
    /// Picks by meaning, if that is the algorithm.
    pub semantic: Option<Arc<Semantic>>,
    /// When an attempt may be followed by another.
    pub retry: RetryPolicy,
    /// When it may be followed by another at the same instance.
    pub repeat: Retry,
    /// When no instance is usable, none is used (`on_all_unhealthy: reject`).
    pub rejects: bool,
    /// Refuse what the instance's protocol cannot say in full.
    pub strict: bool,
    /// What happens before a stream's content begins.
    pub opening: Opening,
    /// What is known by its path is that, whatever its body looks like (`typed_passthrough`).
    pub by_path: bool,
    /// Tokens that no provider stated are estimated (`estimate_usage`).
    pub estimates: bool,
    /// Limits of each operation on a connection.
    pub timeouts: Timeouts,
    /// Re-use of connections.
    pub keepalive: Keepalive,
    /// Limits on requests and responses.
    pub limits: AiLimits,
    /// What reaches log entries.
    pub logging: Logging,
}

impl AiTarget {
    /// Whether requests for `api` are known by their path. Tokens that Anthropic is to count always
    /// are where nobody else could get them: the path does not tell them from a chat otherwise.
    pub fn knows(&self, api: DirectApi) -> bool {
        let counts = |instance: &AiInstance| instance.serves(Protocol::Direct(api));
        self.by_path || (api == DirectApi::CountTokens && self.instances.iter().all(counts))
    }
}

/// Limits on requests and responses.
#[derive(Clone, Copy, Debug)]
pub struct AiLimits {
    /// `max_req_body_size`, bytes.
    pub request_bytes: u64,
    /// `max_response_bytes`.
    pub response_bytes: Option<u64>,
    /// `max_stream_duration_ms`.
    pub stream_duration: Option<Duration>,
    /// `stream_idle_timeout_ms`.
    pub stream_idle: Option<Duration>,
}

/// What happens before a stream's content begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// `hold_stream_start`; `None`: wherever another instance may be asked.
    pub hold: Option<bool>,
    /// `first_token_timeout_ms`.
    pub first_token: Option<Duration>,
}

/// `logging`: what of an LLM exchange reaches log entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logging {
    /// `llm_summary`.
    pub summaries: bool,
    /// `llm_request` and `llm_response_text`.
    pub payloads: bool,
}

/// One instance as it runs.
pub struct AiInstance {
    /// Its name; the label `node` of metrics.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: Provider,
    /// `protocol`: what it is declared to speak.
    pub spoken: Option<Protocol>,
    /// `provider_conf.region`.
    pub region: Option<String>,
    /// `provider_conf.project_id`.
    pub project: Option<String>,
    /// Where it is; `None` when neither the provider nor the configuration says.
    pub destination: Option<Arc<Destination>>,
    /// Where it finds its addresses, if it is at a name.
    pub named: Option<Named>,
    /// `host:port`, as logs show it.
    pub address: Arc<str>,
    /// `Host`, as logs show it.
    pub host: Arc<str>,
    /// The endpoint's own path, if it has one: then it is the path for everything.
    pub path: Option<String>,
    /// Credentials and other headers, over the client's.
    pub auth_headers: Vec<(HeaderName, HeaderValue)>,
    /// `auth.aws`: requests are signed with it.
    pub aws: Option<AwsKeys>,
    /// `auth.gcp`: requests carry its access token.
    pub gcp: Option<Arc<GcpAuth>>,
    /// `auth.query`.
    pub auth_query: Vec<(String, String)>,
    /// The endpoint's own query.
    pub endpoint_query: Vec<(String, String)>,
    /// `options.model`.
    pub model: Option<Arc<str>>,
    /// What is written into request bodies.
    pub shaper: Shaper,
    /// The request targets that do not depend on the request.
    pub fixed_targets: Vec<FixedTarget>,
    /// What its traffic means for its health; `None` if nothing of the kind is configured.
    pub watch: Option<Box<Watch>>,
    /// Tokens that its model takes, if that is declared.
    pub context_length: Option<u64>,
}

/// What the traffic of an instance means for its health.
pub struct Watch {
    /// `checks.passive`, for the instance's targets.
    pub passive: Option<Arc<Passive>>,
    /// `cooldown`.
    pub cooldown: Option<Cooldown>,
    /// Stands for the instance: its address, credential and model. Cools down.
    pub guard: Option<TargetId>,
    /// The same, for `circuit_breaker`: apart, so that no change of its settings ends a cool-down.
    pub circuit: Option<TargetId>,
    /// Counts attempts, for `circuit_breaker`.
    pub tally: Option<Arc<Tally>>,
    /// Stands for the credential at the address, whichever the model.
    pub credential: Option<TargetId>,
    /// The instance brings a credential of its own.
    pub has_credential: bool,
}

impl Watch {
    /// All that must be usable besides the targets.
    pub fn guards(&self) -> Vec<TargetId> {
        let all = [self.guard, self.circuit, self.credential];
        all.into_iter().flatten().collect()
    }
}

/// Whether a header carries a provider's credential, however its name is spelt.
pub(crate) fn is_credential(name: &str) -> bool {
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"]
        .iter()
        .any(|credential| name.eq_ignore_ascii_case(credential))
}

/// A request target that does not depend on the request.
pub struct FixedTarget {
    /// Of requests in this protocol.
    protocol: Protocol,
    /// It.
    pub uri: Uri,
    /// Its path, as logs show it.
    pub path: Arc<str>,
}

impl AiInstance {
    /// The version of Anthropic's API that its headers name.
    pub fn api_version(&self) -> Option<&str> {
        let mut headers = self.auth_headers.iter();
        let (_, version) = headers.find(|(name, _)| name == "anthropic-version")?;
        version.to_str().ok()
    }

    /// The request targets that do not depend on the request; worked out once.
    #[must_use]
    pub fn work_out_targets(&self) -> Vec<FixedTarget> {
        let mut targets: Vec<FixedTarget> = Vec::new();
        for client in Protocol::ALL {
            let Ok(binding) = pointsman_ai::bind(self.provider, self.spoken, client) else {
                continue;
            };
            let PathChoice::Provider(own) = binding.path else {
                continue;
            };
            let path = self.path.as_deref().unwrap_or(own);
            let depends = path.contains(['{', '[']) || switches_streams(path);
            if depends || targets.iter().any(|done| done.protocol == binding.target) {
                continue;
            }
            if let Ok(uri) = Uri::try_from(with_query(path, &self.query(None))) {
                let path = uri.path().into();
                targets.push(FixedTarget {
                    protocol: binding.target,
                    uri,
                    path,
                });
            }
        }
        // Mostly one, in the room of four.
        targets.shrink_to_fit();
        targets
    }

    /// Whether it can be sent what a client says in `protocol`.
    pub fn serves(&self, protocol: Protocol) -> bool {
        pointsman_ai::bind(self.provider, self.spoken, protocol).is_ok()
    }

    /// The request target for requests in `protocol`, when it is always the same.
    pub fn fixed_target(&self, protocol: Protocol) -> Option<&FixedTarget> {
        self.fixed_targets
            .iter()
            .find(|fixed| fixed.protocol == protocol)
    }

    /// The query to send: `auth.query`, then the endpoint's, which wins over it on a clash, then
    /// the client's, which wins over the endpoint's but never over a credential.
    pub fn query(&self, client: Option<&str>) -> String {
        if let (Some(client), true) = (
            client,
            self.auth_query.is_empty() && self.endpoint_query.is_empty(),
        ) {
            // Nothing of ours: the client's own spelling stays.
            return client.to_owned();
        }
        let has = |list: &[(String, String)], key: &str| list.iter().any(|(k, _)| k == key);
        let mut client = client.map(pointsman_ai::query_pairs).unwrap_or_default();
        client.retain(|(key, _)| !has(&self.auth_query, key));
        let pairs = laid_over(&laid_over(&self.auth_query, &self.endpoint_query), &client);
        encode_query(&pairs)
    }
}

/// An LLM request that an AI plugin has claimed.
pub struct AiCall {
    /// Where it may go.
    pub target: Arc<AiTarget>,
    /// What the client speaks.
    pub protocol: Protocol,
    /// The client asked for a stream.
    pub streaming: bool,
    /// The client's body.
    pub body: RequestBody,
    /// What the instance of the last attempt put in place of members that logs tell of.
    pub replaced: Replaced,
    /// How the last attempt's instance is spoken to, if not in the client's protocol.
    pub translated: Option<Box<Translated>>,
    /// Reads the response's stream in passing.
    pub meter: Option<StreamMeter>,
    /// Reads a session in passing.
    pub session: Option<Box<SessionMeter>>,
    /// Brings the response's stream into the client's protocol.
    pub translator: Option<Box<StreamTranslator>>,
    /// When the relay of the response stops.
    pub relay_limits: RelayLimits,
    /// The beginning of the response's stream, for which its head was held back; it has been looked
    /// at.
    pub first: Option<First>,
    /// Whom the request resembles, if that decides.
    pub ranked: Option<Box<Ranked>>,
}

/// A request in another protocol than its client's.
pub struct Translated {
    /// How answers come back.
    pub translation: Translation,
    /// The request as it went out, before the instance's options.
    pub body: RequestBody,
    /// What of the request got lost.
    pub lost: Vec<String>,
    /// What of the answer did: of a whole one before its head is passed on, of a stream at its end.
    pub lost_of_answer: Vec<String>,
}

impl Translated {
    /// What got lost in either direction, by name.
    pub fn all_lost(&self) -> impl Iterator<Item = &str> {
        let all = self.lost.iter().chain(&self.lost_of_answer);
        all.map(String::as_str)
    }
}

/// The beginning of a stream.
#[derive(Debug)]
pub struct First {
    /// What the client gets.
    pub bytes: Bytes,
    /// How much of the target's that was.
    pub upstream_bytes: u64,
}

impl AiCall {
    /// Whether the response is judged by what comes after its head.
    pub fn is_open(&self) -> bool {
        self.meter.is_some() || self.session.is_some()
    }

    /// The protocol of the last attempt's instance.
    pub fn target_protocol(&self) -> Protocol {
        let translated = self.translated.as_ref();
        translated.map_or(self.protocol, |translated| translated.translation.target())
    }

    /// The request in the protocol of the last attempt's instance, before its options.
    pub fn outgoing(&self) -> &RequestBody {
        let translated = self.translated.as_ref();
        translated.map_or(&self.body, |translated| &translated.body)
    }

    /// The request as the last attempt sent it.
    pub fn sent(&self) -> Sent<'_> {
        Sent {
            protocol: self.target_protocol(),
            body: self.outgoing(),
            replaced: &self.replaced,
        }
    }
}

/// Limits on a response that is passed on while it arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayLimits {
    /// `max_response_bytes`.
    pub bytes: Option<u64>,
    /// The moment at which `max_stream_duration_ms` is over.
    pub until: Option<Instant>,
    /// `stream_idle_timeout_ms`.
    pub idle: Option<Duration>,
}

impl RelayLimits {
    /// `limits` on the response to an attempt that began at `began`.
    pub fn of(limits: &AiLimits, began: Instant) -> Self {
        Self {
            bytes: limits.response_bytes,
            until: limits.stream_duration.map(|allowed| began + allowed),
            idle: limits.stream_idle,
        }
    }
}

/// `ai-proxy` or `ai-proxy-multi` at one place in the configuration.
pub struct AiProxy {
    /// Its instances.
    pub target: Arc<AiTarget>,
}

/// `ai-proxy` for the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: crate::config::plugin::ai_proxy::single_schema(),
        build: build_single,
        checkers: None,
        identity_field: None,
    }
}

fn build_single(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let target = ai_instance::single(conf, building)?;
    Ok(Arc::new(AiProxy { target }))
}

impl Plugin for AiProxy {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Later(Box::pin(self.claim(exchange)))
    }

    fn ai_target(&self) -> Option<&Arc<AiTarget>> {
        Some(&self.target)
    }
}

/// Whether a configured path says by its end whether a stream is asked for.
pub(crate) fn switches_streams(path: &str) -> bool {
    STREAM_ENDS
        .iter()
        .any(|(whole, stream)| path.ends_with(whole) || path.ends_with(stream))
}

/// Ends of paths that ask for a whole answer, and those that ask for a stream.
pub(crate) const STREAM_ENDS: [(&str, &str); 2] = [
    ("/converse", "/converse-stream"),
    (":generateContent", ":streamGenerateContent"),
];

/// `path`, which may have a query, with `query` behind it.
pub(crate) fn with_query(path: &str, query: &str) -> String {
    match (query, path.contains('?')) {
        ("", _) => path.to_owned(),
        (query, true) => format!("{path}&{query}"),
        (query, false) => format!("{path}?{query}"),
    }
}

/// `base`, in which `over` wins the keys that both have: with all of its values, at the place
/// where the key stood first. Clients decide how many pairs there are, so each is looked at once.
pub(crate) fn laid_over(
    base: &[(String, String)],
    over: &[(String, String)],
) -> Vec<(String, String)> {
    let mut winners: HashMap<&str, Vec<&(String, String)>> = HashMap::new();
    for pair in over {
        winners.entry(&pair.0).or_default().push(pair);
    }
    let mut laid = Vec::with_capacity(base.len() + over.len());
    for pair in base.iter().chain(over) {
        match winners.get_mut(pair.0.as_str()) {
            // The second time there is nothing left to take.
            Some(values) => laid.extend(std::mem::take(values).into_iter().cloned()),
            None => laid.push(pair.clone()),
        }
    }
    laid
}

/// `key=value` pairs, percent-encoded.
pub(crate) fn encode_query(pairs: &[(String, String)]) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    let encoded: Vec<String> = pairs
        .iter()
        .map(|(key, value)| {
            format!(
                "{}={}",
                utf8_percent_encode(key, KEPT),
                utf8_percent_encode(value, KEPT)
            )
        })
        .collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn check(base: &[(&str, &str)], over: &[(&str, &str)], expected: &[(&str, &str)]) {
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            pairs.collect::<Vec<_>>()
        };
        let laid = laid_over(&owned(base), &owned(over));
        assert_eq!(laid, owned(expected), "{base:?} {over:?}");
    }

    #[test]
    fn one_query_is_laid_over_another() {
        check(&[], &[], &[]);
        check(&[("a", "1"), ("a", "2")], &[], &[("a", "1"), ("a", "2")]);
        check(
            &[],
            &[("a", "1"), ("b", "2"), ("a", "3")],
            &[("a", "1"), ("a", "3"), ("b", "2")],
        );
        check(
            &[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("c", "5")],
            &[("d", "6"), ("a", "7"), ("", "8"), ("a", "9"), ("d", "")],
            &[
                ("a", "7"),
                ("a", "9"),
                ("b", "2"),
                ("c", "4"),
                ("c", "5"),
                ("d", "6"),
                ("d", ""),
                ("", "8"),
            ],
        );
    }

    /// A client sends as many pairs as fit into its URL. Work that grows with their square would
    /// take minutes here, and each of them a worker's whole time.
    #[test]
    fn a_query_of_very_many_pairs_takes_no_time() {
        for key in [|_| String::from("a"), |n: usize| n.to_string()] {
            let over: Vec<_> = (0..100_000).map(|n| (key(n), String::new())).collect();
            let (done, is_done) = mpsc::channel();
            std::thread::spawn(move || done.send(laid_over(&over, &over).len()));
            let laid = is_done.recv_timeout(Duration::from_secs(20));
            assert_eq!(laid, Ok(100_000), "in time");
        }
    }
}
