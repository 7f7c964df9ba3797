//! Embeddings made up: an endpoint with vectors on axes, and three instances to tell apart by them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Answer, Received, Upstream, instance};

/// The texts of a request for embeddings.
pub(crate) fn texts(received: &Received) -> Vec<String> {
    let body = received.json();
    let texts = body["input"].as_array().expect("an array").iter();
    let text = |text: &Value| text.as_str().expect("a text").to_owned();
    texts.map(text).collect()
}

/// Vectors on axes, one for each kind of prompt.
pub(crate) fn vector(text: &str) -> [f32; 4] {
    match text {
        _ if text.contains("both") => [0.77, 0.638, 0.0, 0.0],
        _ if text.contains("code") => [1.0, 0.0, 0.0, 0.0],
        _ if text.contains("translate") => [0.0, 2.0, 0.0, 0.0],
        _ if text.contains("chat") => [0.0, 0.0, 0.0, 1.0],
        _ => [0.0, 0.0, 1.0, 0.0],
    }
}

pub(crate) fn vectors(received: &Received, pad: &[f32]) -> Answer {
    let texts = texts(received);
    // Backwards: it is the index that says whose vector it is.
    let items = texts.iter().enumerate().rev().map(|(index, text)| {
        let vector = [&vector(text)[..], pad].concat();
        json!({"object": "embedding", "index": index, "embedding": vector})
    });
    Answer::json(&json!({"object": "list", "data": items.collect::<Vec<_>>()}).to_string())
}

/// An embeddings endpoint that can be told to answer something else.
pub(crate) struct Embeddings {
    pub(crate) upstream: Upstream,
    /// Instead of vectors: for a prompt, and for a batch of examples.
    pub(crate) instead: Arc<Mutex<(Option<Answer>, Option<Answer>)>>,
    /// Further components of every vector.
    pub(crate) pad: Arc<Mutex<Vec<f32>>>,
}

impl Embeddings {
    pub(crate) fn start() -> Self {
        let instead: Arc<Mutex<(Option<Answer>, Option<Answer>)>> = Arc::default();
        let pad: Arc<Mutex<Vec<f32>>> = Arc::default();
        let (theirs, padding) = (Arc::clone(&instead), Arc::clone(&pad));
        let upstream = Upstream::start(move |received| {
            let instead = theirs.lock().expect("not poisoned");
            let told = match texts(received).len() {
                1 => instead.0.clone(),
                _ => instead.1.clone(),
            };
            told.unwrap_or_else(|| vectors(received, &padding.lock().expect("not poisoned")))
        });
        Self {
            upstream,
            instead,
            pad,
        }
    }

    /// An endpoint that answers as `upstream` does.
    pub(crate) fn at(upstream: Upstream) -> Self {
        Self {
            upstream,
            instead: Arc::default(),
            pad: Arc::default(),
        }
    }

    pub(crate) fn answer_prompts(&self, answer: Option<Answer>) {
        self.instead.lock().expect("not poisoned").0 = answer;
    }

    pub(crate) fn answer_batches(&self, answer: Option<Answer>) {
        self.instead.lock().expect("not poisoned").1 = answer;
    }

    /// How many batches of examples it was asked for.
    pub(crate) fn batches(&self) -> usize {
        let requests = self.upstream.requests();
        let batches = requests.iter().filter(|one| texts(one).len() > 1);
        batches.count()
    }

    /// `semantic_opts` that use it, and further lines of the plugin.
    pub(crate) fn options(&self, more: &str, lines: &str) -> String {
        format!(
            "        balancer: {{algorithm: semantic}}\n        semantic_opts: {{embeddings: {{provider: \
             openai, model: e, auth: {{header: {{Authorization: Bearer embed}}}}, endpoint: \
             \"http://{}\"}}, debugging: true{more}}}\n{lines}",
            self.upstream.address
        )
    }
}

/// Three instances, each with an example or two of what it is for.
pub(crate) struct Three {
    pub(crate) code: Upstream,
    pub(crate) cheap: Upstream,
    pub(crate) default: Upstream,
}

impl Three {
    pub(crate) fn start() -> Self {
        Self {
            code: Upstream::named("code"),
            cheap: Upstream::named("cheap"),
            default: Upstream::named("default"),
        }
    }

    pub(crate) fn instances(&self, more: &str) -> Vec<String> {
        let of = |name: &str, upstream: &Upstream, examples: &str| {
            let more = format!(", examples: [{examples}]{more}");
            instance(name, upstream.address, &more)
        };
        vec![
            of("code", &self.code, "write code, do both"),
            of("cheap", &self.cheap, "translate this"),
            of("default", &self.default, "let us chat"),
        ]
    }

    pub(crate) fn hits(&self) -> [usize; 3] {
        [&self.code, &self.cheap, &self.default].map(Upstream::hits)
    }
}
