//! Conditions in APISIX's expression language: route `vars`, `_meta.filter`.
//!
//! An expression is a JSON array such as `[["arg_n", ">", 10], ["OR", ...]]`.
//! Everything that can be prepared is prepared by [`Expr::parse`]: patterns are
//! compiled, addresses parsed, numbers converted. What is left for a request is
//! one look-up and one comparison per rule.
//!
//! Comparisons follow Lua, in which APISIX evaluates them: a text never equals
//! a number unless the operator says that it converts.

use serde_json::Value;

use super::condition::Condition;
use super::pattern::{MatchLimit, PatternError};
use crate::vars::Lookup;

/// How deep an expression may nest.
pub const DEPTH_MAX: usize = 64;

/// A parsed expression. The empty one is always true.
#[derive(Debug, Clone, Default)]
pub struct Expr {
    /// Joined by AND.
    nodes: Box<[Node]>,
}

/// Why a JSON value is not an expression. The texts are APISIX's where it has
/// one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// A rule stands where a list of rules belongs, or no list at all.
    #[error("rule should be wrapped inside brackets")]
    NotWrapped,
    /// An empty rule, or a logical operator with fewer than two rules.
    #[error("rule too short")]
    TooShort,
    /// Four elements, of which the second is not `!`.
    #[error("bad 'not' expression")]
    BadNot,
    /// A rule without a variable name, or with an operator that is no text.
    #[error("invalid expression")]
    Invalid,
    /// Named in lower case, as it was looked up.
    #[error("invalid operator '{0}'")]
    UnknownOperator(String),
    /// An `ipmatch` element that is neither an address nor a network.
    #[error("invalid ip address: {0}")]
    InvalidAddress(String),
    /// A `~~` or `~*` pattern that does not compile.
    #[error(transparent)]
    InvalidRegex(#[from] PatternError),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("expression nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// An expression whose truth could not be found out for this request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A pattern ran into its limit on the value of this variable.
    #[error("variable '{name}': {source}")]
    Regex {
        /// The variable.
        name: String,
        /// Which limit.
        source: MatchLimit,
    },
}

#[derive(Debug, Clone)]
enum Node {
    Rule(Rule),
    Junction(Logic, Box<[Self]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logic {
    And,
    Or,
    NotAnd,
    NotOr,
}

#[derive(Debug, Clone)]
struct Rule {
    left: Box<str>,
    negated: bool,
    condition: Condition,
}

impl Expr {
    /// Parses the JSON form.
    ///
    /// # Errors
    /// See [`ExprError`]; nothing is accepted in part.
    pub fn parse(value: &Value) -> Result<Self, ExprError> {
        let rules = value.as_array().ok_or(ExprError::NotWrapped)?;
        let nodes = match rules.first() {
            None => Box::default(),
            Some(Value::Array(_)) => parse_all(rules, 1)?,
            Some(first) if first.as_str().is_some_and(|op| Logic::parse(op).is_some()) => {
                Box::new([parse_node(value, 0)?])
            }
            Some(_) => return Err(ExprError::NotWrapped),
        };
        Ok(Self { nodes })
    }

    /// Whether the expression holds for the request behind `vars`.
    ///
    /// # Errors
    /// When a pattern gave up. The caller treats the condition as not met,
    /// whatever stands around the pattern: an unknown answer must not open a
    /// route through a negation.
    pub fn eval(&self, vars: &dyn Lookup) -> Result<bool, EvalError> {
        all(&self.nodes, vars)
    }

    /// The variables the expression may read, in order, repeats included.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let mut names = Vec::new();
        collect_names(&self.nodes, &mut names);
        names.into_iter()
    }

    /// Whether this is the expression that always holds.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Node {
    fn eval(&self, vars: &dyn Lookup) -> Result<bool, EvalError> {
        match self {
            Self::Rule(rule) => rule.eval(vars),
            Self::Junction(Logic::And, nodes) => all(nodes, vars),
            Self::Junction(Logic::Or, nodes) => any(nodes, vars),
            Self::Junction(Logic::NotAnd, nodes) => Ok(!all(nodes, vars)?),
            Self::Junction(Logic::NotOr, nodes) => Ok(!any(nodes, vars)?),
        }
    }
}

impl Rule {
    fn parse(elements: &[Value]) -> Result<Self, ExprError> {
        let (left, operator, right, negated) = match elements {
            [left, not, operator, right] if not == "!" => (left, Some(operator), Some(right), true),
            [_, _, _, _] => return Err(ExprError::BadNot),
            // APISIX takes the first three and ignores what follows.
            [left, operator, right, ..] => (left, Some(operator), Some(right), false),
            [left, operator] => (left, Some(operator), None, false),
            _ => (&Value::Null, None, None, false),
        };
        let (Value::String(left), Some(operator)) = (left, operator) else {
            return Err(ExprError::Invalid);
        };
        let condition = match (operator, right) {
            (Value::String(operator), _) => {
                let name = operator.to_ascii_lowercase();
                match (
                    Condition::parse(&name, right.unwrap_or(&Value::Null))?,
                    right,
                ) {
                    (Some(condition), _) => condition,
                    // The old two-element form. APISIX also lowers the value
                    // there, by accident; its documented meaning is equality.
                    (None, None) => Condition::equal(&Value::String(operator.clone())),
                    (None, Some(_)) => return Err(ExprError::UnknownOperator(name)),
                }
            }
            (Value::Number(_), None) => Condition::equal(operator),
            (Value::Number(number), Some(_)) => {
                return Err(ExprError::UnknownOperator(number.to_string()));
            }
            _ => return Err(ExprError::Invalid),
        };
        Ok(Self {
            left: left.as_str().into(),
            negated,
            condition,
        })
    }

