//! What providers answer: vectors in order, and how many tokens the texts had.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{VectorApi, wrong};
use crate::conversation::Malformed;

/// The vectors of an answer, each an array, and its tokens if it states any.
pub(super) struct Answer<'a> {
    pub(super) vectors: Vec<&'a RawValue>,
    pub(super) tokens: Option<u64>,
}

/// Reads the answer `body` of `api`.
pub(super) fn read(api: VectorApi, body: &[u8]) -> Result<Answer<'_>, Malformed> {
    let (vectors, tokens) = match api {
        VectorApi::VertexPredict => vertex(body)?,
        VectorApi::GeminiBatch => gemini(body)?,
        VectorApi::CohereEmbed => cohere(body)?,
        VectorApi::BedrockTitan => titan(body)?,
    };
    let vectors = vectors.into_iter().enumerate().map(|(index, vector)| {
        let vector = vector.filter(|vector| vector.get().starts_with('['));
        vector.ok_or_else(|| invalid(index))
    });
    Ok(Answer {
        vectors: vectors.collect::<Result<_, _>>()?,
        tokens: tokens.map(|tokens| tokens as u64),
    })
}

/// The vector of that index (from 0) is none.
pub(super) fn invalid(index: usize) -> Malformed {
    wrong("", format!("invalid embedding at index {}", index + 1))
}

type Found<'a> = Result<(Vec<Option<&'a RawValue>>, Option<f64>), Malformed>;

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    // What is wrong with it is not quoted: it may repeat the text.
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        wrong("", format!("not the answer of an embedding model: {place}"))
    })
}

fn missing(name: &str) -> Malformed {
    wrong("", format!("the answer has no `{name}`"))
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: Option<&'a RawValue>,
    statistics: Option<Statistics>,
}

#[derive(Deserialize)]
struct Statistics {
    token_count: Option<f64>,
}

fn vertex(body: &[u8]) -> Found<'_> {
    #[derive(Deserialize)]
    struct Predictions<'a> {
        #[serde(borrow)]
        predictions: Option<Vec<Prediction<'a>>>,
    }
    #[derive(Deserialize)]
    struct Prediction<'a> {
        #[serde(borrow)]
        embeddings: Option<Values<'a>>,
    }
    let read: Predictions<'_> = parse(body)?;
    let predictions = read.predictions.ok_or_else(|| missing("predictions"))?;
    let embeddings = || predictions.iter().map(|one| one.embeddings.as_ref());
    let counts = embeddings()
        .flatten()
        .filter_map(|one| one.statistics.as_ref()?.token_count);
    let tokens = counts.reduce(|sum, count| sum + count);
    let vectors = embeddings().map(|one| one?.values).collect();
    Ok((vectors, tokens))
}

fn gemini(body: &[u8]) -> Found<'_> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Embeddings<'a> {
        #[serde(borrow)]
        embeddings: Option<Vec<Values<'a>>>,
        usage_metadata: Option<Usage>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Usage {
        prompt_token_count: Option<f64>,
    }
    let read: Embeddings<'_> = parse(body)?;
    let vectors = read.embeddings.ok_or_else(|| missing("embeddings"))?;
    let tokens = read
        .usage_metadata
        .and_then(|usage| usage.prompt_token_count);
    Ok((vectors.into_iter().map(|one| one.values).collect(), tokens))
}

fn cohere(body: &[u8]) -> Found<'_> {
    #[derive(Deserialize)]
    struct Embeddings<'a> {
        #[serde(borrow)]
        embeddings: Option<ByType<'a>>,
        meta: Option<Meta>,
    }
    #[derive(Deserialize)]
    struct ByType<'a> {
        #[serde(borrow)]
        float: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    struct Meta {
        billed_units: Option<Units>,
    }
    #[derive(Deserialize)]
    struct Units {
        input_tokens: Option<f64>,
    }
    let read: Embeddings<'_> = parse(body)?;
    let vectors = read.embeddings.and_then(|by_type| by_type.float);
    let vectors = vectors.ok_or_else(|| missing("embeddings.float"))?;
    let tokens = read.meta.and_then(|meta| meta.billed_units?.input_tokens);
    Ok((vectors.into_iter().map(Some).collect(), tokens))
}

fn titan(body: &[u8]) -> Found<'_> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Embedding<'a> {
        #[serde(borrow)]
        embedding: Option<&'a RawValue>,
        input_text_token_count: Option<f64>,
    }
    let read: Embedding<'_> = parse(body)?;
    let vector = read.embedding.ok_or_else(|| missing("embedding"))?;
    Ok((vec![Some(vector)], read.input_text_token_count))
}
