//! From `semantic_opts` to a `semantic` balancer that runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pointsman_ai::Endpoint;

use crate::{
    config::{
        plugin::ai_proxy::{AiProxyMulti, BalancerAlgorithm, Embeddings},
        plugin_schema::Faults,
        text::join,
    },
    plugins::ai_proxy::{encode_query, laid_over},
    semantic::{Identity, Semantic, embedder::Embedder},
    upstream::destination::{Destination, Tls},
};

/// The `semantic` balancer of `conf`, if that is its algorithm.
pub(super) fn of(conf: &AiProxyMulti) -> Result<Option<Arc<Semantic>>, Faults> {
    if conf.balancer.algorithm != BalancerAlgorithm::Semantic {
        return Ok(None);
    }
    let Some(options) = &conf.semantic_opts else {
        return Err(Faults::at(
            "semantic_opts",
            "property \"semantic_opts.embeddings\" is required for semantic",
        ));
    };
    let fallback = match &options.fallback {
        None => Some(0),
        Some(name) => conf.instances.iter().position(|one| one.name == *name),
    };
    let fallback = fallback.ok_or_else(|| {
        let text = "semantic_opts.fallback: unknown instance";
        Faults::at("semantic_opts.fallback", text)
    })?;
    let examples = conf.instances.iter().map(|instance| {
        let written = instance.examples.iter().flatten();
        let sayings = written.filter(|example| !example.is_empty());
        sayings.cloned().collect::<Vec<_>>()
    });
    let thresholds = conf.instances.iter().map(|instance| {
        let threshold = instance.threshold.or(options.threshold);
        threshold.unwrap_or_default() as f32
    });
    let (embedder, identity) = embedder(&options.embeddings, examples.collect())
        .map_err(|faults| faults.under("semantic_opts.embeddings"))?;
    Ok(Some(Arc::new(Semantic::new(
        embedder,
        identity,
        thresholds.collect(),
        fallback,
        options.debugging,
    ))))
}

fn embedder(
    embeddings: &Embeddings,
    examples: Vec<Vec<String>>,
) -> Result<(Embedder, Identity), Faults> {
    let in_endpoint = |error: &dyn std::fmt::Display| {
        let text = format!("invalid `semantic_opts.embeddings.endpoint`: {error}");
        Faults::at("endpoint", text)
    };
    let written = embeddings.endpoint.as_deref().unwrap_or(OPENAI);
    let endpoint = Endpoint::parse(written).map_err(|error| in_endpoint(&error))?;
    let verify = embeddings.ssl_verify.unwrap_or(true);
    let tls = endpoint.is_https().then(|| Tls {
        server_name: endpoint.host().into(),
        verify,
        client: None,
    });
    let destination = Destination::new(endpoint.host(), endpoint.port(), tls)
        .map_err(|error| in_endpoint(&error))?;

    let of_auth: Vec<(String, String)> = (embeddings
        .auth
        .query
        .clone()
        .unwrap_or_default()
        .into_iter())
    .collect();
    let query = encode_query(&laid_over(&of_auth, endpoint.query()));
    let path = endpoint.path().unwrap_or(PATH);
    let target = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let uri = Uri::try_from(target.as_str()).map_err(|error| in_endpoint(&error))?;
    let auth = embeddings.auth.header.clone().unwrap_or_default();
    let headers = headers(&auth)?;
    let timeout = Duration::from_millis(embeddings.timeout.unwrap_or(TIMEOUT_MS));
    let identity = Identity {
        place: format!(
            "{}://{} {verify}",
            destination.scheme(),
            destination.address
        ),
        target,
        headers: auth.into_iter().collect(),
        model: embeddings.model.clone(),
        examples,
    };
    let model = embeddings.model.clone();
    let embedder = Embedder::new(destination, uri, headers, model, timeout)
        .map_err(|error| Faults::at("endpoint", error))?;
    Ok((embedder, identity))
}

fn headers(auth: &BTreeMap<String, String>) -> Result<HeaderMap, Faults> {
    let mut headers = HeaderMap::new();
    for (name, value) in auth {
        let path = join("auth.header", name);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Faults::at(&path, format!("`{name}` is not a header name")))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            let text = format!("auth.header.{name}: the value cannot stand in a header");
            Faults::at(&path, text)
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    // Those are the gateway's to set.
    headers.remove(http::header::CONTENT_LENGTH);
    headers.remove(http::header::TRANSFER_ENCODING);
    headers.remove(http::header::ACCEPT_ENCODING);
    Ok(headers)
}

const OPENAI: &str = "https://api.openai.com/v1/embeddings";
const PATH: &str = "/v1/embeddings";
/// APISIX's default.
const TIMEOUT_MS: u64 = 3000;
