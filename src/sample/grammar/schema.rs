//! JSON Schema in, JSON Schema out: only what is understood goes on to llguidance, the rest is refused by name.
//!
//! llguidance passes over keywords that the draft of `$schema` does not have, and keeps a few laws loosely. So a
//! schema is not handed over but written anew: annotations are left out, older drafts' spellings become those of
//! 2020-12, references become `#/$defs/0` and so on (those of `oneOf`, which must be told apart, are put in place),
//! and what cannot be enforced is an error with its place. A schema that no finite text satisfies is one too.
//!
//! The keywords and their meaning: <https://json-schema.org/draft/2020-12>.

use serde_json::{Map, Value, json};

use super::document::{Document, kind};
use crate::error::{Error, Result};

/// Schemas and subschemas after references are put in place.
const MAX_NODES: usize = 10_000;
/// Bytes of a schema's JSON.
const MAX_BYTES: usize = 1 << 20;
/// Levels of a schema in itself, references not counted.
const MAX_DEPTH: usize = 100;
/// Lengths and counts; a grammar of more items than a context has tokens helps nobody.
const MAX_COUNT: u64 = 100_000;
/// Names of one object; optional ones are all possible at once.
const MAX_PROPERTIES: usize = 1000;
/// Patterns that one text must match.
pub(super) const MAX_PATTERNS: usize = 5;

pub(super) const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// Say nothing about what is valid.
pub(super) const ANNOTATIONS: [&str; 18] = [
    "$anchor",
    "$comment",
    "$defs",
    "$schema",
    "$vocabulary",
    "default",
    "definitions",
    "deprecated",
    "description",
    "discriminator",
    "enumNames",
    "example",
    "examples",
    "externalDocs",
    "readOnly",
    "title",
    "writeOnly",
    "xml",
];

/// Keywords of the drafts and of OpenAPI that would change what is valid.
const UNSUPPORTED: [&str; 27] = [
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "nullable",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "x-guidance",
    "$id",
];

/// Formats that llguidance knows, and those that are spelled out here.
const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

// llguidance's `date` has a 29th of February every year, and its `time` a second 60: not every parser takes them.
const YEAR: &str = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})";
const LEAP: &str =
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

fn date() -> String {
    format!(
        "(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP}-02-29)"
    )
}

/// Collects schemas into one, with the definitions they share.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    pub(super) definitions: Vec<Value>,
    n_nodes: usize,
    // Of every number that is intersected with another, which llguidance does in 32 bits
    multiples: Vec<f64>,
    intersects: bool,
}

