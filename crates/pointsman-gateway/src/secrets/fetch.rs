//! One call to a secret manager: the name of a secret out, its value back.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use pointsman_ai::{
    Endpoint, gcp,
    sign::{self, AwsKeys, Unsigned},
};
use serde_json::{Value, json};

use crate::{
    body::Body,
    clock,
    config::{
        reference,
        resource::secret::{Aws, Gcp, Secret, Vault},
        text::Env,
    },
    ports::{SignRs256, Upstreams},
    side_call::{self, ReadError, SideCall},
    tokens::fetch::Fetcher,
    upstream::destination::{Destination, Tls},
};

/// Where secrets are kept. Has no `Debug`, for it holds credentials.
pub struct Manager {
    place: SideCall,
    kind: Kind,
}

enum Kind {
    Vault {
        /// Of all secrets, with a slash at its end.
        path: String,
        token: HeaderValue,
        namespace: Option<HeaderValue>,
    },
    Aws {
        path: String,
        authority: String,
        keys: AwsKeys,
        region: String,
    },
    Gcp {
        /// Of all secrets, with a slash at its end.
        path: String,
        account: Box<Fetcher>,
        token: Mutex<Option<(HeaderValue, Instant)>>,
    },
}

/// Why there is no value. Quotes nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// Whether the manager has said so; if not, a value from before may still be right.
    pub is_final: bool,
    /// Why.
    pub why: String,
}

impl FetchError {
    fn told(why: impl Into<String>) -> Self {
        Self {
            is_final: true,
            why: why.into(),
        }
    }

    fn silent(why: impl Into<String>) -> Self {
        Self {
            is_final: false,
            why: why.into(),
        }
    }
}

/// What a manager's resource may refer to.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The environment.
    pub env: Env<'a>,
    /// The text of a file, or why it cannot be had.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
}

impl Manager {
    /// The manager that `secret` describes.
    ///
    /// # Errors
    /// What cannot be used, by its field; no value of it.
    pub fn new(secret: &Secret, outside: Outside<'_>) -> Result<Self, String> {
        match secret {
            Secret::Vault(vault) => Self::vault(vault, outside.env),
            Secret::Aws(aws) => Self::aws(aws, outside.env),
            Secret::Gcp(gcp) => Self::gcp(gcp, outside),
        }
    }

    fn vault(vault: &Vault, env: Env<'_>) -> Result<Self, String> {
        let (place, endpoint) = place("uri", &in_env(&vault.uri, env), true)?;
        let base = endpoint.path().unwrap_or_default().trim_end_matches('/');
        let prefix = in_env(&vault.prefix, env);
        let path = format!("{base}/v1/{}", prefix.trim_matches('/'));
        let namespace = vault.namespace.as_ref();
        let namespace = namespace.map(|text| credential("namespace", &in_env(text, env)));
        Ok(Self {
            place,
            kind: Kind::Vault {
                path: format!("{}/", sign::wire_path(&path)),
                token: credential("token", &in_env(&vault.token, env))?,
                namespace: namespace.transpose()?,
            },
        })
    }

    fn aws(aws: &Aws, env: Env<'_>) -> Result<Self, String> {
        let one = |text: &String| in_env(text, env);
        let region = aws
            .region
            .as_ref()
            .map_or_else(|| "us-east-1".to_owned(), one);
        let url = aws.endpoint_url.as_ref().map(one);
        let url = url.unwrap_or_else(|| format!("https://secretsmanager.{region}.amazonaws.com"));
        let (place, endpoint) = place("endpoint_url", &url, true)?;
        Ok(Self {
            kind: Kind::Aws {
                path: endpoint.path().unwrap_or("/").to_owned(),
                authority: place.authority().to_owned(),
                keys: AwsKeys {
                    access_key_id: one(&aws.access_key_id),
                    secret_access_key: one(&aws.secret_access_key),
                    session_token: aws.session_token.as_ref().map(one),
                },
                region,
            },
            place,
        })
    }

