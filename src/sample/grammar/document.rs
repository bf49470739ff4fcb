//! One JSON Schema as it was given: references within it, numbers, and messages with places.

use std::collections::HashMap;

use serde_json::{Number, Value};

use super::schema::ANNOTATIONS;
use crate::error::{Error, Result};

/// Above it not every integer is a double.
const MAX_NUMBER: f64 = 9_007_199_254_740_992.0;

/// One document and what was found in it.
pub(super) struct Document<'a> {
    pub(super) name: &'a str,
    root: &'a Value,
    // `$ref` -> index of its definition
    pub(super) references: HashMap<String, usize>,
    // Definitions being put in place, of `oneOf`
    pub(super) open: Vec<String>,
}

impl<'a> Document<'a> {
    pub(super) fn new(name: &'a str, root: &'a Value) -> Self {
        Self {
            name,
            root,
            references: HashMap::new(),
            open: Vec::new(),
        }
    }

    /// What was found at a place, and what was expected there.
    pub(super) fn wrong(&self, at: &str, found: &str, expected: &str) -> Error {
        Error::InvalidRequest(format!(
            "{} at {at} {found}, expected {expected}",
            self.name
        ))
    }

    /// A number that is the same as a double.
    pub(super) fn number(&self, value: &Value, here: &str) -> Result<Value> {
        let Some(number) = value.as_f64() else {
            return Err(self.wrong(here, &format!("is {}", kind(value)), "a number"));
        };
        if number.abs() > MAX_NUMBER {
            return Err(self.wrong(
                here,
                &format!("is {value}"),
                "a number from -9007199254740992 to 9007199254740992",
            ));
        }
        if number != 0.0 && number.abs() < 1e-15 {
            return Err(self.wrong(here, &format!("is {value}"), "0 or a number above 1e-15"));
        }
        // 2.0 is an integer to JSON Schema.
        Ok(if number.fract() == 0.0 {
            Value::from(number as i64)
        } else {
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        })
    }

    /// What a reference within the document means, which is not the reference itself.
    pub(super) fn target(&self, reference: &str, here: &str) -> Result<&'a Value> {
        let mut reference = reference.to_string();
        for _ in 0..100 {
            let target = self.find(&reference, here)?;
            let next = target
                .as_object()
                .filter(|map| {
                    map.keys()
                        .all(|key| key == "$ref" || ANNOTATIONS.contains(&key.as_str()))
                })
                .and_then(|map| map.get("$ref")?.as_str());
            match next {
                Some(next) => reference = next.to_string(),
                None => return Ok(target),
            }
        }
        Err(self.wrong(
            here,
            &format!("refers to {reference:?} in a circle"),
            "a schema in the end",
        ))
    }

    fn find(&self, reference: &str, here: &str) -> Result<&'a Value> {
        let lost = |found: &str| {
            self.wrong(
                here,
                found,
                "a reference within the schema, such as \"#/$defs/name\"",
            )
        };
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(lost(&format!("refers to {reference:?}")));
        };
        let pointer = percent_decoded(pointer);
        self.root
            .pointer(&pointer)
            .ok_or_else(|| lost(&format!("refers to {reference:?}, which is not there")))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A value in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