    fn eval(&self, vars: &dyn Lookup) -> Result<bool, EvalError> {
        let left = vars.var(&self.left).filter(|value| !value.is_absent());
        match self.condition.holds(left.as_ref()) {
            Ok(holds) => Ok(holds != self.negated),
            Err(source) => Err(EvalError::Regex {
                name: self.left.to_string(),
                source,
            }),
        }
    }
}

impl Logic {
    fn parse(operator: &str) -> Option<Self> {
        [
            ("AND", Self::And),
            ("OR", Self::Or),
            ("!AND", Self::NotAnd),
            ("!OR", Self::NotOr),
        ]
        .into_iter()
        .find_map(|(name, logic)| name.eq_ignore_ascii_case(operator).then_some(logic))
    }
}

fn parse_node(value: &Value, depth: usize) -> Result<Node, ExprError> {
    if depth >= DEPTH_MAX {
        return Err(ExprError::TooDeep);
    }
    let elements = value.as_array().ok_or(ExprError::NotWrapped)?;
    let first = elements.first().ok_or(ExprError::TooShort)?;
    if first.is_array() {
        return Ok(Node::Junction(Logic::And, parse_all(elements, depth + 1)?));
    }
    let Some(logic) = first.as_str().and_then(Logic::parse) else {
        return Rule::parse(elements).map(Node::Rule);
    };
    if elements.len() <= 2 {
        return Err(ExprError::TooShort);
    }
    Ok(Node::Junction(logic, parse_all(&elements[1..], depth + 1)?))
}

fn parse_all(values: &[Value], depth: usize) -> Result<Box<[Node]>, ExprError> {
    values
        .iter()
        .map(|value| parse_node(value, depth))
        .collect()
}

fn all(nodes: &[Node], vars: &dyn Lookup) -> Result<bool, EvalError> {
    for node in nodes {
        if !node.eval(vars)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn any(nodes: &[Node], vars: &dyn Lookup) -> Result<bool, EvalError> {
    for node in nodes {
        if node.eval(vars)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn collect_names<'e>(nodes: &'e [Node], names: &mut Vec<&'e str>) {
    for node in nodes {
        match node {
            Node::Rule(rule) => names.push(&rule.left),
            Node::Junction(_, nodes) => collect_names(nodes, names),
        }
    }
}

#[cfg(test)]
mod tests;
