//! What a text must be, as the user says it and as llguidance wants it.

use std::sync::LazyLock;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::regex_to_lark;
use regex::Regex;

use super::schema::Schemas;
use crate::error::{Error, Result};

/// A rule with `[temperature=...]`.
static TEMPERATURE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^\s*[!?]*\w+\[[^\]\n]*temperature\s*=").expect("a valid pattern")
});

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// The JSON of a JSON Schema.
    Schema(String),
    /// A regular expression, which the whole text matches.
    Regex(String),
    /// A Lark grammar.
    Lark(String),
    /// Calls of functions.
    Calls(Calls),
}

/// Calls as a JSON list, `[{"name": ..., "arguments": {...}}, ...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// Names of functions, and the JSON Schemas of their arguments.
    pub functions: Vec<(String, String)>,
    /// What goes before the list.
    pub prefix: String,
    /// Whether the text may be something else: one that does not begin with the prefix and `[`.
    pub or_text: bool,
}

/// Bytes of a regular expression or grammar.
const MAX_BYTES: usize = 1 << 17;
/// Characters of llguidance's words, which may quote all of a grammar.
const MAX_CAUSE: usize = 500;
/// Brackets in brackets.
const MAX_NESTING: usize = 100;
/// Rules of a grammar.
const MAX_RULES: usize = 2000;
impl Constraint {
    /// What messages call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Schema(_) => "json_schema",
            Self::Regex(_) => "regex",
            Self::Lark(_) => "grammar",
            Self::Calls(_) => "tools",
        }
    }

    pub(super) fn wrong(&self, cause: &dyn std::fmt::Display) -> Error {
        let cause = cause.to_string();
        // A panic's backtrace and a parser's state say nothing to the user.
        let cause = cause.split("\n<").next().unwrap_or_default();
        let cause = cause
            .split("\n  while processing")
            .next()
            .unwrap_or_default()
            .trim_end();
        // A regular expression is shown as it was given, not as part of a grammar.
        let cause = match (self, cause.split_once("regex parse error:")) {
            (Self::Regex(_), Some((_, shown))) => {
                shown.split("\n   1 |").next().unwrap_or_default()
            }
            _ => cause,
        };
        let known = [
            (
                "oneOf constraints are not supported",
                "the alternatives of a `oneOf` cannot be told apart by their types or by a required property with \
                 different constants; write anyOf",
            ),
            (
                "Unable to determine if regex is empty",
                "a `pattern`, with what else is asked of the same text, is too complex",
            ),
            (
                "special token",
                "it names a special token, and those are never part of a text",
            ),
            (
                "fuel",
                "it is too complex: shorten it, or lower the numbers in it",
            ),
        ];
        let cause = known
            .iter()
            .find(|(words, _)| cause.contains(words))
            .map_or(cause, |(_, text)| text);
        let end = cause
            .char_indices()
            .nth(MAX_CAUSE)
            .map_or(cause.len(), |(at, _)| at);
        let cause = &cause[..end];
        let space = if cause.starts_with('\n') { "" } else { " " };
        Error::InvalidRequest(format!("{} cannot be used:{space}{cause}", self.name()))
    }

    pub(super) fn grammar(&self) -> Result<TopLevelGrammar> {
        match self {
            Self::Schema(text) => {
                let mut schemas = Schemas::default();
                let schema = schemas.add("json_schema", text)?;
                Ok(TopLevelGrammar::from_json_schema(schemas.whole(schema)))
            }
            Self::Regex(regex) => {
                check_size("regex", regex)?;
                Ok(TopLevelGrammar::from_lark(format!(
                    "start: /{}/",
                    regex_to_lark(&as_python(unanchored(regex)), "")
                )))
            }
            Self::Lark(text) => {
                check_size("grammar", text)?;
                // llguidance reads it, and does nothing with it.
                if TEMPERATURE.is_match(text) {
                    return Err(Error::InvalidRequest(
                        "the grammar has `temperature`, expected it as the argument of that name"
                            .into(),
                    ));
                }
                Ok(TopLevelGrammar::from_lark(with_checked_schemas(text)?))
            }
            Self::Calls(calls) => calls.grammar(),
        }
    }
}

