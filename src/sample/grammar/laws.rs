//! Laws about a schema as a whole: whether a finite value satisfies it, how many patterns one text must match.

use serde_json::Value;

use super::schema::{MAX_PATTERNS, Schemas, TYPES};

impl Schemas {
    /// Patterns, and formats, that one value must match.
    pub(super) fn patterns(&self, schema: &Value, open: &mut Vec<usize>) -> usize {
        let Some(map) = schema.as_object() else {
            return 0;
        };
        let mut n =
            usize::from(map.contains_key("pattern")) + usize::from(map.contains_key("format"));
        let list = |key| map.get(key).and_then(Value::as_array).into_iter().flatten();
        n += list("allOf")
            .map(|part| self.patterns(part, open))
            .sum::<usize>();
        for key in ["anyOf", "oneOf"] {
            n += list(key)
                .map(|part| self.patterns(part, open))
                .max()
                .unwrap_or(0);
        }
        if let Some(index) = map.get("$ref").and_then(index)
            && !open.contains(&index)
            && open.len() < MAX_PATTERNS
        {
            open.push(index);
            n += self.patterns(&self.definitions[index], open);
            open.pop();
        }
        n
    }

    /// Whether a finite value satisfies `schema`: the least fixed point over the definitions.
    pub(super) fn ends(&self, schema: &Value) -> bool {
        let mut ending = vec![false; self.definitions.len()];
        loop {
            let now: Vec<bool> = self.definitions.iter().map(|d| ends(d, &ending)).collect();
            if now == ending {
                return ends(schema, &ending);
            }
            ending = now;
        }
    }
}

/// Which definition a reference of ours means.
fn index(reference: &Value) -> Option<usize> {
    reference.as_str()?.rsplit('/').next()?.parse().ok()
}

/// Whether a finite value satisfies `schema`, if those definitions that `ending` names have one. Other contradictions
/// are llguidance's to find.
fn ends(schema: &Value, ending: &[bool]) -> bool {
    let Some(map) = schema.as_object() else {
        return true;
    };
    let list = |key| map.get(key).and_then(Value::as_array);
    if let Some(index) = map.get("$ref").and_then(index)
        && !ending[index]
    {
        return false;
    }
    for key in ["anyOf", "oneOf"] {
        if list(key).is_some_and(|options| !options.iter().any(|option| ends(option, ending))) {
            return false;
        }
    }
    if list("allOf").is_some_and(|all| !all.iter().all(|part| ends(part, ending))) {
        return false;
    }
    if map.contains_key("const") || map.contains_key("enum") {
        return true;
    }
    let allows = |name: &str| match map.get("type") {
        None => true,
        Some(Value::Array(names)) => names.iter().any(|n| n == name),
        Some(one) => one == name,
    };
    if TYPES[..5].iter().any(|name| allows(name)) {
        return true;
    }
    let rest = |key| map.get(key).is_none_or(|schema| ends(schema, ending));
    let object = || {
        let named = |name: &str| match map.get("properties").and_then(|p| p.get(name)) {
            Some(schema) => ends(schema, ending),
            None => map.contains_key("patternProperties") || rest("additionalProperties"),
        };
        list("required").is_none_or(|names| names.iter().filter_map(Value::as_str).all(named))
    };
    let array = || {
        let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
        let prefix = list("prefixItems").map_or(&[][..], Vec::as_slice);
        prefix.iter().take(least).all(|item| ends(item, ending))
            && (least <= prefix.len() || rest("items"))
    };
    (allows("object") && object()) || (allows("array") && array())
}
