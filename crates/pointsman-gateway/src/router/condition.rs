//! One comparison of an expression: an operator and its right-hand side.
//!
//! Split from `expr.rs`, which knows how rules combine; this file knows what a
//! single operator means for each type of value. Values compare as in Lua:
//! types never mix unless the operator converts, and lists or objects on the
//! right of `==` equal nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashSet;
use serde_json::Value;

use super::expr::ExprError;
use super::pattern::{Case, MatchLimit, Pattern};
use crate::vars::{VarValue, number_text};

#[derive(Debug, Clone)]
pub(super) enum Condition {
    Equal(Scalar),
    Differs(Scalar),
    Ordered(Order, f64),
    Matches(Pattern),
    In(Set),
    Has(Scalar),
    Within(Box<[IpNet]>),
    /// A right-hand side that no value can satisfy, such as `"in"` something
    /// that is no list. APISIX accepts it, so it must load here too.
    Never,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
    /// A list or an object: in Lua those equal only themselves.
    Composite,
}

/// The elements of an `in` list, by type. Hashed, because allow-lists of
/// thousands of keys are common.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    texts: FxHashSet<Box<str>>,
    numbers: Vec<f64>,
    bools: Vec<bool>,
}

/// The left-hand side, seen by type.
#[derive(Clone, Copy)]
enum Left<'v> {
    Absent,
    Bool(bool),
    Number(&'v serde_json::Number),
    Text(&'v str),
    List(&'v [Value]),
    Object,
}

impl Condition {
    /// The condition `operator right`, or `None` when there is no such
    /// operator. `operator` is in lower case.
    pub(super) fn parse(operator: &str, right: &Value) -> Result<Option<Self>, ExprError> {
        Ok(Some(match operator {
            "==" => Self::equal(right),
            "~=" => Self::Differs(Scalar::from(right)),
            ">" => Self::ordered(Order::Greater, right),
            ">=" => Self::ordered(Order::GreaterOrEqual, right),
            "<" => Self::ordered(Order::Less, right),
            "<=" => Self::ordered(Order::LessOrEqual, right),
            "~~" => Self::matches(right, Case::Sensitive)?,
            "~*" => Self::matches(right, Case::Insensitive)?,
            "in" => right
                .as_array()
                .map_or(Self::Never, |elements| Self::In(elements.iter().collect())),
            "has" => Self::Has(Scalar::from(right)),
            "ipmatch" => Self::Within(networks(right)?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn equal(right: &Value) -> Self {
        Self::Equal(Scalar::from(right))
    }

    fn ordered(order: Order, right: &Value) -> Self {
        let bound = match right {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => lua_number(text),
            _ => None,
        };
        bound.map_or(Self::Never, |bound| Self::Ordered(order, bound))
    }

    fn matches(right: &Value, case: Case) -> Result<Self, ExprError> {
        match right {
            Value::String(pattern) => Ok(Self::Matches(Pattern::new(pattern, case)?)),
            Value::Number(number) => Ok(Self::Matches(Pattern::new(&number_text(number), case)?)),
            _ => Err(ExprError::Invalid),
        }
    }

    /// Whether the condition holds for `left`; `None` is an absent variable.
    pub(super) fn holds(&self, left: Option<&VarValue<'_>>) -> Result<bool, MatchLimit> {
        let left = Left::from(left);
        Ok(match self {
            Self::Equal(right) => right.equals(left),
            Self::Differs(right) => !right.equals(left),
            Self::Ordered(order, bound) => left
                .number()
                .is_some_and(|number| order.holds(number, *bound)),
            Self::Matches(pattern) => return left.matches(pattern),
            Self::In(set) => set.contains(left),
            Self::Has(right) => match left {
                Left::List(list) => list.iter().any(|element| right.is(element)),
                _ => false,
            },
            Self::Within(networks) => left
                .address()
                .is_some_and(|address| networks.iter().any(|network| network.contains(&address))),
            Self::Never => false,
        })
    }
}

impl Order {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

impl From<&Value> for Scalar {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => number.as_f64().map_or(Self::Composite, Self::Number),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Array(_) | Value::Object(_) => Self::Composite,
        }
    }
}

impl Scalar {
    /// `==` as a rule means it: a number on the right converts the left.
    fn equals(&self, left: Left<'_>) -> bool {
        match (self, left) {
            (Self::Null, Left::Absent) => true,
            (Self::Bool(right), Left::Bool(left)) => *right == left,
            (Self::Number(right), left) => left.number() == Some(*right),
            (Self::Text(right), Left::Text(left)) => **right == *left,
            _ => false,
        }
    }

    /// Strictly the same value, type included. Nothing is `null`.
    fn is(&self, element: &Value) -> bool {
        match (self, element) {
            (Self::Bool(right), Value::Bool(left)) => right == left,
            (Self::Number(right), Value::Number(left)) => left.as_f64() == Some(*right),
            (Self::Text(right), Value::String(left)) => **right == **left,
            _ => false,
        }
    }
}

impl<'v> FromIterator<&'v Value> for Set {
    fn from_iter<I: IntoIterator<Item = &'v Value>>(elements: I) -> Self {
        let mut set = Self::default();
        for element in elements {
            match Scalar::from(element) {
                Scalar::Text(text) => drop(set.texts.insert(text)),
                Scalar::Number(number) => set.numbers.push(number),
                Scalar::Bool(flag) => set.bools.push(flag),
                Scalar::Null | Scalar::Composite => {}
            }
        }
        set
    }
}

impl Set {
    fn contains(&self, left: Left<'_>) -> bool {
        match left {
            Left::Text(text) => self.texts.contains(text),
            Left::Number(number) => number
                .as_f64()
                .is_some_and(|number| self.numbers.contains(&number)),
            Left::Bool(flag) => self.bools.contains(&flag),
            Left::Absent | Left::List(_) | Left::Object => false,
        }
    }
}

impl<'v> From<Option<&'v VarValue<'_>>> for Left<'v> {
    fn from(value: Option<&'v VarValue<'_>>) -> Self {
        match value {
            None | Some(VarValue::Json(Value::Null)) => Self::Absent,
            Some(VarValue::Text(text)) => Self::Text(text),
            Some(VarValue::Json(Value::String(text))) => Self::Text(text),
            Some(VarValue::Json(Value::Bool(flag))) => Self::Bool(*flag),
            Some(VarValue::Json(Value::Number(number))) => Self::Number(number),
            Some(VarValue::Json(Value::Array(list))) => Self::List(list),
            Some(VarValue::Json(Value::Object(_))) => Self::Object,
        }
    }
}

impl Left<'_> {
    fn number(self) -> Option<f64> {
        match self {
            Self::Text(text) => lua_number(text),
            Self::Number(number) => number.as_f64(),
            Self::Absent | Self::Bool(_) | Self::List(_) | Self::Object => None,
        }
    }

    fn matches(self, pattern: &Pattern) -> Result<bool, MatchLimit> {
        match self {
            Self::Text(text) => pattern.is_match(text),
            Self::Number(number) => pattern.is_match(&number_text(number)),
            Self::Bool(true) => pattern.is_match("true"),
            // `false` counts as absent in Lua's test before the match.
            Self::Bool(false) | Self::Absent | Self::List(_) | Self::Object => Ok(false),
        }
    }

    fn address(self) -> Option<IpAddr> {
        match self {
            // A dual-stack listener reports IPv4 clients as ::ffff:a.b.c.d,
            // and no operator writes networks that way.
            Self::Text(text) => text
                .parse()
                .ok()
                .map(|address: IpAddr| address.to_canonical()),
            _ => None,
        }
    }
}

fn networks(right: &Value) -> Result<Box<[IpNet]>, ExprError> {
    let one = std::slice::from_ref(right);
    let elements = right.as_array().map_or(one, Vec::as_slice);
    elements.iter().map(network).collect()
}

fn network(element: &Value) -> Result<IpNet, ExprError> {
    let invalid = || match element {
        Value::String(text) => ExprError::InvalidAddress(text.clone()),
        other => ExprError::InvalidAddress(other.to_string()),
    };
    let text = element.as_str().ok_or_else(invalid)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => text.parse().map_err(|_| invalid()),
    }
}

/// Lua's `tonumber`: spaces around, decimal or hexadecimal. Infinities and NaN
/// are left out: no client should be above every limit by sending `inf`.
fn lua_number(text: &str) -> Option<f64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if let Some(digits) = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"))
    {
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let magnitude = u64::from_str_radix(digits, 16).ok()? as f64;
        return Some(if text.starts_with('-') {
            -magnitude
        } else {
            magnitude
        });
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_lua_reads_them() {
        let cases = [
            ("5", Some(5.0)),
            ("5.0", Some(5.0)),
            (" 5\t", Some(5.0)),
            ("-.5", Some(-0.5)),
            ("+5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            ("-0X1f", Some(-31.0)),
            ("", None),
            (" ", None),
            ("-", None),
            (".", None),
            ("5x", None),
            ("0x", None),
            ("0x+1", None),
            ("--5", None),
            ("+-5", None),
            ("1_000", None),
            ("inf", None),
            ("-infinity", None),
            ("nan", None),
            ("1e999", None),
            ("5é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(lua_number(text), expected, "{text:?}");
        }
    }
}
