//! Cases G-028 to G-043 and every operator against every type of value.

use serde_json::json;

use super::*;
use crate::vars::NoVars;
use crate::vars::fixture::Vars;

#[track_caller]
fn check(expr: Value, vars: Value, expected: bool) {
    let parsed = Expr::parse(&expr).unwrap();
    assert_eq!(
        parsed.eval(&Vars::of(vars.clone())),
        Ok(expected),
        "{expr} with {vars}"
    );
}

#[track_caller]
fn refused(expr: Value, message: &str) {
    let error = Expr::parse(&expr).unwrap_err();
    assert_eq!(error.to_string(), message, "{expr}");
}

#[test]
fn g028_equality_of_texts() {
    let expr = json!([["arg_k", "==", "v"]]);
    check(expr.clone(), json!({"arg_k": "v"}), true);
    check(expr.clone(), json!({"arg_k": "w"}), false);
    check(expr.clone(), json!({"arg_k": "V"}), false);
    check(expr, json!({}), false);
}

#[test]
fn g029_rules_are_joined_by_and() {
    let expr = json!([["http_x_a", "==", "1"], ["cookie_c", "==", "2"]]);
    check(
        expr.clone(),
        json!({"http_x_a": "1", "cookie_c": "2"}),
        true,
    );
    check(expr.clone(), json!({"http_x_a": "1"}), false);
    check(expr, json!({"cookie_c": "2"}), false);
}

#[test]
fn g030_order_converts_both_sides() {
    let expr = json!([["arg_n", ">", 10]]);
    check(expr.clone(), json!({"arg_n": "11"}), true);
    check(expr.clone(), json!({"arg_n": "10"}), false);
    check(expr.clone(), json!({"arg_n": "x"}), false);
    check(expr.clone(), json!({"arg_n": 10.5}), true);
    check(expr, json!({}), false);

    check(json!([["arg_n", ">", "10"]]), json!({"arg_n": "11"}), true);
    check(json!([["arg_n", ">=", 10]]), json!({"arg_n": "10"}), true);
    check(json!([["arg_n", "<", 10]]), json!({"arg_n": "9.9"}), true);
    check(json!([["arg_n", "<", 10]]), json!({"arg_n": "10"}), false);
    check(json!([["arg_n", "<=", 10]]), json!({"arg_n": "10"}), true);
    check(json!([["arg_n", ">", "x"]]), json!({"arg_n": "11"}), false);
    check(json!([["arg_n", ">", null]]), json!({"arg_n": "11"}), false);
    check(json!([["arg_n", ">", true]]), json!({"arg_n": "11"}), false);
    check(
        json!([["arg_n", "!", ">", 10]]),
        json!({"arg_n": "x"}),
        true,
    );
}

#[test]
fn g031_a_number_on_the_right_converts_the_left() {
    let expr = json!([["arg_n", "==", 5]]);
    check(expr.clone(), json!({"arg_n": "5"}), true);
    check(expr.clone(), json!({"arg_n": "5.0"}), true);
    check(expr.clone(), json!({"arg_n": 5}), true);
    check(expr.clone(), json!({"arg_n": 5.0}), true);
    check(expr.clone(), json!({"arg_n": "five"}), false);
    check(expr.clone(), json!({"arg_n": [5]}), false);
    check(expr, json!({}), false);

    let expr = json!([["arg_n", "~=", 5]]);
    check(expr.clone(), json!({"arg_n": "5.0"}), false);
    check(expr.clone(), json!({"arg_n": "6"}), true);
    check(expr.clone(), json!({"arg_n": "five"}), true);
    check(expr, json!({}), true);
}

