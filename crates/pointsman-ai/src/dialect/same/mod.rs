//! Whether two conversations say the same, and what a stream says as a whole: for tests and fuzzing.
//!
//! Equal means equal in the form of [`normal`], which says what protocols may change without
//! changing what is said, without what [`strip`] takes out because it was declared lost.

pub(crate) mod gathered;
pub(crate) mod normal;
pub(crate) mod strip;

use crate::{
    Protocol,
    conversation::{Part, Response},
};

/// In a stream of Responses what a provider wants back with a call comes in an item behind the call, for
/// the client to send back: a reader has ended the call by then.
pub(crate) fn without_call_signatures(response: &mut Response<'_>, client: Protocol) {
    if client != Protocol::OpenaiResponses {
        return;
    }
    let choices = response.choices.iter_mut();
    for part in choices.flat_map(|choice| &mut choice.parts) {
        if let Part::ToolCall(call) = part {
            call.signature = None;
        }
    }
}

/// Like `assert_eq`; shows where they differ, and what was written.
///
/// # Panics
///
/// They are not equal.
pub(crate) fn assert_text<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    got: &T,
    texts: &[&[u8]],
) {
    if expected == got {
        return;
    }
    let [left, right] = [expected, got].map(|one| format!("{one:#?}"));
    let (left, right): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
    let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let rest = left[same..].iter().rev().zip(right[same..].iter().rev());
    let same_end = rest.take_while(|(a, b)| a == b).count();
    let around = |lines: &[&str]| lines[same.saturating_sub(6)..lines.len() - same_end].join("\n");
    let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
    panic!(
        "{what}\n--- expected\n{}\n--- got\n{}\n--- written\n{}",
        around(&left),
        around(&right),
        texts.collect::<Vec<_>>().join("\n")
    );
}
