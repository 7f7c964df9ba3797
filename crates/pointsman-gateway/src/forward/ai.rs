//! LLM traffic: a request to an instance in that instance's terms, and its response back.
//!
//! Each attempt starts from the client's own bytes, so nothing that one instance's options added
//! can reach another. A response that is not a stream is read whole before its head is passed on:
//! if it breaks off, the client gets an error, or another instance gets a chance, instead of half
//! an answer that says 200.

mod again;
mod kind;
mod opening;
mod outgoing;
mod realtime;
mod signed;
mod token;
mod told;
mod translated;

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use pointsman_ai::{Capture, Complaint, Protocol};
use pointsman_balance::{Picked, Tried};

use crate::{
    body::{self, Body, CollectError},
    clock,
    config::snapshot::PoolRef,
    exchange::{AttemptRecord, Exchange},
    failure::{Failure, TransportFault},
    forward::{
        Outcome,
        ai::{
            kind::{Kind, says_events},
            told::Told,
        },
        judge::{Accepted, Held, RetryPolicy},
    },
    observe::metrics::ActiveConnection,
    plugin::{Reply, chain::respond},
    plugins::ai_proxy::{AiTarget, RelayLimits},
    ports::{Answer, Attempt, BrokenBody, SendError, Source},
    upstream::resolve::Located,
};

/// A request to one of the instances of an AI plugin.
pub struct AiPlan {
    /// The plugin's instances.
    pub target: Arc<AiTarget>,
    /// What a hash ring hashes.
    pub hash_key: Option<String>,
    protocol: Protocol,
    /// What the last attempt's error was about.
    complaint: Option<Complaint>,
    /// Of the instance that was picked.
    pub located: Located,
    /// What was told of the attempt before the current one.
    before: Told,
}

impl AiPlan {
    /// The plan for an exchange that an AI plugin has claimed.
    pub fn new(exchange: &mut Exchange) -> Result<Self, Failure> {
        let Some(call) = exchange.ai.as_ref() else {
            return Err(Failure::Internal(
                "no AI plugin claimed the request".to_owned(),
            ));
        };
        let target = Arc::clone(&call.target);
        let protocol = call.protocol;
        let hash_key = target.hash_key.as_ref().map(|key| key.of(exchange));
        Ok(Self {
            target,
            hash_key,
            protocol,
            complaint: None,
            located: Located::default(),
            before: Told::default(),
        })
    }

    /// Whether it is about a session, and no request and answer.
    pub fn is_session(&self) -> bool {
        self.protocol == realtime::REALTIME
    }

    /// What the last attempt's error was about, if that is known.
    pub fn complaint(&self) -> Option<Complaint> {
        self.complaint
    }

    /// Those who cannot be asked: an API that is passed on goes to whoever has it.
    pub fn unable(&self) -> Result<Tried, Failure> {
        let mut unable = Tried::new();
        if !matches!(self.protocol, Protocol::Direct(_)) {
            return Ok(unable);
        }
        let mut refused = None;
        let instances = &self.target.instances;
        for (member, instance) in instances.iter().enumerate() {
            let bound = pointsman_ai::bind(instance.provider, instance.spoken, self.protocol);
            if let Err(unsupported) = bound {
                unable.rule_out(member);
                refused = refused.or(Some(unsupported));
            }
        }
        match refused {
            Some(refused) if unable.len() == instances.len() => {
                Err(Failure::Refused(refused.to_string()))
            }
            _ => Ok(unable),
        }
    }