    fn gcp(gcp: &Gcp, outside: Outside<'_>) -> Result<Self, String> {
        let mut account = match (&gcp.auth_config, &gcp.auth_file) {
            (Some(config), _) => Value::Object(config.clone()),
            (None, Some(file)) => {
                let text = (outside.file)(&in_env(file, outside.env));
                let text = text.map_err(|why| format!("auth_file: {why}"))?;
                let wrong = |_| "auth_file: it is no JSON".to_owned();
                serde_json::from_str(&text).map_err(wrong)?
            }
            (None, None) => return Err("neither auth_config nor auth_file is there".to_owned()),
        };
        for text in account
            .as_object_mut()
            .into_iter()
            .flat_map(|map| map.values_mut())
        {
            if let Value::String(text) = text {
                *text = in_env(text, outside.env);
            }
        }
        let verify = gcp.ssl_verify.unwrap_or(true);
        let text = |name: &str| account[name].as_str().filter(|text| !text.is_empty());
        let project = text("project_id").ok_or("the account has no `project_id`")?;
        let url = text("entries_uri").unwrap_or(GCP_URI);
        let (place, endpoint) = place("entries_uri", url, verify)?;
        let base = endpoint.path().unwrap_or_default().trim_end_matches('/');
        let path = sign::wire_path(&format!("{base}/projects/{project}/secrets/"));
        Ok(Self {
            place,
            kind: Kind::Gcp {
                path,
                account: Box::new(Fetcher::new(&account.to_string(), verify)?),
                token: Mutex::default(),
            },
        })
    }

    /// The value that `path`, the rest of a reference, names.
    ///
    /// # Errors
    /// There is none, or nobody knows.
    pub async fn fetch(
        &self,
        path: &str,
        sign: SignRs256,
        upstreams: &dyn Upstreams,
    ) -> Result<String, FetchError> {
        let segments: Vec<&str> = path.split('/').collect();
        // What leads elsewhere is none of this prefix's secrets.
        let is_odd = |segment: &&str| matches!(*segment, "" | "." | "..");
        if segments.len() > SEGMENTS_MAX || segments.iter().any(is_odd) {
            return Err(FetchError::told(format!(
                "the reference must name a secret and its key, in {SEGMENTS_MAX} parts at most"
            )));
        }
        match &self.kind {
            Kind::Vault {
                path: base,
                token,
                namespace,
            } => {
                let headers = [
                    (VAULT_TOKEN, Some(token.clone())),
                    (VAULT_NAMESPACE, namespace.clone()),
                ];
                let Some((name, key)) = path.rsplit_once('/') else {
                    return Err(FetchError::told("the reference names no key of the secret"));
                };
                let uri = format!("{base}{}", sign::wire_path(name));
                let answer = self
                    .call(Method::GET, &uri, headers, None, upstreams)
                    .await?;
                of_vault(&answer, key)
            }
            Kind::Aws { .. } => self.fetch_aws(path, upstreams).await,
            Kind::Gcp {
                path: base,
                account,
                token,
            } => {
                let token = gcp_token(account, token, sign, upstreams).await?;
                let (name, key) = match path.split_once('/') {
                    Some((name, key)) => (name, Some(key)),
                    None => (path, None),
                };
                let name = sign::wire_path(name);
                let uri = format!("{base}{name}/versions/latest:access");
                let headers = [(header::AUTHORIZATION, Some(token))];
                let answer = self
                    .call(Method::GET, &uri, headers, None, upstreams)
                    .await?;
                let data = answer["payload"]["data"].as_str();
                let bytes = data.and_then(|data| STANDARD.decode(data).ok());
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                let text = text.ok_or_else(|| FetchError::told("its value is no text"))?;
                part_of(text, key)
            }
        }
    }

    /// The longest name that there is, and what is behind it as a key of its JSON.
    async fn fetch_aws(&self, path: &str, upstreams: &dyn Upstreams) -> Result<String, FetchError> {
        let mut name = path;
        loop {
            let key = path.get(name.len() + 1..);
            match self.aws_secret(name, upstreams).await? {
                Some(text) => return part_of(text, key),
                None => match name.rsplit_once('/') {
                    Some((shorter, _)) => name = shorter,
                    None => return Err(FetchError::told("there is no such secret")),
                },
            }
        }
    }

