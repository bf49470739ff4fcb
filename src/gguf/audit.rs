//! The audit: which names of a file take part in the result, which change nothing, and which must not be there.
//!
//! The tables of names are where they are read, in `model/` and `text/`; a name that is in no table is refused
//! too, since a file that needs something this package does not do must not load and talk nonsense.

use super::metadata::{Metadata, Value};
use crate::error::{Error, Result};

/// What a metadata key means to this package.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning {
    /// It takes part in the result.
    Used,
    /// It changes nothing: a description, or a duplicate of what is checked elsewhere.
    Harmless,
    /// It changes nothing as long as it has this value, and is refused otherwise.
    Off(Neutral),
    /// It belongs to something that this package does not do.
    Refused(&'static str),
}

/// A value that switches off what a key is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Neutral {
    /// This number, be it written as an integer or as a float.
    Number(f64),
    /// This boolean.
    Bool(bool),
    /// This text.
    Text(&'static str),
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number(x), Value::Int(n)) => *n as f64 == x,
            (Self::Number(x), Value::Float(y)) => *y == x,
            (Self::Bool(x), Value::Bool(y)) => *y == x,
            (Self::Text(x), Value::Str(y)) => y == x,
            _ => false,
        }
    }
}

impl std::fmt::Display for Neutral {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(x) => write!(f, "{x}"),
            Self::Bool(x) => write!(f, "{x}"),
            Self::Text(x) => write!(f, "`{x}`"),
        }
    }
}

/// What became of the keys and tensors of a file, in the file's order; the tensors of all blocks count as one,
/// such as `blk.*.attn_qkv.weight`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// They take part in the result.
    pub used: Vec<String>,
    /// They change nothing.
    pub harmless: Vec<String>,
}

impl Audit {
    /// Sorts the keys that begin with `prefix` by what `meaning` says of the rest of their names.
    ///
    /// # Errors
    /// `Unsupported`, naming the key, for one that `meaning` does not know or refuses.
    pub fn of_keys(
        metadata: &Metadata,
        prefix: &str,
        meaning: impl Fn(&str) -> Option<Meaning>,
    ) -> Result<Self> {
        let mut audit = Self::default();
        for (key, value) in metadata.iter() {
            let Some(name) = key.strip_prefix(prefix) else {
                continue;
            };
            match meaning(name) {
                Some(Meaning::Used) => audit.used.push(key.into()),
                Some(Meaning::Harmless) => audit.harmless.push(key.into()),
                Some(Meaning::Off(neutral)) if neutral.is(value) => audit.harmless.push(key.into()),
                Some(Meaning::Off(neutral)) => {
                    return Err(Error::Unsupported(format!(
                        "metadata key `{key}` is {value}, and only {neutral} (off) is supported"
                    )));
                }
                Some(Meaning::Refused(what)) => {
                    return Err(Error::Unsupported(format!(
                        "metadata key `{key}` asks for {what}, which is not supported"
                    )));
                }
                None => {
                    return Err(Error::Unsupported(format!(
                        "metadata key `{key}` is not known and may change the result: a newer candlewick may know it"
                    )));
                }
            }
        }
        Ok(audit)
    }

    /// Counts a tensor as used.
    pub fn use_tensor(&mut self, name: &str) {
        let name = match name.strip_prefix("blk.").and_then(|n| n.split_once('.')) {
            Some((_, rest)) => format!("blk.*.{rest}"),
            None => name.to_owned(),
        };
        if !self.used.contains(&name) {
            self.used.push(name);
        }
    }

    /// Adds the findings of another part of the file.
    pub fn extend(&mut self, other: Self) {
        self.used.extend(other.used);
        self.harmless.extend(other.harmless);
    }
}
