//! What a GraphQL request asks for, as far as routing wants to know.
//!
//! As in APISIX only the first definition counts, and only its outermost fields. A document that
//! is longer or deeper than our limits has no variables.

use apollo_parser::{
    Parser,
    cst::{Definition, Selection, SelectionSet},
};

/// The first definition of a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// `query`, `mutation` or `subscription`; `None` for a fragment.
    pub(crate) kind: Option<&'static str>,
    /// Its name, or empty.
    pub(crate) name: String,
    /// See [`Self::root_fields`]; one text with blanks between the names, because a document can
    /// have half a million of them and this is kept as long as the request.
    root_fields: String,
}

impl Operation {
    /// Names of its outermost fields and fragments, in order; aliases do not count.
    pub(crate) fn root_fields(&self) -> impl Iterator<Item = &str> {
        self.root_fields.split_ascii_whitespace()
    }
}

/// The first definition of `document`; `None` when that is no GraphQL, too long or too deep.
pub(crate) fn parse(document: &str) -> Option<Operation> {
    if document.len() > BYTES_MAX {
        return None;
    }
    let tree = Parser::new(document)
        .token_limit(TOKENS_MAX)
        .recursion_limit(DEPTH_MAX)
        .parse();
    if let Some(error) = tree.errors().next() {
        tracing::debug!("no GraphQL: {}", error.message());
        return None;
    }
    let (kind, name, selections) = match tree.document().definitions().next()? {
        Definition::OperationDefinition(operation) => {
            let kind = match operation.operation_type() {
                Some(kind) if kind.mutation_token().is_some() => "mutation",
                Some(kind) if kind.subscription_token().is_some() => "subscription",
                // `{ .. }` alone is a query, too.
                _ => "query",
            };
            (Some(kind), operation.name(), operation.selection_set()?)
        }
        Definition::FragmentDefinition(fragment) => (
            None,
            fragment.fragment_name()?.name(),
            fragment.selection_set()?,
        ),
        _ => return None,
    };
    Some(Operation {
        kind,
        name: name.map(|name| name.text().to_string()).unwrap_or_default(),
        root_fields: names(&selections),
    })
}

fn names(set: &SelectionSet) -> String {
    let mut names = String::new();
    for selection in set.selections() {
        let name = match selection {
            Selection::Field(field) => field.name(),
            Selection::FragmentSpread(spread) => spread.fragment_name().and_then(|n| n.name()),
            Selection::InlineFragment(_) => None,
        };
        if let Some(name) = name {
            names.push_str(&name.text());
            names.push(' ');
        }
    }
    names
}

/// APISIX's `graphql.max_size`.
pub(crate) const BYTES_MAX: usize = 1 << 20;
/// Blanks included. A megabyte of names would cost a tenth of a second and a hundred megabytes,
/// asked for by anybody; GraphQL servers stop at half as many.
const TOKENS_MAX: usize = 30_000;
/// The parser is recursive.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(document: &str, expected: Option<(Option<&'static str>, &str, &[&str])>) {
        let found = parse(document);
        let found = found.as_ref().map(|operation| {
            let fields: Vec<&str> = operation.root_fields().collect();
            (operation.kind, operation.name.as_str(), fields)
        });
        let expected = expected.map(|(kind, name, fields)| (kind, name, fields.to_vec()));
        assert_eq!(found, expected, "{document}");
    }

    #[test]
    fn the_first_definition_counts() {
        check("{owner {name}}", Some((Some("query"), "", &["owner"])));
        check(
            "query getRepo { owner { name } mine: repo(id: 1) @include(if: true) ...Rest }",
            Some((Some("query"), "getRepo", &["owner", "repo", "Rest"])),
        );
        check(
            "mutation($a: [Int!]! = [1]) { add(a: $a) { id } } query second { b }",
            Some((Some("mutation"), "", &["add"])),
        );
        check(
            "subscription S { s }",
            Some((Some("subscription"), "S", &["s"])),
        );
        check("fragment F on T { f }", Some((None, "F", &["f"])));
        for wrong in [
            "",
            "#",
            "query",
            "{",
            "{}",
            "type T { a: Int }",
            "{\"a\":1}",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_deep_or_long_is_refused() {
        let nested = |depth: usize| format!("{}b{}", "{a".repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(50)).is_some());
        let too_deep = nested(DEPTH_MAX + 1);
        assert!(parse(&format!("{too_deep} {too_deep} query Q {{a}}")).is_none());
        let (open, close) = ("[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(parse(&format!("{{a(b: {open}{close})}} query Q {{a}}")).is_none());
        assert!(parse(&format!("query($a: {open}Int{close}) {{a}} {{b}}")).is_none());
        for (start, again) in [
            ("", "{a"),
            ("{a(b:", "["),
            ("{a(b:", "{c:"),
            ("query($a:", "["),
            ("query($a:Int=", "["),
            ("{", "...{"),
            ("{", "...on T{"),
            ("{a", "@b(c:["),
        ] {
            let times = (BYTES_MAX - start.len()) / again.len();
            assert!(parse(&format!("{start}{}", again.repeat(times))).is_none());
        }
        assert!(parse(&format!("{{{}}}", "a ".repeat(TOKENS_MAX / 3))).is_some());
        assert!(parse(&format!("{{{}}}", "a ".repeat(TOKENS_MAX))).is_none());
        let text = |bytes: usize| format!("{{a(b:\"{}\")}}", "x ".repeat(bytes / 2));
        assert!(parse(&text(BYTES_MAX - 10)).is_some());
        assert!(parse(&text(BYTES_MAX)).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(
            text in "(query|mutation|fragment|on|\\{|\\}|\\(|\\)|\\[|\\]|\\$|!|:|=|@|\\.\\.\\.|\"|\"\"\"|\\\\u12|\\\\|-|\\.|[0-9e]{1,3}|[a-z]|é| |\n|#){0,30}"
        ) {
            let _ = parse(&text);
        }
    }
}