#[test]
fn types_never_mix_without_a_number_on_the_right() {
    check(
        json!([["post_arg.n", "==", "5"]]),
        json!({"post_arg.n": 5}),
        false,
    );
    check(
        json!([["post_arg.n", "~=", "5"]]),
        json!({"post_arg.n": 5}),
        true,
    );
    check(
        json!([["post_arg.s", "==", true]]),
        json!({"post_arg.s": true}),
        true,
    );
    check(
        json!([["post_arg.s", "==", true]]),
        json!({"post_arg.s": "true"}),
        false,
    );
    check(
        json!([["post_arg.s", "==", true]]),
        json!({"post_arg.s": false}),
        false,
    );
    check(
        json!([["post_arg.l", "==", []]]),
        json!({"post_arg.l": []}),
        false,
    );
    check(
        json!([["post_arg.l", "~=", []]]),
        json!({"post_arg.l": []}),
        true,
    );
}

#[test]
fn inequality_holds_for_an_absent_variable() {
    check(json!([["arg_k", "~=", "v"]]), json!({}), true);
    check(json!([["arg_k", "~=", "v"]]), json!({"arg_k": "w"}), true);
    check(json!([["arg_k", "~=", "v"]]), json!({"arg_k": "v"}), false);
}

#[test]
fn g032_in_is_strict_about_types() {
    check(
        json!([["arg_n", "in", [1, 2]]]),
        json!({"arg_n": "1"}),
        false,
    );
    check(
        json!([["post_arg.n", "in", [1, 2]]]),
        json!({"post_arg.n": 1}),
        true,
    );
    check(
        json!([["post_arg.n", "in", [1, 2]]]),
        json!({"post_arg.n": 2.0}),
        true,
    );
    check(
        json!([["post_arg.n", "in", ["1"]]]),
        json!({"post_arg.n": 1}),
        false,
    );
    check(
        json!([["post_arg.b", "in", [true]]]),
        json!({"post_arg.b": true}),
        true,
    );
    check(
        json!([["post_arg.b", "in", [true]]]),
        json!({"post_arg.b": false}),
        false,
    );
    check(json!([["arg_n", "in", []]]), json!({"arg_n": "1"}), false);
    check(json!([["arg_n", "in", [null]]]), json!({}), false);
    check(json!([["arg_n", "in", "1"]]), json!({"arg_n": "1"}), false);
    check(
        json!([["arg_n", "in", {"1": "1"}]]),
        json!({"arg_n": "1"}),
        false,
    );
    check(
        json!([["post_arg.l", "in", [["1"]]]]),
        json!({"post_arg.l": ["1"]}),
        false,
    );
}

#[test]
fn g033_operators_ignore_case() {
    check(
        json!([["arg_n", "IN", ["1", "2"]]]),
        json!({"arg_n": "1"}),
        true,
    );
    check(
        json!([["arg_n", "In", ["1", "2"]]]),
        json!({"arg_n": "3"}),
        false,
    );
    check(json!([["l", "Has", "a"]]), json!({"l": ["a"]}), true);
    check(
        json!([["ip", "IpMatch", "10.0.0.1"]]),
        json!({"ip": "10.0.0.1"}),
        true,
    );
    check(
        json!(["or", ["a", "==", "1"], ["b", "==", "1"]]),
        json!({"b": "1"}),
        true,
    );
}

#[test]
fn g034_patterns() {
    let expr = json!([["arg_n", "~~", "^[0-9]+$"]]);
    check(expr.clone(), json!({"arg_n": "12"}), true);
    check(expr.clone(), json!({"arg_n": "1a"}), false);
    check(expr.clone(), json!({"arg_n": 12}), true);
    check(expr.clone(), json!({"arg_n": ["12"]}), false);
    check(expr, json!({}), false);
    check(json!([["a", "~~", "B"]]), json!({"a": "abc"}), false);
    check(json!([["a", "~*", "B"]]), json!({"a": "abc"}), true);
    check(json!([["a", "~*", "^B"]]), json!({"a": "abc"}), false);
    check(json!([["a", "~~", 5]]), json!({"a": "x5"}), true);
    check(json!([["a", "~~", "true"]]), json!({"a": true}), true);
    check(json!([["a", "~~", ""]]), json!({"a": false}), false);
    check(json!([["a", "!", "~~", "b"]]), json!({}), true);
}

