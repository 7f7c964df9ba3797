//! Writing YAML: maps and lists as blocks, all else as in JSON, which is YAML as well.

use serde_json::Value;

/// `value` as a document.
pub(in super::super) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// A value on lines of its own.
fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, member) in map {
                indent(depth, out);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                after(member, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(depth, out);
                out.push('-');
                after(item, depth + 1, out);
            }
        }
        flat => {
            indent(depth, out);
            out.push_str(&flat.to_string());
            out.push('\n');
        }
    }
}

/// A value behind `:` or `-`.
fn after(value: &Value, depth: usize, out: &mut String) {
    let is_flat = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    if is_flat {
        out.push(' ');
        out.push_str(&value.to_string());
        out.push('\n');
    } else {
        out.push('\n');
        block(value, depth, out);
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::text;

    #[test]
    fn what_is_written_reads_as_it_was() {
        let value = json!({
            "a": {"b": [1, -2.5, null, true, "x: y", "#z", "", "\"q\"\n\\ é"], "c": {}, "d": []},
            "e: f": [[1, [2]], {"g": {"h": "yes"}}],
            "": "no",
        });
        let written = write(&value);
        let read = text::yaml(&written).expect("YAML").value;
        assert_eq!(read, value, "{written}");
        assert!(
            written.starts_with("\"a\":\n  \"b\":\n    - 1\n"),
            "{written}"
        );
    }
}