    /// The text of the secret called `name`; `None` if there is no such secret.
    async fn aws_secret(
        &self,
        name: &str,
        upstreams: &dyn Upstreams,
    ) -> Result<Option<String>, FetchError> {
        let Kind::Aws {
            path,
            authority,
            keys,
            region,
        } = &self.kind
        else {
            return Ok(None);
        };
        let body = Bytes::from(json!({ "SecretId": name }).to_string());
        let signature = sign::sign(
            &Unsigned {
                method: "POST",
                host: authority,
                path,
                query: &[],
                body: std::slice::from_ref(&body),
                region,
                service: "secretsmanager",
                target: Some(AWS_TARGET),
                now: clock::unix_millis() / 1000,
            },
            keys,
        );
        let value = |text: &str| credential("its keys", text).map_err(FetchError::told);
        let session = keys.session_token.as_deref().map(value).transpose()?;
        let headers = [
            (
                header::CONTENT_TYPE,
                Some(HeaderValue::from_static(AWS_JSON)),
            ),
            (TARGET, Some(HeaderValue::from_static(AWS_TARGET))),
            (DATE, Some(value(&signature.date)?)),
            (
                header::AUTHORIZATION,
                Some(value(&signature.authorization)?),
            ),
            (SECURITY_TOKEN, session),
        ];
        let (status, answer) = self
            .exchange(Method::POST, path, headers, Some(body), upstreams)
            .await?;
        // Such as `com.amazonaws.secretsmanager#ResourceNotFoundException`.
        let kind = answer["__type"].as_str().unwrap_or_default();
        if status == StatusCode::BAD_REQUEST && kind.ends_with("ResourceNotFoundException") {
            return Ok(None);
        }
        // A 400, too.
        if kind.ends_with("ThrottlingException") {
            return Err(FetchError::silent("it asks for patience"));
        }
        check(status)?;
        let text = answer["SecretString"].as_str();
        let text = text.ok_or_else(|| FetchError::told("its value is no text"))?;
        Ok(Some(text.to_owned()))
    }

    async fn call<const N: usize>(
        &self,
        method: Method,
        uri: &str,
        headers: [(HeaderName, Option<HeaderValue>); N],
        body: Option<Bytes>,
        upstreams: &dyn Upstreams,
    ) -> Result<Value, FetchError> {
        let (status, answer) = self.exchange(method, uri, headers, body, upstreams).await?;
        check(status)?;
        Ok(answer)
    }

    /// The status and the JSON of an answer; of one that is no JSON, nothing.
    async fn exchange<const N: usize>(
        &self,
        method: Method,
        uri: &str,
        headers: [(HeaderName, Option<HeaderValue>); N],
        body: Option<Bytes>,
        upstreams: &dyn Upstreams,
    ) -> Result<(StatusCode, Value), FetchError> {
        let uri = Uri::try_from(uri);
        let uri = uri.map_err(|_| FetchError::told("its path fits into no request"))?;
        let mut request = Request::new(body.map_or_else(Body::default, Body::whole));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        for (name, value) in headers {
            if let Some(value) = value {
                request.headers_mut().insert(name, value);
            }
        }
        let call = async {
            let sent = self.place.send(request, upstreams).await;
            let (head, body) = sent
                .map_err(|fault| FetchError::silent(fault.as_str()))?
                .into_parts();
            let bytes = side_call::read(body, ANSWER_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| match error {
                ReadError::TooLarge => FetchError::told("its answer is too large"),
                ReadError::Transport(fault) => FetchError::silent(fault.as_str()),
            })?;
            let answer = serde_json::from_slice(&bytes).unwrap_or_default();
            Ok((head.status, answer))
        };
        let done = self.place.in_time(call, upstreams).await;
        let done = done.unwrap_or_else(|| Err(FetchError::silent("it took too long")));
        let at = self.place.address();
        done.map_err(|error| FetchError {
            why: format!("{at}: {}", error.why),
            ..error
        })
    }
}