#[test]
fn g035_negation() {
    let expr = json!([["arg_n", "!", "in", ["1"]]]);
    check(expr.clone(), json!({"arg_n": "2"}), true);
    check(expr.clone(), json!({}), true);
    check(expr, json!({"arg_n": "1"}), false);
    check(
        json!([["arg_n", "!", "==", null]]),
        json!({"arg_n": "1"}),
        true,
    );
    check(
        json!([["arg_n", "!", "HAS", "a"]]),
        json!({"arg_n": "a"}),
        true,
    );
}

#[test]
fn g036_ipmatch() {
    let expr = json!([["remote_addr", "ipmatch", ["127.0.0.0/8"]]]);
    check(expr.clone(), json!({"remote_addr": "127.0.0.1"}), true);
    check(
        expr.clone(),
        json!({"remote_addr": "::ffff:127.0.0.1"}),
        true,
    );
    check(expr.clone(), json!({"remote_addr": "128.0.0.1"}), false);
    check(expr.clone(), json!({"remote_addr": "localhost"}), false);
    check(expr.clone(), json!({"remote_addr": 5}), false);
    check(expr, json!({}), false);

    let expr = json!([["ip", "ipmatch", ["10.0.0.7", "2001:db8::/32", "fe80::1"]]]);
    check(expr.clone(), json!({"ip": "2001:db8:1::5"}), true);
    check(expr.clone(), json!({"ip": "2001:DB8::"}), true);
    check(expr.clone(), json!({"ip": "2001:db9::"}), false);
    check(expr.clone(), json!({"ip": "fe80::1"}), true);
    check(expr.clone(), json!({"ip": "10.0.0.7"}), true);
    check(expr, json!({"ip": "10.0.0.8"}), false);

    // Host bits in a network are ignored, as nginx and APISIX do.
    check(
        json!([["ip", "ipmatch", ["10.1.2.3/8"]]]),
        json!({"ip": "10.9.9.9"}),
        true,
    );
    check(
        json!([["ip", "ipmatch", "::/0"]]),
        json!({"ip": "::1"}),
        true,
    );
    check(json!([["ip", "ipmatch", []]]), json!({"ip": "::1"}), false);
    check(
        json!([["ip", "!", "ipmatch", ["::1"]]]),
        json!({"ip": "x"}),
        true,
    );
}

#[test]
fn g037_or() {
    let expr = json!(["OR", ["arg_a", "==", "1"], ["arg_b", "==", "1"]]);
    check(expr.clone(), json!({"arg_b": "1"}), true);
    check(expr, json!({}), false);
}

#[test]
fn g038_not_or() {
    let expr = json!(["!OR", ["arg_a", "==", "1"], ["arg_b", "==", "1"]]);
    check(expr.clone(), json!({}), true);
    check(expr, json!({"arg_a": "1"}), false);
}

#[test]
fn and_not_and_and_nesting() {
    let and = json!(["AND", ["a", "==", "1"], ["b", "==", "1"]]);
    check(and.clone(), json!({"a": "1", "b": "1"}), true);
    check(and, json!({"a": "1"}), false);

    let not_and = json!(["!AND", ["a", "==", "1"], ["b", "==", "1"]]);
    check(not_and.clone(), json!({"a": "1"}), true);
    check(not_and, json!({"a": "1", "b": "1"}), false);

    let nested = json!([
        [
            "OR",
            ["a", "==", "1"],
            ["!AND", ["b", "==", "1"], ["c", "==", "1"]]
        ],
        [["d", "==", "1"], ["e", "!", "==", "1"]]
    ]);
    check(
        nested.clone(),
        json!({"a": "1", "b": "1", "c": "1", "d": "1"}),
        true,
    );
    check(nested.clone(), json!({"b": "1", "c": "1", "d": "1"}), false);
    check(nested.clone(), json!({"b": "1", "d": "1"}), true);
    check(nested, json!({"b": "1", "d": "1", "e": "1"}), false);
}

