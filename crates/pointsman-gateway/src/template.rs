//! Texts with variables: `$name`, `${name}`, `${name ?? default}`, `\$`.
//!
//! One rule for header values, hash keys, log formats and rewritten paths, as in APISIX 3.18.
//! Rendering also says how many variables had a value, because some callers treat "none" as
//! "the whole text is absent".

use crate::vars::{Lookup, VarValue};

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Var {
        name: String,
        default: Option<String>,
    },
    Capture(usize),
}

/// A rendered text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// How many variables had a value.
    pub resolved: usize,
}

impl Template {
    /// Parses `text`. Every text is a template; what is not a variable stays as it is.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\\']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("\\$") {
                plain.push('$');
                rest = after;
            } else if let Some((part, after)) = variable(rest) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(part);
                rest = after;
            } else {
                plain.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() || parts.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts }
    }

    /// The two sides of the first `mark` that stands in the text itself. One that a variable
    /// brings does not count.
    pub fn split(self, mark: char) -> (Self, Option<Self>) {
        let found = self.parts.iter().enumerate().find_map(|(index, part)| {
            let Part::Text(text) = part else { return None };
            let (before, after) = text.split_once(mark)?;
            Some((index, before.to_owned(), after.to_owned()))
        });
        let Some((index, before, after)) = found else {
            return (self, None);
        };
        let mut first = self.parts;
        let mut second = first.split_off(index);
        first.push(Part::Text(before));
        second[0] = Part::Text(after);
        (Self { parts: first }, Some(Self { parts: second }))
    }

    /// The variables that it reads, in order, repeats included.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var { name, .. } => Some(name.as_str()),
            Part::Text(_) | Part::Capture(_) => None,
        })
    }

    /// The text itself, when it has no variable.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with its variables' values; an absent one without a default is empty.
    pub fn render(&self, vars: &dyn Lookup) -> Rendered {
        self.render_with(vars, &[])
    }

    /// As [`Self::render`], with `$1`, `$2`, ... from `captures` (the first is `$0`).
    pub fn render_with(&self, vars: &dyn Lookup, captures: &[&str]) -> Rendered {
        let mut rendered = Rendered::default();
        for part in &self.parts {
            match part {
                Part::Text(text) => rendered.text.push_str(text),
                Part::Capture(index) => {
                    if let Some(capture) = captures.get(*index) {
                        rendered.text.push_str(capture);
                        rendered.resolved += 1;
                    }
                }
                Part::Var { name, default } => match vars.var(name) {
                    Some(value) => {
                        match value {
                            VarValue::Text(text) => rendered.text.push_str(&text),
                            json @ VarValue::Json(_) => rendered.text.push_str(&json.into_text()),
                        }
                        rendered.resolved += 1;
                    }
                    None => rendered
                        .text
                        .push_str(default.as_deref().unwrap_or_default()),
                },
            }
        }
        rendered
    }
}

/// A variable at the start of `text`, which begins with `$`, and what follows it.
fn variable(text: &str) -> Option<(Part, &str)> {
    let rest = text.strip_prefix('$')?;
    if let Some(inside) = rest.strip_prefix('{') {
        let end = inside.find('}')?;
        let (name, default) = match inside[..end].split_once("??") {
            Some((name, default)) => (name.trim(), Some(default.trim().to_owned())),
            None => (inside[..end].trim(), None),
        };
        let valid = !name.is_empty() && name.chars().all(is_name);
        return valid.then(|| (named(name, default), &inside[end + 1..]));
    }
    let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
    // A dot ends a sentence more often than a name.
    let name = rest[..end].trim_end_matches('.');
    (!name.is_empty()).then(|| (named(name, None), &rest[name.len()..]))
}

fn named(name: &str, default: Option<String>) -> Part {
    match name.parse::<usize>() {
        Ok(index) if index < CAPTURES_MAX => Part::Capture(index),
        _ => Part::Var {
            name: name.to_owned(),
            default,
        },
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// `$0` to `$99` are captures.
const CAPTURES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    struct Vars;

    impl Lookup for Vars {
        fn var(&self, name: &str) -> Option<VarValue<'_>> {
            match name {
                "a" => Some(VarValue::Text(Cow::from("1"))),
                "http_x_b" => Some(VarValue::Text(Cow::from("two"))),
                "post_arg.n" => Some(VarValue::Json(serde_json::json!(5))),
                _ => None,
            }
        }
    }

    fn check(template: &str, text: &str, resolved: usize) {
        let rendered = Template::parse(template).render(&Vars);
        assert_eq!(
            (rendered.text.as_str(), rendered.resolved),
            (text, resolved),
            "{template}"
        );
    }

    #[test]
    fn variables_are_replaced() {
        check("", "", 0);
        check("plain", "plain", 0);
        check("$a", "1", 1);
        check("${a}b", "1b", 1);
        check("x$a.", "x1.", 1);
        check("$post_arg.n", "5", 1);
        check("$a $http_x_b", "1 two", 2);
        check("${missing ?? 10}", "10", 0);
        check("${ a ?? 10 }", "1", 1);
        check("[$missing]", "[]", 0);
        check("\\$a", "$a", 0);
        check("$ ${", "$ ${", 0);
        check("a\\b", "a\\b", 0);
    }

    #[test]
    fn variables_are_named() {
        let template = Template::parse("\\$no ${post_arg.n ?? x} $1 $a $a");
        assert_eq!(
            template.variables().collect::<Vec<_>>(),
            ["post_arg.n", "a", "a"]
        );
    }

    #[test]
    fn captures_are_numbers() {
        let rendered = Template::parse("/$1/$2?x=$a").render_with(&Vars, &["all", "one"]);
        assert_eq!(rendered.text, "/one/?x=1");
    }
}