impl Calls {
    fn grammar(&self) -> Result<TopLevelGrammar> {
        let mut schemas = Schemas::default();
        let calls: Result<Vec<_>> = self
            .functions
            .iter()
            .map(|(name, text)| {
                let arguments =
                    schemas.add(&format!("the parameters of the tool `{name}`"), text)?;
                Ok(serde_json::json!({
                    "type": "object",
                    "properties": {"name": {"const": name}, "arguments": arguments},
                    "required": ["name", "arguments"],
                    "additionalProperties": false,
                }))
            })
            .collect();
        let list = schemas
            .whole(serde_json::json!({"type": "array", "items": {"anyOf": calls?}, "minItems": 1}));
        let prefix = &self.prefix;
        // Prefixes are ours: letters, or nothing.
        let start = match (self.or_text, prefix.is_empty()) {
            (true, _) => format!(
                "start: \"{prefix}\" @calls | TEXT\nTEXT: ~/\\s*{prefix}\\[(?s:.*)/ & /(?s:.*)/"
            ),
            (false, false) => format!("start: \"{prefix}\" @calls"),
            (false, true) => return Ok(TopLevelGrammar::from_json_schema(list)),
        };
        let start = start.replace("\"\" ", "");
        let mut calls = GrammarWithLexer::from_json_schema(list);
        calls.name = Some("calls".into());
        Ok(TopLevelGrammar {
            grammars: vec![GrammarWithLexer::from_lark(start), calls],
            max_tokens: None,
        })
    }
}

/// Bounds what recursion and memory depend on before llguidance sees it.
fn check_size(name: &str, text: &str) -> Result<()> {
    let wrong = |found: String, expected: String| {
        Err(Error::InvalidRequest(format!(
            "{name} has {found}, expected at most {expected}"
        )))
    };
    if text.len() > MAX_BYTES {
        return wrong(format!("{} bytes", text.len()), MAX_BYTES.to_string());
    }
    if text.is_empty() || name == "grammar" && text.trim().is_empty() {
        return Err(Error::InvalidRequest(format!(
            "{name} is empty, expected something to match"
        )));
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_NESTING {
        return wrong(
            format!("{deepest} brackets in each other"),
            MAX_NESTING.to_string(),
        );
    }
    let rules = text.bytes().filter(|&b| b == b':').count();
    if name == "grammar" && rules > MAX_RULES {
        return wrong(format!("{rules} rules"), MAX_RULES.to_string());
    }
    Ok(())
}

/// Without the anchors at its ends, which say what is so anyway and which llguidance does not know.
fn unanchored(regex: &str) -> &str {
    let regex = regex
        .strip_prefix('^')
        .or_else(|| regex.strip_prefix("\\A"))
        .unwrap_or(regex);
    let escaped = |rest: &str| rest.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
    for end in ["$", "\\Z", "\\z"] {
        match regex.strip_suffix(end) {
            Some(rest) if !escaped(rest) => return rest,
            _ => {}
        }
    }
    regex
}

/// The regular expression as Python reads it, as far as Unicode's versions allow, since the text must match there too:
/// no sets of characters within sets and no operators between them; `\w` and `\S` as there; `\d` is 0 to 9.
fn as_python(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len());
    let mut chars = regex.chars().peekable();
    let mut in_set = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('w') => out.push_str(r"[\p{L}\p{N}_]"),
                Some('W') => out.push_str(r"[^\p{L}\p{N}_]"),
                Some('S') => out.push_str(r"[^\s\x1c-\x1f]"),
                other => {
                    out.push(c);
                    out.extend(other);
                }
            },
            '[' if !in_set => {
                in_set = true;
                out.push(c);
                out.extend(chars.next_if_eq(&'^'));
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' | '&' | '~' if in_set => out.extend(['\\', c]),
            _ => {
                in_set &= c != ']';
                out.push(c);
            }
        }
    }
    out
}

/// The grammar with the schemas of its `%json` as they are handed over from elsewhere, too.
fn with_checked_schemas(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("%json") {
        let (before, after) = rest.split_at(at + "%json".len());
        out.push_str(before);
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<serde_json::Value>();
        match values.next() {
            Some(Ok(schema)) if schema.is_object() => {
                let line = 1 + text[..text.len() - after.len()].matches('\n').count();
                let mut schemas = Schemas::default();
                let checked = schemas.add(
                    &format!("the %json of the grammar's line {line}"),
                    &schema.to_string(),
                )?;
                out.push(' ');
                out.push_str(&schemas.whole(checked).to_string());
                rest = &after[values.byte_offset()..];
            }
            // In a string or a comment, or an error that llguidance names.
            _ => rest = after,
        }
    }
    out.push_str(rest);
    Ok(out)
}