    /// When an attempt may be followed by another.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.target.retry
    }

    /// The attempt that `picked` stands for.
    pub fn prepare(
        &mut self,
        exchange: &mut Exchange,
        mut picked: Picked,
    ) -> Result<Attempt, Failure> {
        let target = Arc::clone(&self.target);
        let instance = &target.instances[picked.member()];
        // What an attempt before this one took is not what this one takes.
        self.before = Told::take(exchange);
        exchange.llm.instance = Some(Arc::clone(&instance.name));
        let binding = pointsman_ai::bind(instance.provider, instance.spoken, self.protocol)
            .map_err(|unsupported| Failure::Refused(unsupported.to_string()))?;
        let strict = target.strict;
        let translated =
            translated::translate(exchange, instance, self.protocol, &binding, strict)?;
        let Some(destination) = &instance.destination else {
            return Err(Failure::Internal(format!(
                "instance {} has no endpoint: set override.endpoint",
                instance.name
            )));
        };
        exchange.llm.model = instance
            .model
            .clone()
            .or_else(|| exchange.llm.request_model.as_deref().map(Arc::from));
        let (request, path) =
            outgoing::request(exchange, instance, destination, &binding, translated)?;
        exchange.attempts.push(AttemptRecord::begin(
            &mut picked,
            Arc::clone(&instance.address),
            Arc::clone(&instance.name),
            path,
            destination.scheme(),
            Arc::clone(&instance.host),
        ));
        exchange.active = Some(ActiveConnection::begin(exchange));
        let Located { addresses, group } = std::mem::take(&mut self.located);
        Ok(Attempt {
            picked,
            source: Source::Judged {
                pool: PoolRef::Ai(Arc::clone(&target)),
                gateway: Rc::clone(exchange.gateway()),
            },
            destination: Arc::clone(destination),
            addresses,
            group,
            request,
            timeouts: target.timeouts,
            keepalive: target.keepalive,
            upgrade: (self.protocol == realtime::REALTIME)
                .then(|| target.timeouts.read.max(realtime::SILENCE_MIN)),
        })
    }

    /// The attempt just prepared was none: what is told is about the one before it again.
    pub fn take_back(&mut self, exchange: &mut Exchange) {
        std::mem::take(&mut self.before).put_back(exchange);
    }

    /// What came of an attempt: an error status is judged before its body is read.
    pub async fn receive(
        &mut self,
        exchange: &mut Exchange,
        sent: Result<Answer, SendError>,
    ) -> Outcome {
        self.complaint = None;
        match sent {
            Err(error) => {
                let failure = Failure::Transport(error.fault);
                exchange.note_attempt_failed(&failure, &error.detail);
                exchange.llm.response_ms = Some(millis(exchange));
                Outcome::Failed(failure)
            }
            Ok(answer)
                if self
                    .target
                    .retry
                    .is_error(answer.response.status().as_u16())
                    && !may_complain(&answer) =>
            {
                Outcome::ErrorStatus(answer)
            }
            Ok(answer) if realtime::has_switched(&answer.response) => {
                realtime::begin(exchange, &self.target);
                Outcome::Answer(answer)
            }
            Ok(answer) => match self.read(exchange, answer).await {
                Ok(answer) => self.look_into(answer),
                Err(failure) => {
                    if let Failure::BadStream(error) = &failure {
                        self.complaint = error.complaint;
                    }
                    exchange.note_attempt_failed(&failure, "while reading the response");
                    exchange.llm.response_ms = Some(millis(exchange));
                    Outcome::Failed(failure)
                }
            },
        }
    }

    /// Finds out what an error is about. A refusal by policy is an answer, whatever its status.
    fn look_into(&mut self, answer: Answer) -> Outcome {
        let status = answer.response.status();
        if may_complain(&answer) {
            let body = answer.response.body().first_piece();
            self.complaint = body.and_then(|body| pointsman_ai::complaint(status.as_u16(), body));
        }
        let is_answer = self.complaint == Some(Complaint::ContentPolicy)
            || !self.target.retry.is_error(status.as_u16());
        if is_answer {
            Outcome::Answer(answer)
        } else {
            Outcome::ErrorStatus(answer)
        }
    }

    /// Makes a response ready to be passed on: a stream gets its meter, anything else is read.
    async fn read(&self, exchange: &mut Exchange, answer: Answer) -> Result<Answer, Failure> {
        let kind = Kind::of(answer.response.headers());
        let limit = self.target.limits.response_bytes;
        let is_success = answer.response.status().is_success();
        let call = exchange.ai.as_ref();
        let is_translated = call.is_some_and(|call| call.translated.is_some());
        // Gemini streams one JSON array to those who did not ask for events.
        let is_array = self.protocol == Protocol::GeminiGenerateContent
            && exchange.llm.stream
            && kind == Kind::Json
            && is_success
            && !is_translated;
        // An error is read whole to be put into the client's words, however it comes.
        if is_array || (kind == Kind::Stream && (is_success || !is_translated)) {
            return self.open(exchange, answer).await;
        }
        let declared = content_length(answer.response.headers());
        if let (Some(declared), Some(limit)) = (declared, limit)
            && declared > limit
        {
            return Err(Failure::ResponseTooLarge);
        }
        if kind == Kind::Media && limit.is_none() {
            return Ok(answer);
        }
        let (parts, mut response_body) = answer.response.into_parts();
        let bytes = body::collect(
            &mut response_body,
            declared,
            limit.unwrap_or(WHOLE_BYTES_MAX),
        )
        .await
        .map_err(|error| response_failure(&error))?;
        self.note_whole(exchange, &bytes, parts.status);
        let is_answer = parts.status.is_success();
        let mut response = Response::from_parts(parts, Body::whole(bytes.clone()));
        if is_answer && let Some(body) = translated::whole_answer(exchange, &bytes)? {
            *response.body_mut() = Body::whole(body);
            translated::say_json(&mut response);
        }
        Ok(Answer {
            response,
            address: answer.address,
            connect_time: answer.connect_time,
        })
    }

    /// Makes a stream ready to be passed on: waits for its beginning.
    async fn open(&self, exchange: &mut Exchange, mut answer: Answer) -> Result<Answer, Failure> {
        let attempt = exchange.attempts.last();
        let began = attempt.map_or(exchange.started, |attempt| attempt.started);
        let target = &self.target;
        let limits = RelayLimits::of(&target.limits, began);
        let call = exchange.ai.as_ref();
        let translation = call.and_then(|call| call.translated.as_ref());
        let translation = translation.map(|translated| translated.translation.clone());
        let as_array = self.protocol == Protocol::GeminiGenerateContent
            && !outgoing::wants_sse(exchange.request.query.as_deref());
        let translator = translation.and_then(|translation| translation.stream(as_array));
        let spoken = call.map_or(self.protocol, |call| call.target_protocol());
        // Of what nobody knows only events can be told apart.
        let is_read = spoken != Protocol::Passthrough || says_events(answer.response.headers());
        let opening = opening::Opening {
            target: spoken,
            // What is translated waits in any case: an error before its content has a status then.
            hold: answer.response.status().is_success()
                && is_read
                && (target.opening.hold)
                    .unwrap_or_else(|| translator.is_some() || target.retry.may_retry()),
            translator: translator.map(Box::new),
            first_token: target.opening.first_token.map(|allowed| began + allowed),
            limits,
            capture: capture(exchange),
            estimates: target.estimates,
        };
        let opened = opening.open(exchange, answer.response.body_mut()).await?;
        exchange.llm.first_token_ms = Some(millis(exchange));
        exchange.observe_so_far();
        if opened.translator.is_some() {
            translated::say_stream(self.protocol, as_array, &mut answer.response);
        }
        if let Some(call) = exchange.ai.as_mut() {
            call.meter = Some(opened.meter);
            call.translator = opened.translator;
            call.relay_limits = limits;
            call.first = opened.first;
        }
        Ok(answer)
    }

    /// Reads usage and the like from a whole response.
    fn note_whole(&self, exchange: &mut Exchange, bytes: &Bytes, status: StatusCode) {
        if let Some(attempt) = exchange.attempts.last_mut() {
            let took = clock::now() - attempt.started;
            attempt.total = Some(took);
            attempt.body_bytes = bytes.len() as u64;
            let took = u64::try_from(took.as_millis()).ok();
            exchange.llm.response_ms = took;
            exchange.llm.first_token_ms = took;
        }
        let capture = capture(exchange);
        let target = exchange.ai.as_ref().map(|call| call.target_protocol());
        let target = target.unwrap_or(self.protocol);
        let Some(facts) = pointsman_ai::read_response(target, bytes, capture) else {
            return;
        };
        if status.is_success() || facts.usage.is_some() {
            exchange.llm.usage = facts.usage;
            exchange.llm.has_tool_calls = facts.has_tool_calls;
            exchange.llm.text = facts.text;
        }
    }

    /// No retry is allowed: the attempt's own status and body are the answer.
    pub async fn stop(
        &mut self,
        exchange: &mut Exchange,
        held: Held,
    ) -> Result<Response<Body>, Failure> {
        self.answer_with(exchange, held, None).await
    }

    /// A retry would be allowed but nobody is left: 502 with the last body, as in APISIX.
    pub async fn give_up(
        &mut self,
        exchange: &mut Exchange,
        held: Held,
    ) -> Result<Response<Body>, Failure> {
        self.answer_with(exchange, held, Some(StatusCode::BAD_GATEWAY))
            .await
    }

    async fn answer_with(
        &mut self,
        exchange: &mut Exchange,
        held: Held,
        status: Option<StatusCode>,
    ) -> Result<Response<Body>, Failure> {
        let mut response = match held {
            Held::Failure(failure) => {
                exchange.note_failure(&failure);
                failure.response_as(
                    status.unwrap_or_else(|| failure.status()),
                    Some(self.protocol),
                )
            }
            Held::Answer(answer) => {
                exchange.resume();
                self.error_of(exchange, answer).await
            }
        };
        if let Some(status) = status {
            *response.status_mut() = status;
        }
        Ok(in_own_words(exchange, response))
    }

    /// An instance's error, to be passed on.
    async fn error_of(&self, exchange: &mut Exchange, answer: Answer) -> Response<Body> {
        let Answer {
            response,
            address,
            connect_time,
        } = answer;
        let (head, body) = response.into_parts();
        // The status is known and true, and so is how long to wait; they survive the words.
        let mut bare = Response::new(Body::Empty);
        *bare.status_mut() = head.status;
        *bare.headers_mut() = head.headers.clone();
        let bare = Answer {
            response: bare,
            address,
            connect_time,
        };
        if own_words(exchange).is_some() {
            // The target's words will be replaced: they are not even read.
            exchange.llm.response_ms = Some(millis(exchange));
            return passed_on(bare);
        }
        let answer = Answer {
            response: Response::from_parts(head, body),
            address,
            connect_time,
        };
        match self.read(exchange, answer).await {
            Ok(answer) => deliver(exchange, answer),
            Err(failure) => {
                exchange.note_failure(&failure);
                let mut response = passed_on(bare);
                let headers = response.headers_mut();
                headers.remove(header::CONTENT_TYPE);
                headers.remove(header::CONTENT_ENCODING);
                response
            }
        }
    }
}

