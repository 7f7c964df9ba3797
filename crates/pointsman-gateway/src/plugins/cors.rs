//! `cors`: which pages of other origins may use a route.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        schema::Issue,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, ResponseHead, Step,
        registry::{Building, PluginKind},
    },
    router::pattern::{Case, Pattern},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// `*`, `**`, `null` or a list of `scheme://host`.
    #[schemars(regex(pattern = r"^(\*|\*\*|null|\w+://[^,]+(,\w+://[^,]+)*)$"))]
    allow_origins: String,
    /// `*`, `**` or a list.
    allow_methods: String,
    /// `*`, `**` or a list.
    allow_headers: String,
    /// `*`, `**` or a list.
    expose_headers: Option<String>,
    /// Seconds that a preflight answer stays valid.
    max_age: i64,
    /// Cookies and the like may be sent.
    allow_credential: bool,
    /// Instead of the list.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    allow_origins_by_regex: Option<Vec<String>>,
    /// Keys of the metadata's `allow_origins`.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    allow_origins_by_metadata: Option<Vec<String>>,
    /// Who may see resource timing.
    timing_allow_origins: Option<String>,
    /// Instead of that list.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    timing_allow_origins_by_regex: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Metadata {
    /// Lists of origins by name.
    allow_origins: std::collections::BTreeMap<String, String>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            allow_origins: "*".to_owned(),
            allow_methods: "*".to_owned(),
            allow_headers: "*".to_owned(),
            expose_headers: None,
            max_age: 5,
            allow_credential: false,
            allow_origins_by_regex: None,
            allow_origins_by_metadata: None,
            timing_allow_origins: None,
            timing_allow_origins_by_regex: None,
        }
    }
}

struct Cors {
    conf: Conf,
    origins: Origins,
    timing: Option<Origins>,
}

/// Which origins are allowed.
enum Origins {
    /// `*` or `null`: this very text.
    Fixed(&'static str),
    /// `**`: any, echoed.
    Any,
    /// These.
    Listed(Vec<String>),
    /// Those that match.
    Matching(Vec<Pattern>),
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "cors",
            priority: 4000,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<Metadata>()),
            is_auth: false,
            check,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    let mut found = Vec::new();
    let wildcard = |text: &str| text == "*";
    let exposes = conf.expose_headers.as_deref().is_some_and(wildcard);
    let times = conf.timing_allow_origins.as_deref().is_some_and(wildcard);
    if conf.allow_credential
        && (wildcard(&conf.allow_origins)
            || wildcard(&conf.allow_methods)
            || wildcard(&conf.allow_headers)
            || exposes
            || times)
    {
        let text = "you can not set '*' for other option when 'allow_credential' is true";
        found.push(Issue::new("allow_credential", text));
    }
    for (field, patterns) in [
        (BY_REGEX, &conf.allow_origins_by_regex),
        (TIMING_BY_REGEX, &conf.timing_allow_origins_by_regex),
    ] {
        if let Err(faults) = compile(field, patterns.as_deref()) {
            found.extend(faults.into_issues());
        }
    }
    Faults::none_of(found)
}

/// The patterns of `field`.
fn compile(field: &str, patterns: Option<&[String]>) -> Result<Option<Vec<Pattern>>, Faults> {
    let Some(patterns) = patterns else {
        return Ok(None);
    };
    let compiled = patterns.iter().enumerate().map(|(index, pattern)| {
        Pattern::new(pattern, Case::Sensitive).map_err(|error| {
            let path = format!("{field}[{index}]");
            Faults::at(&path, error.to_string())
        })
    });
    Faults::collect(compiled).map(Some)
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let metadata: Metadata = building
        .metadata
        .map(parse)
        .transpose()?
        .unwrap_or_default();
    let mut origins = match compile(BY_REGEX, conf.allow_origins_by_regex.as_deref())? {
        Some(patterns) => Origins::Matching(patterns),
        None => Origins::parse(&conf.allow_origins),
    };
    if let Some(names) = &conf.allow_origins_by_metadata {
        let listed = names
            .iter()
            .filter_map(|name| metadata.allow_origins.get(name));
        let mut all: Vec<String> = listed.flat_map(|list| split(list)).collect();
        if let Origins::Listed(own) = &origins {
            all.extend(own.iter().cloned());
        }
        origins = Origins::Listed(all);
    }
    let timing = match compile(
        TIMING_BY_REGEX,
        conf.timing_allow_origins_by_regex.as_deref(),
    )? {
        Some(patterns) => Some(Origins::Matching(patterns)),
        None => conf.timing_allow_origins.as_deref().map(Origins::parse),
    };
    Ok(Arc::new(Cors {
        conf,
        origins,
        timing,
    }))
}

impl Origins {
    fn parse(text: &str) -> Self {
        match text {
            "*" => Self::Fixed("*"),
            "null" => Self::Fixed("null"),
            "**" => Self::Any,
            list => Self::Listed(split(list)),
        }
    }