#[test]
fn g039_null_matches_an_absent_variable() {
    let expr = json!([["arg_a", "==", null]]);
    check(expr.clone(), json!({}), true);
    check(expr.clone(), json!({"arg_a": null}), true);
    check(expr.clone(), json!({"arg_a": "1"}), false);
    check(expr, json!({"arg_a": ""}), false);
    check(json!([["arg_a", "~=", null]]), json!({}), false);
    check(json!([["arg_a", "~=", null]]), json!({"arg_a": "1"}), true);
    // An operator without a right-hand side compares with nothing.
    check(json!([["arg_a", "=="]]), json!({}), true);
}

#[test]
fn g040_the_empty_expression_always_holds() {
    check(json!([]), json!({}), true);
    assert!(Expr::parse(&json!([])).unwrap().is_empty());
    assert_eq!(Expr::default().eval(&NoVars), Ok(true));
}

#[test]
fn g041_a_body_field_routes() {
    let expr = json!([["post_arg.model", "==", "gpt-4"]]);
    check(expr.clone(), json!({"post_arg.model": "gpt-4"}), true);
    check(expr, json!({"post_arg.model": "gpt-3"}), false);
}

#[test]
fn g042_has_looks_into_lists() {
    let expr = json!([["post_arg.messages[*].role", "has", "tool"]]);
    let roles = |roles: Value| json!({"post_arg.messages[*].role": roles});
    check(expr.clone(), roles(json!(["user", "tool"])), true);
    check(expr.clone(), roles(json!(["user"])), false);
    check(expr.clone(), roles(json!([])), false);
    check(expr.clone(), roles(json!("tool")), false);
    check(expr.clone(), roles(json!({"tool": "tool"})), false);
    check(expr, json!({}), false);
    check(json!([["l", "has", 1]]), json!({"l": [1.0]}), true);
    check(json!([["l", "has", 1]]), json!({"l": ["1"]}), false);
    check(json!([["l", "has", true]]), json!({"l": [true]}), true);
    check(json!([["l", "has", null]]), json!({"l": [null]}), false);
}

#[test]
fn g043_what_is_refused_and_how() {
    refused(json!([["arg_a", "=", "1"]]), "invalid operator '='");
    refused(json!([["arg_a", "LIKE", "1"]]), "invalid operator 'like'");
    refused(json!([["arg_a", "!", "=", "1"]]), "invalid operator '='");
    refused(json!([["arg_a", 5, "1"]]), "invalid operator '5'");
    refused(
        json!(["arg_a", "==", "1"]),
        "rule should be wrapped inside brackets",
    );
    refused(json!([5]), "rule should be wrapped inside brackets");
    refused(json!([null]), "rule should be wrapped inside brackets");
    refused(json!({}), "rule should be wrapped inside brackets");
    refused(json!("a"), "rule should be wrapped inside brackets");
    refused(
        json!([["a", "==", "1"], "b"]),
        "rule should be wrapped inside brackets",
    );
    refused(json!([[]]), "rule too short");
    refused(json!(["OR"]), "rule too short");
    refused(json!(["OR", ["a", "==", "1"]]), "rule too short");
    refused(
        json!([["a", "==", "1"], ["AND", ["b", "==", "1"]]]),
        "rule too short",
    );
    refused(json!([["!", "arg_k", "==", "1"]]), "bad 'not' expression");
    refused(json!([["a", "==", "1", "2"]]), "bad 'not' expression");
    refused(json!([["a"]]), "invalid expression");
    refused(json!([[null, "==", "1"]]), "invalid expression");
    refused(json!([["a", null]]), "invalid expression");
    refused(json!([["a", null, "1"]]), "invalid expression");
    refused(json!([["a", "~~", null]]), "invalid expression");
    refused(
        json!([["a", "ipmatch", ["1.2.3"]]]),
        "invalid ip address: 1.2.3",
    );
    refused(json!([["a", "ipmatch", [5]]]), "invalid ip address: 5");
    refused(
        json!([["a", "ipmatch", "10.0.0.0/33"]]),
        "invalid ip address: 10.0.0.0/33",
    );
    refused(json!([["a", "ipmatch"]]), "invalid ip address: null");

    let error = Expr::parse(&json!([["a", "~~", "("]])).unwrap_err();
    assert!(error.to_string().starts_with("invalid regex '(': "));
}

