//! Embeddings of providers whose interface is not OpenAI's: requests to them, and their answers in
//! OpenAI's form. Vectors are passed on digit by digit, unless the client wants them in base64.

use serde_json::{Map, Value, json, value::RawValue};

use crate::{Usage, base64, conversation::Malformed};

mod answer;

/// A provider's own interface for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VectorApi {
    /// Vertex AI `:predict`.
    VertexPredict,
    /// Gemini `:batchEmbedContents`.
    GeminiBatch,
    /// Cohere Embed, version 2.
    CohereEmbed,
    /// Amazon Titan Text Embeddings, by Bedrock's `invoke`.
    BedrockTitan,
}

impl VectorApi {
    /// What logs and messages call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::VertexPredict => "vertex-predict",
            Self::GeminiBatch => "gemini-batch-embed-contents",
            Self::CohereEmbed => "cohere-embed",
            Self::BedrockTitan => "bedrock-titan",
        }
    }
}

/// What the client expects of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// `encoding_format` is `base64`.
    base64: bool,
    /// One vector for each of so many texts.
    count: usize,
}

/// A request, what its answer must be like, and the members that got lost.
pub(crate) type Written = (Vec<u8>, Expected, Vec<String>);

/// OpenAI's request `body` for `api`; `model` is empty if none is known.
///
/// # Errors
/// It is not OpenAI's, or holds what the provider does not take.
pub(crate) fn request(api: VectorApi, body: &[u8], model: &str) -> Result<Written, Malformed> {
    let mut sent: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| wrong("", error.to_string()))?;
    let texts = texts(sent.remove("input"))?;
    let base64 = match sent.remove("encoding_format") {
        None | Some(Value::Null) => false,
        Some(Value::String(format)) if format == "float" => false,
        Some(Value::String(format)) if format == "base64" => true,
        Some(_) => return Err(wrong("encoding_format", "must be `float` or `base64`")),
    };
    sent.remove("model");
    let expected = Expected {
        base64,
        count: texts.len(),
    };
    let mut dimensions = sent.remove("dimensions").filter(|value| !value.is_null());
    let mut take = |name: &str| sent.remove(name).filter(|value| !value.is_null());
    let mut out = match api {
        VectorApi::VertexPredict => {
            let task = take("task_type");
            let instances = texts.iter().map(|text| {
                let mut instance = json!({ "content": text });
                add(&mut instance, "task_type", task.clone());
                instance
            });
            json!({ "instances": instances.collect::<Vec<_>>() })
        }
        VectorApi::GeminiBatch => {
            let (task, length) = (take("task_type"), dimensions.take());
            let requests = texts.iter().map(|text| {
                let content = json!({"parts": [{"text": text}]});
                let mut one = json!({"model": format!("models/{model}"), "content": content});
                add(&mut one, "taskType", task.clone());
                add(&mut one, "outputDimensionality", length.clone());
                one
            });
            json!({ "requests": requests.collect::<Vec<_>>() })
        }
        VectorApi::CohereEmbed => {
            let kind = take("input_type").unwrap_or_else(|| json!("search_document"));
            let mut out = json!({"texts": texts, "input_type": kind, "embedding_types": ["float"]});
            if !model.is_empty() {
                out["model"] = json!(model);
            }
            add(&mut out, "truncate", take("truncate"));
            add(&mut out, "output_dimension", dimensions.take());
            out
        }
        VectorApi::BedrockTitan => {
            let [text] = &texts[..] else {
                let what = format!(
                    "Amazon Titan embeds one text a request, and these are {}; send one at a time",
                    texts.len()
                );
                return Err(wrong("input", what));
            };
            let mut out = json!({ "inputText": text });
            add(&mut out, "normalize", take("normalize"));
            add(&mut out, "dimensions", dimensions.take());
            out
        }
    };
    if let Some(length) = dimensions {
        out["parameters"] = json!({ "outputDimensionality": length });
    }
    let lost = sent.into_iter().map(|(name, _)| name).collect();
    Ok((out.to_string().into_bytes(), expected, lost))
}

fn add(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[name] = value;
    }
}

/// The texts of `input`, in APISIX 3.18's reading: a list in it counts as its words. Ids of tokens mean
/// nothing to another model.
fn texts(input: Option<Value>) -> Result<Vec<String>, Malformed> {
    let items = match input {
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(items)) => items,
        _ => return Err(wrong("input", "must be a string or an array of strings")),
    };
    if items.is_empty() {
        return Err(wrong("input", "must not be empty"));
    }
    let read = |(index, item): (usize, Value)| {
        let text = match item {
            Value::String(text) => Some(text),
            Value::Array(words) => {
                let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
                words.map(|words| words.join(" "))
            }
            _ => None,
        };
        text.ok_or_else(|| {
            let what = format!(
                "unsupported input type at index {}: this provider embeds texts, not token ids",
                index + 1
            );
            wrong(&format!("input[{index}]"), what)
        })
    };
    items.into_iter().enumerate().map(read).collect()
}

/// The answer `body` of `api` as OpenAI's, naming `model`.
///
/// # Errors
/// It has no vector for every text.
pub(crate) fn response(
    api: VectorApi,
    body: &[u8],
    model: &str,
    expected: Expected,
) -> Result<Vec<u8>, Malformed> {
    let answer = answer::read(api, body)?;
    if answer.vectors.len() != expected.count {
        let what = format!(
            "{} vectors for {} texts",
            answer.vectors.len(),
            expected.count
        );
        return Err(wrong("", what));
    }
    let length = answer.vectors.iter().map(|vector| vector.get().len() + 64);
    let mut out = Vec::with_capacity(length.sum::<usize>() + 128);
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (index, vector) in answer.vectors.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let head = format!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#);
        out.extend_from_slice(head.as_bytes());
        if expected.base64 {
            out.push(b'"');
            out.extend_from_slice(packed(vector, index)?.as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(vector.get().as_bytes());
        }
        out.push(b'}');
    }
    let tokens = answer.tokens.unwrap_or_default();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let tail = format!(r#"],"model":{},"usage":{usage}}}"#, json!(model));
    out.extend_from_slice(tail.as_bytes());
    Ok(out)
}

/// The tokens that the answer `body` of `api` states.
pub(crate) fn usage(api: VectorApi, body: &[u8]) -> Option<Usage> {
    let tokens = answer::read(api, body).ok()?.tokens?;
    Some(Usage {
        prompt: tokens,
        total: tokens,
        ..Usage::default()
    })
}

/// A vector as OpenAI packs it: 32-bit floats, little-endian, in base64.
fn packed(vector: &RawValue, index: usize) -> Result<String, Malformed> {
    let components: Vec<f32> =
        serde_json::from_str(vector.get()).map_err(|_| answer::invalid(index))?;
    let bytes: Vec<u8> = components
        .iter()
        .flat_map(|component| component.to_le_bytes())
        .collect();
    Ok(base64::encode(&bytes))
}

fn wrong(path: &str, what: impl Into<String>) -> Malformed {
    Malformed {
        path: path.to_owned(),
        what: what.into(),
    }
}

#[cfg(test)]
mod tests;