    /// What to answer to `origin`; `None` when it is not allowed.
    fn answer(&self, origin: Option<&str>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(text) => Some(HeaderValue::from_static(text)),
            Self::Any => Some(
                origin
                    .and_then(|origin| HeaderValue::from_str(origin).ok())
                    .unwrap_or_else(|| HeaderValue::from_static("*")),
            ),
            Self::Listed(list) => {
                let origin = origin.filter(|origin| list.iter().any(|one| one == origin))?;
                HeaderValue::from_str(origin).ok()
            }
            Self::Matching(patterns) => {
                let origin = origin?;
                // An origin on which a pattern gives up is not known to be allowed.
                let matches = |pattern: &Pattern| pattern.is_match(origin).unwrap_or(false);
                patterns
                    .iter()
                    .any(matches)
                    .then(|| HeaderValue::from_str(origin).ok())?
            }
        }
    }
}

fn split(list: &str) -> Vec<String> {
    list.split(',')
        .map(|origin| origin.trim().to_owned())
        .collect()
}

impl Plugin for Cors {
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::HEADER_FILTER)
    }

    /// A preflight request is answered at once, before authentication.
    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(if exchange.request.method == Method::OPTIONS {
            Flow::Respond(Reply::empty(StatusCode::OK))
        } else {
            Flow::Continue
        })
    }

    fn header_filter(&self, exchange: &Exchange, head: &mut ResponseHead) {
        let origin = exchange.header("origin");
        if self.conf.allow_origins != "*" || self.conf.allow_origins_by_regex.is_some() {
            head.headers
                .append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(value) = self
            .timing
            .as_ref()
            .and_then(|timing| timing.answer(origin))
        {
            head.headers
                .insert(HeaderName::from_static("timing-allow-origin"), value);
        }
        let Some(allowed) = self.origins.answer(origin) else {
            return;
        };
        let conf = &self.conf;
        set(head, header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let methods = if conf.allow_methods == "**" {
            ALL_METHODS
        } else {
            &conf.allow_methods
        };
        set_text(head, header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        set_text(
            head,
            header::ACCESS_CONTROL_MAX_AGE,
            &conf.max_age.to_string(),
        );
        let headers = if conf.allow_headers == "**" {
            exchange
                .header("access-control-request-headers")
                .unwrap_or_default()
        } else {
            &conf.allow_headers
        };
        if !headers.is_empty() {
            set_text(head, header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        if let Some(exposed) = conf
            .expose_headers
            .as_deref()
            .filter(|list| !list.is_empty())
        {
            set_text(head, header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        if conf.allow_credential {
            set_text(head, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
    }
}

fn set(head: &mut ResponseHead, name: HeaderName, value: HeaderValue) {
    head.headers.insert(name, value);
}

fn set_text(head: &mut ResponseHead, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        head.headers.insert(name, value);
    }
}

const BY_REGEX: &str = "allow_origins_by_regex";
const TIMING_BY_REGEX: &str = "timing_allow_origins_by_regex";
const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// G-159
    #[test]
    fn credentials_exclude_wildcards() {
        assert!(check(&json!({"allow_credential": true})).is_err());
        assert!(
            check(
                &json!({"allow_credential": true, "allow_origins": "http://a.com",
                "allow_methods": "GET", "allow_headers": "x", "expose_headers": "x",
                "timing_allow_origins": "*"})
            )
            .is_err()
        );
        let listed = json!({
            "allow_credential": true, "allow_origins": "http://a.com", "allow_methods": "GET",
            "allow_headers": "x"
        });
        assert_eq!(check(&listed), Ok(()));
    }

    /// G-158, G-160
    #[test]
    fn origins_are_matched() {
        let answer = |origins: &Origins, origin: Option<&str>| {
            origins
                .answer(origin)
                .and_then(|value| value.to_str().ok().map(str::to_owned))
        };
        let listed = Origins::parse("http://a.com,http://b.com");
        assert_eq!(
            answer(&listed, Some("http://b.com")).as_deref(),
            Some("http://b.com")
        );
        assert_eq!(answer(&listed, Some("http://c.com")), None);
        assert_eq!(answer(&Origins::parse("*"), None).as_deref(), Some("*"));
        assert_eq!(
            answer(&Origins::parse("**"), Some("http://x")).as_deref(),
            Some("http://x")
        );
        let patterns = compile(BY_REGEX, Some(&[".*\\.t\\.com$".to_owned()]))
            .expect("valid")
            .expect("some");
        let matching = Origins::Matching(patterns);
        assert_eq!(
            answer(&matching, Some("http://a.t.com")).as_deref(),
            Some("http://a.t.com")
        );
        assert_eq!(answer(&matching, Some("http://t.org")), None);
        let runaway = compile(BY_REGEX, Some(&[r"^(a+)+\1b$".to_owned()])).expect("valid");
        let runaway = Origins::Matching(runaway.expect("some"));
        assert_eq!(answer(&runaway, Some(&"a".repeat(64))), None);
    }
}