/// `_meta.error_response` of the plugin that claimed the request, wherever it stands.
fn own_words(exchange: &Exchange) -> Option<&serde_json::Value> {
    let call = exchange.ai.as_ref()?;
    let chains = [&exchange.chain, &exchange.snapshot().global];
    let mut entries = chains.into_iter().flat_map(|chain| chain.entries());
    let claimed = entries.find(|entry| {
        let target = entry.plugin.ai_target();
        target.is_some_and(|target| Arc::ptr_eq(target, &call.target))
    });
    claimed?.error_response.as_deref()
}

/// The response under the plugin's `_meta.error_response`, if it has one: that goes for whatever
/// status of 400 or above the plugin answers with.
pub(crate) fn in_own_words(exchange: &Exchange, response: Response<Body>) -> Response<Body> {
    let Some(words) = own_words(exchange) else {
        return response;
    };
    let status = response.status();
    if status.as_u16() < 400 {
        return response;
    }
    let mut replaced = respond(Reply::empty(status), Some(words));
    // How long to wait is still worth knowing.
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_ENCODING {
            replaced.headers_mut().insert(name.clone(), value.clone());
        }
    }
    replaced
}

/// Passes an accepted response on.
pub fn deliver_accepted(exchange: &Exchange, accepted: Accepted) -> Response<Body> {
    deliver(exchange, accepted.into_answer())
}

