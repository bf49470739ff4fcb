//! Python arguments -> Rust types: what is wrong is said with the argument's name.

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMapping, PySequence, PyString};

use super::errors::invalid;
use crate::generate::{BadWord, MAX_GUESS, Prompt, Speculation};
use crate::text::Message;

fn type_error(name: &str, found: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let kind = found
        .get_type()
        .name()
        .map_or_else(|_| "object".into(), |n| n.to_string());
    PyTypeError::new_err(format!("{name} must be {expected}, not {kind}"))
}

/// Text; a lone surrogate has no UTF-8 and is refused with its place.
pub(super) fn text(name: &str, object: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(string) = object.cast::<PyString>() else {
        return Err(type_error(name, object, "str"));
    };
    string.to_str().map(str::to_owned).map_err(|error| {
        let place = error.value(object.py()).getattr("start").and_then(|s| s.extract::<usize>());
        let place = place.map_or(String::new(), |at| format!(" (at index {at})"));
        invalid(format!(
            "{name} holds a lone surrogate{place}, which is not a character: decode the text with the right encoding, \
             or with errors=\"replace\""
        ))
    })
}

fn is_int(object: &Bound<'_, PyAny>) -> bool {
    !object.is_instance_of::<pyo3::types::PyBool>() && object.hasattr("__index__").unwrap_or(false)
}

/// Any `collections.abc.Sequence` but text and bytes, whose items would be characters.
fn is_sequence(object: &Bound<'_, PyAny>) -> bool {
    object.cast::<PySequence>().is_ok()
        && !object.is_instance_of::<PyString>()
        && !object.is_instance_of::<PyBytes>()
        && !object.is_instance_of::<PyByteArray>()
}

/// An integer from `min` to `max`.
pub(super) fn int(name: &str, object: &Bound<'_, PyAny>, min: i128, max: i128) -> PyResult<i128> {
    if !is_int(object) {
        return Err(type_error(name, object, "int"));
    }
    let number = object.call_method0("__index__")?;
    let value = match number.extract::<i64>() {
        Ok(n) => Some(i128::from(n)),
        Err(e) if e.is_instance_of::<PyOverflowError>(object.py()) => {
            number.extract::<u64>().ok().map(i128::from)
        }
        Err(e) => return Err(e),
    };
    value.filter(|n| (min..=max).contains(n)).ok_or_else(|| {
        // Python refuses to write out numbers of thousands of digits.
        let found = number
            .str()
            .map_or_else(|_| "a number of very many digits".into(), |s| s.to_string());
        invalid(format!(
            "{name} is {found}, expected an integer from {min} to {max}"
        ))
    })
}

/// A count; negative ones are refused by name and not by overflow.
pub(super) fn count(name: &str, object: &Bound<'_, PyAny>) -> PyResult<usize> {
    int(name, object, 0, i128::from(u32::MAX)).map(|n| n as usize)
}

/// A limit of tokens. Others write "no limit" as -1.
pub(super) fn max_tokens(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    let n = int(
        "max_tokens",
        object,
        i128::from(i64::MIN),
        i128::from(u32::MAX),
    )?;
    usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| {
        invalid(format!(
            "max_tokens is {n}, expected at least 1, or None for no limit"
        ))
    })
}

