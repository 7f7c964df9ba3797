use serde_json::json;

use super::*;

fn check(value: Value, schema: Value, expected: &[(&str, &str)]) {
    let issues = Schema::new(schema).validate(&value).into_iter();
    let issues: Vec<Issue> = issues.map(|issue| issue.under("x")).collect();
    let found: Vec<(&str, &str)> = issues
        .iter()
        .map(|i| (i.path.as_str(), i.message.as_str()))
        .collect();
    assert_eq!(found, expected, "{value}");
}

#[test]
fn errors_have_apisix_wording() {
    let schema = json!({
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 65535},
            "s": {"type": "string", "minLength": 1, "pattern": "^a"},
            "e": {"enum": ["x", "y"]},
            "l": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "integer", "minimum": 400}},
            "o": {"type": "object", "additionalProperties": false}
        },
        "required": ["n"]
    });
    check(
        json!({}),
        schema.clone(),
        &[("x", "property \"n\" is required")],
    );
    check(
        json!({"n": 0, "s": "", "e": "z", "l": [200, 200], "o": {"k": 1}}),
        schema.clone(),
        &[
            (
                "x.n",
                "property \"n\" validation failed: expected 0 to be at least 1",
            ),
            (
                "x.s",
                "property \"s\" validation failed: string too short, expected at least 1, got 0",
            ),
            (
                "x.s",
                "property \"s\" validation failed: failed to match pattern \"^a\" with \"\"",
            ),
            (
                "x.e",
                "property \"e\" validation failed: matches none of the enum values",
            ),
            (
                "x.l",
                "property \"l\" validation failed: expected unique items but items 1 and 2 are equal",
            ),
            (
                "x.l[0]",
                "property \"l\" validation failed: failed to validate item 1: expected 200 to be at least 400",
            ),
            (
                "x.l[1]",
                "property \"l\" validation failed: failed to validate item 2: expected 200 to be at least 400",
            ),
            (
                "x.o.k",
                "property \"o\" validation failed: additional properties forbidden, found k",
            ),
        ],
    );
    check(
        json!({"n": 65536}),
        schema.clone(),
        &[(
            "x.n",
            "property \"n\" validation failed: expected 65536 to be at most 65535",
        )],
    );
    check(
        json!({"n": "1"}),
        schema.clone(),
        &[(
            "x.n",
            "property \"n\" validation failed: wrong type: expected integer, got string",
        )],
    );
    check(
        json!({"n": 1, "l": []}),
        schema.clone(),
        &[(
            "x.l",
            "property \"l\" validation failed: expect array to have at least 1 items",
        )],
    );
    check(json!({"n": 1, "s": "$env://LATER"}), schema, &[]);
}

#[test]
fn alternatives_are_told_apart() {
    let sets = json!({"anyOf": [{"required": ["active"]}, {"required": ["active", "passive"]}]});
    check(
        json!({"passive": {}}),
        sets,
        &[(
            "x",
            "object matches none of the required: [\"active\"] or [\"active\",\"passive\"]",
        )],
    );
    let one = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(
        json!({"a": 1, "b": 1}),
        one.clone(),
        &[(
            "x",
            "value should match only one schema, but matches both schemas 1 and 2",
        )],
    );
    check(
        json!({}),
        one,
        &[("x", "value should match only one schema, but matches none")],
    );
    let typed = json!({"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "array", "items": {"enum": ["b"]}}]});
    check(
        json!("z"),
        typed.clone(),
        &[("x", "matches none of the enum values")],
    );
    check(
        json!(["z"]),
        typed,
        &[(
            "x[0]",
            "failed to validate item 1: matches none of the enum values",
        )],
    );
}

/// What the type behind a schema cannot hold has a path and a bound in its message.
#[test]
fn types_have_bounds_and_names_have_patterns() {
    let schema = json!({
        "properties": {
            "weight": {"type": "integer", "format": "uint32", "minimum": 0},
            "priority": {"type": "integer", "format": "int32"},
            "header": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}
        }
    });
    check(
        json!({"weight": 5_000_000_000_u64, "priority": -3_000_000_000_i64, "header": {"a b": "x"}}),
        schema.clone(),
        &[
            (
                "x.weight",
                "property \"weight\" validation failed: expected 5000000000 to be at most 4294967295",
            ),
            (
                "x.priority",
                "property \"priority\" validation failed: expected -3000000000 to be at least -2147483648",
            ),
            (
                "x.header.a b",
                "property \"header\" validation failed: failed to match pattern \"^[a-z]+$\" with \"a b\"",
            ),
        ],
    );
    check(
        json!({"weight": 4_294_967_295_u64, "header": {"a": "x"}}),
        schema,
        &[],
    );
}

#[test]
fn references_within_the_schema_are_followed() {
    let schema = json!({"$ref": "#/$defs/p", "$defs": {"p": {"type": "integer"}}});
    check(json!(1), schema.clone(), &[]);
    check(
        json!("a"),
        schema,
        &[("x", "wrong type: expected integer, got string")],
    );
}