async fn gcp_token(
    account: &Fetcher,
    kept: &Mutex<Option<(HeaderValue, Instant)>>,
    sign: SignRs256,
    upstreams: &dyn Upstreams,
) -> Result<HeaderValue, FetchError> {
    let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock::now();
    if let Some((token, until)) = &*lock()
        && now < *until
    {
        return Ok(token.clone());
    }
    let token = account.fetch(sign, upstreams).await;
    let token = token.map_err(|error| FetchError::silent(error.to_string()))?;
    let lifetime = gcp::token_lifetime(token.expires_in, EARLY_SECONDS, Some(TOKEN_SECONDS_MAX));
    let value = credential("the access token", &format!("Bearer {}", token.value));
    let value = value.map_err(FetchError::told)?;
    *lock() = Some((value.clone(), now + lifetime));
    Ok(value)
}

/// Of the answer of either version of Vault's key-value store.
fn of_vault(answer: &Value, key: &str) -> Result<String, FetchError> {
    let data = &answer["data"];
    // The second wraps what the first has.
    let is_second = data["data"].is_object() && data["metadata"].is_object();
    let data = if is_second { &data["data"] } else { data };
    match data.get(key) {
        None | Some(Value::Null) => Err(no_key(key)),
        Some(value) => Ok(text_of(value)),
    }
}

/// All of `text`, or what its JSON has under `key`.
fn part_of(text: String, key: Option<&str>) -> Result<String, FetchError> {
    let Some(key) = key else { return Ok(text) };
    let value: Value = serde_json::from_str(&text)
        .map_err(|_| FetchError::told("its value is no JSON, so it has no keys"))?;
    match value.get(key) {
        None | Some(Value::Null) => Err(no_key(key)),
        Some(value) => Ok(text_of(value)),
    }
}

fn no_key(key: &str) -> FetchError {
    FetchError::told(format!("the secret has no `{key}`"))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a status says: whoever has the secret knows best, and whoever has trouble says nothing about it.
fn check(status: StatusCode) -> Result<(), FetchError> {
    let code = status.as_u16();
    match code {
        200 => Ok(()),
        404 => Err(FetchError::told("there is no such secret (404)")),
        408 | 412 | 429 => Err(FetchError::silent(format!("it answered {code}"))),
        400..=499 => Err(FetchError::told(format!("it answered {code}"))),
        _ => Err(FetchError::silent(format!("it answered {code}"))),
    }
}

fn in_env(text: &str, env: Env<'_>) -> String {
    reference::of_env(text, env).unwrap_or_else(|| text.to_owned())
}

/// The place at `url`, which stands in `field`.
fn place(field: &str, url: &str, verify: bool) -> Result<(SideCall, Endpoint), String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{field}: {what}");
    let endpoint = Endpoint::parse(url).map_err(|error| wrong(&error))?;
    let tls = endpoint.is_https().then(|| Tls {
        server_name: endpoint.host().into(),
        verify,
        client: None,
    });
    let destination = Destination::new(endpoint.host(), endpoint.port(), tls);
    let destination = destination.map_err(|error| wrong(&error))?;
    let place = SideCall::new(destination, "secret manager", TIMEOUT)?;
    Ok((place, endpoint))
}

/// A header that logs do not show.
fn credential(field: &str, text: &str) -> Result<HeaderValue, String> {
    if reference::is_reference(text) {
        return Err(format!("{field}: nothing stands for the reference"));
    }
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| format!("{field}: it fits into no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

const VAULT_TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const VAULT_NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const AWS_TARGET: &str = "secretsmanager.GetSecretValue";
const AWS_JSON: &str = "application/x-amz-json-1.1";
const GCP_URI: &str = "https://secretmanager.googleapis.com/v1";
/// Of one call.
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const SEGMENTS_MAX: usize = 16;
const EARLY_SECONDS: u64 = 60;
const TOKEN_SECONDS_MAX: u64 = 3600;