/// `"auto"`, a bool, or a number of guesses.
pub(super) fn speculation(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Speculation> {
    if let Ok(on) = object.cast::<pyo3::types::PyBool>() {
        return Ok(if on.is_true() {
            Speculation::Auto
        } else {
            Speculation::Off
        });
    }
    if let Ok(text) = object.cast::<PyString>() {
        return match text.to_cow()?.as_ref() {
            "auto" => Ok(Speculation::Auto),
            other => Err(invalid(format!(
                "{name} is {other:?}, expected \"auto\", False, or 1 to {MAX_GUESS}"
            ))),
        };
    }
    if object.is_none() {
        return Ok(Speculation::Off);
    }
    Ok(match int(name, object, 0, i128::from(u32::MAX))? {
        0 => Speculation::Off,
        n => Speculation::Fixed(n as usize),
    })
}

/// A number.
pub(super) fn float(name: &str, object: &Bound<'_, PyAny>) -> PyResult<f32> {
    if object.is_instance_of::<pyo3::types::PyBool>() || object.is_instance_of::<PyString>() {
        return Err(type_error(name, object, "float"));
    }
    match object.extract::<f64>() {
        Ok(x) if x.is_finite() && (x as f32).is_infinite() => {
            Err(invalid(format!("{name} is {x:e}, which is too large")))
        }
        Ok(x) => Ok(x as f32),
        Err(e) if e.is_instance_of::<PyOverflowError>(object.py()) => {
            Err(invalid(format!("{name} is too large for a float")))
        }
        Err(_) => Err(type_error(name, object, "float")),
    }
}

/// A list or tuple of token ids, or an array that can turn itself into one.
pub(super) fn ids(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let object = if !is_sequence(object) && object.hasattr("tolist")? {
        &object.call_method0("tolist")?
    } else {
        object
    };
    if !is_sequence(object) {
        return Err(type_error(name, object, "a list of token ids"));
    }
    object
        .try_iter()?
        .enumerate()
        .map(|(i, id)| {
            int(&format!("{name}[{i}]"), &id?, 0, i128::from(u32::MAX)).map(|n| n as u32)
        })
        .collect()
}

/// One string or a list of them.
pub(super) fn texts(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if object.is_instance_of::<PyString>() {
        return Ok(vec![text(name, object)?]);
    }
    if !is_sequence(object) {
        return Err(type_error(name, object, "str or a list of str"));
    }
    object
        .try_iter()?
        .enumerate()
        .map(|(i, s)| text(&format!("{name}[{i}]"), &s?))
        .collect()
}

/// A string, or a list of strings, ids and lists of ids.
pub(super) fn bad_words(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<BadWord>> {
    if object.is_instance_of::<PyString>() {
        return Ok(vec![BadWord::Text(text(name, object)?)]);
    }
    if !is_sequence(object) {
        return Err(type_error(
            name,
            object,
            "str or a list of str or token ids",
        ));
    }
    let word = |(i, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        let (name, item) = (format!("{name}[{i}]"), item?);
        if item.is_instance_of::<PyString>() {
            return text(&name, &item).map(BadWord::Text);
        }
        if is_int(&item) {
            let id = int(&name, &item, 0, i128::from(u32::MAX))?;
            return Ok(BadWord::Ids(vec![id as u32]));
        }
        if !is_sequence(&item) && !item.hasattr("tolist")? {
            return Err(type_error(&name, &item, "str, int or a list of token ids"));
        }
        ids(&name, &item).map(BadWord::Ids)
    };
    object.try_iter()?.enumerate().map(word).collect()
}

/// A number of tokens to look back on: -1 is all.
pub(super) fn last_n(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    int(name, object, -1, i128::from(u32::MAX)).map(|n| usize::try_from(n).ok())
}

/// A dict of token id to bias; ids may be strings, as JSON has them.
pub(super) fn biases(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, f32)>> {
    let Ok(dict) = object.cast::<PyMapping>() else {
        return Err(type_error(name, object, "a dict of token id to bias"));
    };
    // A copy: converting a key or a value may run Python code that changes the dict.
    dict.items()?
        .iter()
        .map(|pair| {
            let (id, bias): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let id = match id.extract::<String>() {
                Ok(digits) => digits.parse().map_err(|_| {
                    invalid(format!(
                        "{name} has the key {digits:?}, expected a token id"
                    ))
                })?,
                Err(_) => int(&format!("a key of {name}"), &id, 0, i128::from(u32::MAX))? as u32,
            };
            Ok((id, float(&format!("{name}[{id}]"), &bias)?))
        })
        .collect()
}

/// A list of messages, each a dict with a role and a content, and perhaps tools.
pub(super) fn messages(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<Message>> {
    if !is_sequence(object) {
        return Err(type_error(name, object, "a list of messages"));
    }
    object
        .try_iter()?
        .enumerate()
        .map(|(i, m)| message(&format!("{name}[{i}]"), &m?))
        .collect()
}

fn message(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Message> {
    let Ok(dict) = object.cast::<PyMapping>() else {
        return Err(type_error(
            name,
            object,
            "a message: a dict such as {\"role\": \"user\", \"content\": \"Hi\"}",
        ));
    };
    let field = |key: &str| {
        get(dict, key)?.ok_or_else(|| {
            invalid(format!(
                "{name} has no {key:?}, expected {{\"role\": \"user\", \"content\": \"Hi\"}}"
            ))
        })
    };
    if let Some(extra) = dict.keys()?.iter().find(|key| {
        !["role", "content", "tools"]
            .iter()
            .any(|known| key.eq(known).unwrap_or(false))
    }) {
        return Err(invalid(format!(
            "{name} has the key {}, expected only \"role\", \"content\" and \"tools\"",
            extra.repr()?
        )));
    }
    let role = text(&format!("{name}[\"role\"]"), &field("role")?)?;
    let content = field("content")?;
    let tools = match get(dict, "tools")? {
        None => None,
        Some(tools) if tools.is_none() => None,
        Some(tools) if tools.is_instance_of::<PyString>() => {
            Some(text(&format!("{name}[\"tools\"]"), &tools)?)
        }
        Some(tools) => {
            return Err(type_error(
                &format!("{name}[\"tools\"]"),
                &tools,
                "str, the JSON of the tools (json.dumps)",
            ));
        }
    };
    let name = format!("{name}[\"content\"]");
    // OpenAI's API also writes content as a list of parts.
    let content = if is_sequence(&content) {
        let parts = content
            .try_iter()?
            .enumerate()
            .map(|(i, part)| part_text(&format!("{name}[{i}]"), &part?));
        parts.collect::<PyResult<Vec<_>>>()?.concat()
    } else {
        text(&name, &content)?
    };
    Ok(Message {
        role,
        content,
        tools,
    })
}

fn get<'py>(mapping: &Bound<'py, PyMapping>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    if mapping.contains(key)? {
        mapping.get_item(key).map(Some)
    } else {
        Ok(None)
    }
}

fn part_text(name: &str, part: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(dict) = part.cast::<PyMapping>() else {
        return Err(type_error(name, part, "a dict"));
    };
    match get(dict, "text")? {
        Some(content) if get(dict, "type")?.is_none_or(|t| t.eq("text").unwrap_or(false)) => {
            text(name, &content)
        }
        _ => Err(invalid(format!(
            "{name} is not text: this model reads text only"
        ))),
    }
}

/// What a user may give as prompt.
pub(super) fn prompt(object: &Bound<'_, PyAny>, raw: bool) -> PyResult<Prompt> {
    if object.is_instance_of::<PyString>() {
        let text = text("prompt", object)?;
        return Ok(if raw {
            Prompt::Raw(text)
        } else {
            Prompt::Text(text)
        });
    }
    if object.is_instance_of::<PyBytes>() {
        return Err(type_error("prompt", object, "str (decode the bytes first)"));
    }
    let expected = "str, a list of messages or a list of token ids";
    if object.cast::<PyMapping>().is_ok() {
        return Err(type_error(
            "prompt",
            object,
            &format!("{expected} (put the message in a list)"),
        ));
    }
    if is_sequence(object) {
        let Some(first) = object.try_iter()?.next().transpose()? else {
            return Err(invalid(
                "the prompt is an empty list: there is nothing to continue".into(),
            ));
        };
        if first.cast::<PyMapping>().is_ok() {
            if raw {
                return Err(invalid(
                    "raw=True takes a str, and the prompt is a list of messages".into(),
                ));
            }
            return messages("prompt", object).map(Prompt::Messages);
        }
        if !is_int(&first) {
            return Err(type_error(
                "prompt[0]",
                &first,
                "a message (dict) or a token id (int)",
            ));
        }
    } else if !object.hasattr("tolist")? {
        return Err(type_error("prompt", object, expected));
    }
    ids("prompt", object).map(Prompt::Ids)
}
