//! Embeddings as OpenAI and Azure have them: texts out, vectors back.
//!
//! A response is believed only if it has a sound vector for every text. Nothing of what is wrong with
//! it is quoted: a server that complains tends to repeat the text.

use serde_json::json;

use crate::json;

/// The body that asks for a vector of each of `texts`.
pub fn embedding_request(model: &str, texts: &[&str]) -> Vec<u8> {
    json!({ "model": model, "input": texts })
        .to_string()
        .into_bytes()
}

/// Why a response gives no vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVectors(&'static str);

impl std::fmt::Display for NoVectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoVectors {}

/// The vectors of `count` texts, in the order of the texts; all of one length, every component finite.
///
/// An item without `index` counts by its place. Of a repeated index the last item counts.
pub fn read_embeddings(body: &[u8], count: usize) -> Result<Vec<Vec<f32>>, NoVectors> {
    let [data] = json::members(body, ["data"]).ok_or(NoVectors("the body is no JSON object"))?;
    let data = data.filter(|data| data.starts_with(b"["));
    let data = data.ok_or(NoVectors("`data` is no array"))?;
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); count];
    let mut place = 0;
    let mut outcome = Ok(());
    json::items(data, |item| {
        if outcome.is_ok() {
            outcome = read_item(item, place, &mut vectors);
        }
        place += 1;
    });
    outcome?;
    if vectors.iter().any(Vec::is_empty) {
        return Err(NoVectors("a text has no vector"));
    }
    let length = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|vector| vector.len() != length) {
        return Err(NoVectors(
            "the vectors have different numbers of components",
        ));
    }
    Ok(vectors)
}

fn read_item(item: &[u8], place: usize, vectors: &mut [Vec<f32>]) -> Result<(), NoVectors> {
    let members = json::members(item, ["index", "embedding"]);
    let [index, embedding] = members.ok_or(NoVectors("an item of `data` is no object"))?;
    let index = match index.filter(|index| *index != b"null") {
        None => place,
        Some(index) => whole_number(index).ok_or(NoVectors("an `index` is no whole number"))?,
    };
    let slot = (vectors.get_mut(index)).ok_or(NoVectors("an `index` is out of range"))?;
    let embedding = embedding.ok_or(NoVectors("an item has no `embedding`"))?;
    let vector: Vec<f32> = serde_json::from_slice(embedding)
        .map_err(|_| NoVectors("an `embedding` is no array of numbers"))?;
    if vector.is_empty() {
        return Err(NoVectors("an `embedding` is empty"));
    }
    if !vector.iter().all(|component| component.is_finite()) {
        return Err(NoVectors("a component is not finite"));
    }
    *slot = vector;
    Ok(())
}

/// `2`, and what Lua's JSON makes of it: `2.0`.
fn whole_number(text: &[u8]) -> Option<usize> {
    let value: f64 = serde_json::from_slice(text).ok()?;
    let is_whole = value.fract() == 0.0 && (0.0..1e9).contains(&value);
    is_whole.then_some(value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_nothing_but_model_and_input() {
        let body = embedding_request("m", &["a\"b", "é"]);
        let read: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(read, json!({"model": "m", "input": ["a\"b", "é"]}));
    }

    #[test]
    fn vectors_are_in_the_order_of_the_texts() {
        let check = |body: &str, expected: &[&[f32]]| {
            let read = read_embeddings(body.as_bytes(), expected.len());
            assert_eq!(
                read.as_deref(),
                Ok(&*expected.iter().map(|v| v.to_vec()).collect::<Vec<_>>()),
                "{body}"
            );
        };
        check(
            r#"{"object":"list","data":[{"index":1,"embedding":[0,1e0]},{"object":"embedding","index":0.0,"embedding":[-1,0.5]}],"usage":{}}"#,
            &[&[-1.0, 0.5], &[0.0, 1.0]],
        );
        check(
            r#"{"data":[{"embedding":[1]},{"index":null,"embedding":[2]}]}"#,
            &[&[1.0], &[2.0]],
        );
        check(
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]}"#,
            &[&[2.0]],
        );
    }

    /// B-112: every shape of §3.8(5).
    #[test]
    fn half_an_answer_is_none() {
        for body in [
            "",
            "null",
            "[]",
            "7",
            "<html>",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            r#"{"data":"x"}"#,
            r#"{"data":[]}"#,
            r#"{"data":[1,2,3]}"#,
            r#"{"data":[[0,[1,2]],[1,[1,2]]]}"#,
            r#"{"data":[null,null]}"#,
            r#"{"data":[{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":-1,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0.5,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":"1","embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1e999,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":null}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[null]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":["1"]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1e999]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1e39]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":"AAAA"}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]}"#,
        ] {
            let read = read_embeddings(body.as_bytes(), 2);
            assert!(read.is_err(), "{body}: {read:?}");
        }
    }
}
