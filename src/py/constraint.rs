//! What the Python side makes of `json_schema`, `regex`, `grammar` and `tools`, as the core has it.

use pyo3::prelude::*;

use super::convert;
use super::errors::invalid;
use crate::sample::{Calls, Constraint};

/// A pair: the argument's name and its text, or `"tools"` and (prefix, whether text may come instead, (name, schema)s).
pub(super) fn constraint(object: &Bound<'_, PyAny>) -> PyResult<Constraint> {
    let (name, value): (String, Bound<'_, PyAny>) = object.extract()?;
    Ok(match name.as_str() {
        "json_schema" => Constraint::Schema(convert::text(&name, &value)?),
        "regex" => Constraint::Regex(convert::text(&name, &value)?),
        "grammar" => Constraint::Lark(convert::text(&name, &value)?),
        "tools" => {
            let (prefix, or_text, functions) = value.extract()?;
            Constraint::Calls(Calls {
                functions,
                prefix,
                or_text,
            })
        }
        other => return Err(invalid(format!("no constraint is called {other:?}"))),
    })
}