#[test]
fn two_elements_mean_equality() {
    check(json!([["arg_k", "v"]]), json!({"arg_k": "v"}), true);
    check(json!([["arg_k", "v"]]), json!({"arg_k": "w"}), false);
    check(json!([["arg_k", "Value"]]), json!({"arg_k": "Value"}), true);
    check(json!([["arg_k", 5]]), json!({"arg_k": "5"}), true);
}

#[test]
fn elements_beyond_the_rule_are_ignored() {
    check(json!([["a", "==", "1", "x", "y"]]), json!({"a": "1"}), true);
}

#[test]
fn nesting_is_limited() {
    let nest = |levels: usize| {
        let mut expr = json!(["a", "==", "1"]);
        for _ in 0..levels {
            expr = json!([expr]);
        }
        expr
    };
    check(nest(DEPTH_MAX - 1), json!({"a": "1"}), true);
    let error = Expr::parse(&nest(DEPTH_MAX)).unwrap_err();
    assert_eq!(error, ExprError::TooDeep);
    assert_eq!(error.to_string(), "expression nests deeper than 64 levels");
    assert_eq!(Expr::parse(&nest(500)).unwrap_err(), ExprError::TooDeep);
}

#[test]
fn a_pattern_that_gives_up_is_an_error_even_when_negated() {
    let expr = json!([["a", "!", "~~", "^(a+)+\\1b$"]]);
    let vars = Vars::of(json!({"a": "a".repeat(64)}));
    let error = Expr::parse(&expr).unwrap().eval(&vars).unwrap_err();
    assert!(error.to_string().starts_with("variable 'a': regex took"));
}

#[test]
fn variables_are_listed() {
    let expr = json!([
        ["a", "==", "1"],
        ["OR", ["b", "==", "1"], ["post_arg.model", "x"]]
    ]);
    let parsed = Expr::parse(&expr).unwrap();
    assert_eq!(
        parsed.variables().collect::<Vec<_>>(),
        ["a", "b", "post_arg.model"]
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let operators = prop::sample::select(vec![
            "==", "~=", ">", "<", "~~", "~*", "in", "has", "ipmatch", "!", "AND", "OR", "!OR", "(",
            "arg_a", "1",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            proptest::prelude::any::<bool>().prop_map(Value::from),
            proptest::prelude::any::<f64>().prop_map(Value::from),
            operators.prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 5, |element| {
            prop::collection::vec(element, 0..5).prop_map(Value::from)
        })
    }

    proptest! {
        #[test]
        fn no_value_makes_parsing_or_evaluation_panic(expr in any_json(), value in any_json()) {
            if let Ok(parsed) = Expr::parse(&expr) {
                let _ = parsed.eval(&Vars::of(json!({"arg_a": value})));
            }
        }

        #[test]
        fn negation_inverts(rule in any_json(), left in any_json()) {
            let plain = json!([["arg_a", "==", rule]]);
            let negated = json!([["arg_a", "!", "==", rule]]);
            let vars = Vars::of(json!({"arg_a": left}));
            prop_assert_ne!(
                Expr::parse(&plain).unwrap().eval(&vars),
                Expr::parse(&negated).unwrap().eval(&vars)
            );
        }
    }
}
