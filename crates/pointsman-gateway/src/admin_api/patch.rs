//! Changing a part of a resource.

use serde_json::{Map, Value};

/// Lays `patch` over `value`: objects member by member, `null` removes, everything else replaces.
pub(super) fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(map) = value.as_object_mut() else {
        return;
    };
    for (key, member) in patch {
        if member.is_null() {
            map.shift_remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), member);
        }
    }
}

/// Replaces what stands at `path` in `value`, removes it if `new` is `null`; `false` if that leads
/// nowhere. Objects on the way are made as needed.
pub(super) fn replace_at(value: &mut Value, path: &[&str], new: Value) -> bool {
    let Some((last, way)) = path.split_last() else {
        return false;
    };
    let mut place = value;
    for step in way {
        let next = match place {
            Value::Object(map) => {
                let member = map.entry((*step).to_owned()).or_insert(Value::Null);
                if member.is_null() {
                    *member = Value::Object(Map::new());
                }
                Some(member)
            }
            Value::Array(items) => index(step).and_then(|at| items.get_mut(at)),
            _ => None,
        };
        match next {
            Some(next) => place = next,
            None => return false,
        }
    }
    match place {
        Value::Object(map) if new.is_null() => {
            map.shift_remove(*last);
            true
        }
        Value::Object(map) => {
            map.insert((*last).to_owned(), new);
            true
        }
        Value::Array(items) => match index(last) {
            Some(at) if at < items.len() && new.is_null() => {
                items.remove(at);
                true
            }
            Some(at) if at < items.len() => {
                items[at] = new;
                true
            }
            Some(at) if at == items.len() && !new.is_null() => {
                items.push(new);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// The place in an array; counted from 1, as in APISIX.
fn index(step: &str) -> Option<usize> {
    step.parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_merged_and_the_rest_is_replaced() {
        let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 4});
        merge(
            &mut value,
            json!({"a": {"c": [3], "e": {"f": null}}, "d": null}),
        );
        assert_eq!(value, json!({"a": {"b": 1, "c": [3], "e": {}}}));
    }

    #[test]
    fn a_sub_path_is_replaced_as_a_whole() {
        let check = |path: &[&str], new: Value, expected: Option<Value>| {
            let mut value = json!({"u": {"nodes": {"a": 1}}, "l": [1, {"x": 1}], "n": 5});
            let done = replace_at(&mut value, path, new);
            assert_eq!(done.then_some(value), expected, "{path:?}");
        };
        check(
            &["u", "nodes"],
            json!({"b": 2}),
            Some(json!({"u": {"nodes": {"b": 2}}, "l": [1, {"x": 1}], "n": 5})),
        );
        check(
            &["l", "2", "x"],
            json!(7),
            Some(json!({"u": {"nodes": {"a": 1}}, "l": [1, {"x": 7}], "n": 5})),
        );
        check(
            &["u", "nodes"],
            Value::Null,
            Some(json!({"u": {}, "l": [1, {"x": 1}], "n": 5})),
        );
        check(&["n", "x"], json!(1), None);
        check(&["l", "0"], json!(1), None);
        check(&["l", "9"], json!(1), None);
        check(&[], json!(1), None);
    }
}