/// Passes a response on, in the client's protocol.
fn deliver(exchange: &Exchange, answer: Answer) -> Response<Body> {
    let mut response = passed_on(answer);
    translated::finish(exchange, &mut response);
    response
}

/// Whether the body of an error says more than its status: a 429 is what it is, and what is above is
/// not the request's fault.
/// A stream is nothing to look into.
fn may_complain(answer: &Answer) -> bool {
    let status = answer.response.status();
    status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && Kind::of(answer.response.headers()) != Kind::Stream
}

/// Status, content type and the few headers that mean something to the client; the rest of a
/// provider's headers (cookies, its server, its CDN) stays here.
fn passed_on(answer: Answer) -> Response<Body> {
    let has_switched = realtime::has_switched(&answer.response);
    let (mut parts, body) = answer.response.into_parts();
    // Few headers, and the allocator is quick with what is small.
    let mut headers = HeaderMap::with_capacity(6);
    for (name, value) in &parts.headers {
        if is_passed_on(name) || (has_switched && realtime::is_of_handshake(name.as_str())) {
            headers.append(name.clone(), value.clone());
        }
    }
    parts.headers = headers;
    if !has_switched {
        // There is the connection of a session in them.
        parts.extensions = http::Extensions::new();
    }
    Response::from_parts(parts, body)
}

/// Response headers that reach the client.
fn is_passed_on(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "content-type"
            | "content-encoding"
            | "retry-after"
            | "retry-after-ms"
            | "x-should-retry"
            | "x-request-id"
            | "request-id"
            | "apim-request-id"
    ) || PASSED_ON_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What a response body that could not be read to its end means.
fn response_failure(error: &CollectError) -> Failure {
    match error {
        CollectError::TooLarge(_) => Failure::ResponseTooLarge,
        CollectError::Broken(source) => Failure::Transport(
            source
                .downcast_ref::<BrokenBody>()
                .map_or(TransportFault::Closed, |broken| broken.0),
        ),
    }
}

fn capture(exchange: &Exchange) -> Capture {
    if exchange.wants().llm_text {
        Capture::Text
    } else {
        Capture::Nothing
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn millis(exchange: &Exchange) -> u64 {
    exchange.attempts.last().map_or(0, |attempt| {
        u64::try_from((clock::now() - attempt.started).as_millis()).unwrap_or(u64::MAX)
    })
}

/// The most that is read of a response that is not a stream when `max_response_bytes` is not set.
const WHOLE_BYTES_MAX: u64 = 256 << 20;

/// Beginnings of further response headers that reach the client.
const PASSED_ON_PREFIXES: &[&str] = &["x-ratelimit-", "anthropic-ratelimit-", "openai-"];