impl Schemas {
    /// Checks a document and gives the schema that stands for it; `name` is what messages call it.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<Value> {
        if text.len() > MAX_BYTES {
            return Err(Error::InvalidRequest(format!(
                "{name} has {} bytes, expected at most {MAX_BYTES}",
                text.len()
            )));
        }
        let root: Value = serde_json::from_str(text)
            .map_err(|e| Error::InvalidRequest(format!("{name} is not JSON: {e}")))?;
        let mut document = Document::new(name, &root);
        let schema = self.schema(&mut document, &root, "#", 0)?;
        if self.intersects && !self.multiples.is_empty() {
            let product: f64 = self.multiples.iter().product();
            let product = product * self.multiples.iter().copied().fold(0.0, f64::max);
            if product > f64::from(u32::MAX) {
                return Err(Error::InvalidRequest(format!(
                    "{name} combines values of `multipleOf` that are too large together: keep their product below 4294967295"
                )));
            }
        }
        let most = self
            .definitions
            .iter()
            .chain([&schema])
            .map(|s| self.patterns(s, &mut Vec::new()));
        if most.max().unwrap_or(0) > MAX_PATTERNS {
            return Err(Error::InvalidRequest(format!(
                "{name} asks several patterns of one text, expected at most {MAX_PATTERNS}: they are intersected"
            )));
        }
        if !self.ends(&schema) {
            return Err(Error::InvalidRequest(format!(
                "{name} describes no finite value: a part of it requires itself; make it optional somewhere"
            )));
        }
        Ok(schema)
    }

    /// `schema` with the definitions that it refers to, for llguidance.
    pub(super) fn whole(&self, schema: Value) -> Value {
        let mut whole = match schema {
            Value::Object(map) => map,
            other => return other,
        };
        let definitions: Map<String, Value> = self
            .definitions
            .iter()
            .enumerate()
            .map(|(i, schema)| (i.to_string(), schema.clone()))
            .collect();
        if !definitions.is_empty() {
            whole.insert("$defs".into(), Value::Object(definitions));
        }
        // Compact, so that a small model has nothing to loop in; and each text has one spelling, since an escaped
        // letter would let a key in that is taken.
        whole.insert(
            "x-guidance".into(),
            json!({"whitespace_flexible": false, "json_allowed_escapes": "nrbtf\\\""}),
        );
        Value::Object(whole)
    }

    fn schema(
        &mut self,
        document: &mut Document,
        schema: &Value,
        at: &str,
        depth: usize,
    ) -> Result<Value> {
        self.n_nodes += 1;
        if self.n_nodes > MAX_NODES {
            return Err(Error::InvalidRequest(format!(
                "{} is too large: expected at most {MAX_NODES} schemas in it, references of oneOf put in place",
                document.name
            )));
        }
        if depth > MAX_DEPTH {
            return Err(document.wrong(at, "is nested too deep", "at most 100 levels"));
        }
        let map = match schema {
            Value::Bool(true) => return Ok(json!({})),
            Value::Bool(false) => return Ok(Value::Bool(false)),
            Value::Object(map) => map,
            other => {
                return Err(document.wrong(
                    at,
                    &format!("is {}", kind(other)),
                    "a schema: an object, true or false",
                ));
            }
        };
        let mut out = Map::new();
        for (key, value) in map {
            let here = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            self.keyword(document, map, key, value, &here, &mut out, depth)?;
        }
        self.meaning(document, &mut out, at)?;
        Ok(Value::Object(out))
    }

    #[allow(clippy::too_many_arguments)]
    fn keyword(
        &mut self,
        document: &mut Document,
        map: &Map<String, Value>,
        key: &str,
        value: &Value,
        here: &str,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<()> {
        let mut put = |value| {
            out.insert(key.into(), value);
        };
        match key {
            "type" => {
                let names = match value {
                    Value::String(_) => std::slice::from_ref(value),
                    Value::Array(names) if !names.is_empty() => names,
                    _ => &[],
                };
                let known = |name: &Value| name.as_str().is_some_and(|n| TYPES.contains(&n));
                if names.is_empty() || !names.iter().all(known) {
                    return Err(document.wrong(
                        here,
                        &format!("is {value}"),
                        "null, boolean, integer, number, string, array, object or a list of them",
                    ));
                }
                put(value.clone());
            }
            "enum" | "const" => {
                if key == "enum" && value.as_array().is_none_or(Vec::is_empty) {
                    return Err(document.wrong(
                        here,
                        &format!("is {}", kind(value)),
                        "a list that is not empty",
                    ));
                }
                self.constant(document, value, here)?;
                put(value.clone());
            }
            "anyOf" | "oneOf" | "allOf" => {
                let Some(options) = value.as_array().filter(|options| !options.is_empty()) else {
                    return Err(document.wrong(
                        here,
                        &format!("is {}", kind(value)),
                        "a list of schemas",
                    ));
                };
                self.intersects |= key == "allOf" || map.len() > 1;
                let options: Result<Vec<Value>> = options
                    .iter()
                    .enumerate()
                    .map(|(i, option)| {
                        let at = format!("{here}/{i}");
                        match option.as_object().and_then(|o| o.get("$ref")?.as_str()) {
                            Some(reference)
                                if key == "oneOf"
                                    && option.as_object().is_some_and(|o| o.len() == 1) =>
                            {
                                self.in_place(document, reference, &at, depth + 1)
                            }
                            _ => self.schema(document, option, &at, depth + 1),
                        }
                    })
                    .collect();
                put(Value::Array(options?));
            }
            "$ref" => {
                let Some(reference) = value.as_str() else {
                    return Err(document.wrong(
                        here,
                        &format!("is {}", kind(value)),
                        "a reference such as \"#/$defs/name\"",
                    ));
                };
                self.intersects |= map.len() > 1;
                put(self.reference(document, reference, here)?);
            }
            "properties" | "patternProperties" => {
                let Some(properties) = value.as_object() else {
                    return Err(document.wrong(
                        here,
                        &format!("is {}", kind(value)),
                        "an object of schemas",
                    ));
                };
                if properties.len() > MAX_PROPERTIES {
                    return Err(document.wrong(
                        here,
                        &format!("has {} names", properties.len()),
                        &format!("at most {MAX_PROPERTIES}"),
                    ));
                }
                let mut schemas = Map::new();
                for (name, schema) in properties {
                    let at = format!("{here}/{}", name.replace('~', "~0").replace('/', "~1"));
                    schemas.insert(name.clone(), self.schema(document, schema, &at, depth + 1)?);
                }
                put(Value::Object(schemas));
            }
            // Before 2020-12, `items` was also what is now `prefixItems`, and `additionalItems` what is now `items`.
            "prefixItems" | "items" if value.is_array() => {
                if key == "items" && map.contains_key("prefixItems") {
                    return Err(document.wrong(
                        here,
                        "is a list beside `prefixItems`",
                        "one of the two",
                    ));
                }
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let items: Result<Vec<Value>> = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.schema(document, item, &format!("{here}/{i}"), depth + 1))
                    .collect();
                out.insert("prefixItems".into(), Value::Array(items?));
            }
            "prefixItems" => {
                return Err(document.wrong(
                    here,
                    &format!("is {}", kind(value)),
                    "a list of schemas",
                ));
            }
            "items" | "additionalProperties" => {
                put(self.schema(document, value, here, depth + 1)?);
            }
            "additionalItems" => {
                if map.contains_key("prefixItems") {
                    return Err(document.wrong(
                        here,
                        "is there beside `prefixItems`",
                        "`items` for what follows those",
                    ));
                }
                if map.get("items").is_some_and(Value::is_array) {
                    out.insert(
                        "items".into(),
                        self.schema(document, value, here, depth + 1)?,
                    );
                }
            }
            "required" => {
                let names = value
                    .as_array()
                    .filter(|names| names.iter().all(Value::is_string));
                let Some(names) = names else {
                    return Err(document.wrong(here, &format!("is {value}"), "a list of names"));
                };
                put(Value::Array(names.clone()));
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
            | "maxProperties" => {
                let whole = value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0);
                match whole {
                    Some(n) if n <= MAX_COUNT as f64 => put(Value::from(n as u64)),
                    _ => {
                        return Err(document.wrong(
                            here,
                            &format!("is {value}"),
                            &format!("an integer from 0 to {MAX_COUNT}"),
                        ));
                    }
                }
            }
            // Draft 4 wrote true beside the bound.
            "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() => {
                let bound = if key == "exclusiveMinimum" {
                    "minimum"
                } else {
                    "maximum"
                };
                if value == &Value::Bool(true) {
                    let Some(bound) = map.get(bound) else {
                        return Err(document.wrong(
                            here,
                            "is true",
                            &format!("`{bound}` beside it, or a number"),
                        ));
                    };
                    put(document.number(bound, here)?);
                }
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                put(document.number(value, here)?);
            }
            "multipleOf" => {
                let number = document.number(value, here)?;
                let of = number.as_f64().unwrap_or_default();
                // llguidance wants an integer of 32 bits and a power of ten.
                let mut coefficient = of;
                while coefficient.fract() != 0.0 && coefficient < f64::from(u32::MAX) {
                    coefficient *= 10.0;
                }
                if of <= 0.0 || coefficient > f64::from(u32::MAX) {
                    return Err(document.wrong(
                        here,
                        &format!("is {value}"),
                        "a number above 0 that is an integer below 4294967296 after moving the decimal point",
                    ));
                }
                self.multiples.push(coefficient);
                put(number);
            }
            "pattern" => {
                if !value.is_string() {
                    return Err(document.wrong(
                        here,
                        &format!("is {}", kind(value)),
                        "a regular expression",
                    ));
                }
                put(value.clone());
            }
            "format" => {
                if !value.as_str().is_some_and(|name| FORMATS.contains(&name)) {
                    return Err(document.wrong(
                        here,
                        &format!("is {value}, which cannot be enforced"),
                        &format!(
                            "one of {}; leave it out, or write a `pattern`",
                            FORMATS.join(", ")
                        ),
                    ));
                }
                put(value.clone());
            }
            "$id" | "id" if depth == 0 && value.is_string() && here == format!("#/{key}") => {}
            "uniqueItems" | "nullable" if value == &Value::Bool(false) => {}
            "nullable" => {
                return Err(document.wrong(here, "is of OpenAPI 3.0", "\"type\": [..., \"null\"]"));
            }
            _ if ANNOTATIONS.contains(&key) => {}
            _ if UNSUPPORTED.contains(&key) => {
                return Err(Error::InvalidRequest(format!(
                    "{} has `{key}` at {here}, which cannot be enforced: take it out, and check the result for it",
                    document.name
                )));
            }
            _ if key.starts_with("x-") => {}
            _ => {
                return Err(Error::InvalidRequest(format!(
                    "{} has `{key}` at {here}, which is no keyword of JSON Schema: correct it, or take it out (names \
                     that begin with x- are passed over)",
                    document.name
                )));
            }
        }
        Ok(())
    }

    /// Laws between keywords that llguidance does not keep, and formats that are spelled out here.
    fn meaning(
        &mut self,
        document: &Document,
        out: &mut Map<String, Value>,
        at: &str,
    ) -> Result<()> {
        let required = out
            .get("required")
            .and_then(Value::as_array)
            .map_or(0, |names| {
                let mut names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                names.sort_unstable();
                names.dedup();
                names.len()
            });
        let least = out
            .get("minProperties")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if least > required as u64 + 1 {
            return Err(document.wrong(
                &format!("{at}/minProperties"),
                &format!("is {least}, which cannot be enforced (a key could be written twice)"),
                "at most one more than there are `required` names",
            ));
        }
        exclude_bounds(out);
        let spelled = match out.get("format").and_then(Value::as_str) {
            Some("date") => date(),
            Some("time") => TIME.to_string(),
            Some("date-time") => format!("{}T{TIME}", date()),
            _ => return Ok(()),
        };
        out.remove("format");
        let pattern = format!("^{spelled}$");
        if out.contains_key("pattern") {
            self.intersects = true;
            let mut all = match out.remove("allOf") {
                Some(Value::Array(all)) => all,
                _ => Vec::new(),
            };
            all.push(json!({ "pattern": pattern }));
            out.insert("allOf".into(), Value::Array(all));
        } else {
            out.insert("pattern".into(), Value::String(pattern));
        }
        Ok(())
    }

    /// A definition's name for `reference`; the definition is made if it is new.
    fn reference(&mut self, document: &mut Document, reference: &str, here: &str) -> Result<Value> {
        let index = match document.references.get(reference) {
            Some(&index) => index,
            None => {
                let target = document.target(reference, here)?;
                let index = self.definitions.len();
                self.definitions.push(Value::Null);
                document.references.insert(reference.into(), index);
                // The levels of a definition are its own; what nests through references is bounded by MAX_NODES.
                self.definitions[index] = self.schema(document, target, reference, 1)?;
                index
            }
        };
        Ok(Value::String(format!("#/$defs/{index}")))
    }

    /// The schema that `reference` means, or the reference itself where it is part of what it means.
    fn in_place(
        &mut self,
        document: &mut Document,
        reference: &str,
        here: &str,
        depth: usize,
    ) -> Result<Value> {
        if document.open.iter().any(|open| open == reference) {
            return Ok(json!({ "$ref": self.reference(document, reference, here)? }));
        }
        let target = document.target(reference, here)?;
        document.open.push(reference.into());
        let schema = self.schema(document, target, reference, depth);
        document.open.pop();
        schema
    }

    /// Literals, which llguidance compares as doubles and writes without `\u`.
    fn constant(&self, document: &Document, value: &Value, here: &str) -> Result<()> {
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(_) => document.number(value, here).map(drop),
            Value::String(text) => {
                let unwritable = |c: &char| c.is_control() && !"\n\r\t\u{8}\u{c}".contains(*c);
                match text.chars().find(unwritable) {
                    Some(c) => Err(document.wrong(
                        here,
                        &format!("has the control character {c:?}"),
                        "text without it",
                    )),
                    None => Ok(()),
                }
            }
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.constant(document, item, here)),
            Value::Object(map) => map
                .values()
                .try_for_each(|item| self.constant(document, item, here)),
        }
    }
}

/// llguidance takes an exclusive bound in for an inclusive one where that is an integer and the other bound lies before
/// the next integer: in its place stands the number beside it, of those that are taken here.
fn exclude_bounds(out: &mut Map<String, Value>) {
    let bounds = [
        (
            1.0,
            "minimum",
            "exclusiveMinimum",
            ["maximum", "exclusiveMaximum"],
        ),
        (
            -1.0,
            "maximum",
            "exclusiveMaximum",
            ["minimum", "exclusiveMinimum"],
        ),
    ];
    for (sign, inclusive, exclusive, others) in bounds {
        let number = |key: &str| Some(sign * out.get(key)?.as_f64()?);
        let Some(bound) = number(exclusive) else {
            continue;
        };
        let other = others.into_iter().filter_map(number).reduce(f64::min);
        let affected = other.is_some_and(|other| (bound..bound + 1.0).contains(&other));
        if affected && bound >= 0.0 && bound.fract() == 0.0 {
            let next = if bound == 0.0 { 1e-15 } else { bound.next_up() };
            let next = number(inclusive).map_or(next, |given| given.max(next));
            out.remove(exclusive);
            out.insert(inclusive.into(), Value::from(sign * next));
        }
    }
}
