//! GGUF metadata: typed values, and getters that name the key when the type is not the expected one.

use crate::error::{Error, Result};

/// A metadata value. Integers of all widths are widened, since writers disagree on widths.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type.
    Int(i128),
    /// `f32` or `f64`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    Str(String),
    /// A homogeneous array.
    Array(Array),
}

/// An array, stored compactly by element type.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Any integer type, or booleans as 0 and 1.
    Int(Vec<i64>),
    /// `f32` or `f64`.
    Float(Vec<f32>),
    /// UTF-8 texts.
    Str(Vec<String>),
    /// Arrays in an array.
    Nested(Vec<Array>),
}

impl Value {
    /// What this is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Str(_) => "a string",
            Self::Array(Array::Int(_)) => "an array of integers",
            Self::Array(Array::Float(_)) => "an array of floats",
            Self::Array(Array::Str(_)) => "an array of strings",
            Self::Array(Array::Nested(_)) => "an array of arrays",
        }
    }
}

/// The value as a person would write it; of an array only what it holds.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Str(s) => write!(f, "{:?}", s.chars().take(64).collect::<String>()),
            Self::Array(_) => f.write_str(self.kind()),
        }
    }
}

/// The key-value pairs of a file, in the file's order.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: std::collections::HashMap<String, usize>,
}

impl Metadata {
    /// Adds a pair; a key that is already there is an error.
    pub fn insert(&mut self, key: String, value: Value) -> Result<()> {
        if self.index.insert(key.clone(), self.entries.len()).is_some() {
            return Err(Error::ModelFormat(format!(
                "metadata key `{key}` appears twice"
            )));
        }
        self.entries.push((key, value));
        Ok(())
    }

    /// All pairs, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// An integer in `0..=u32::MAX`, or `None` when the key is absent.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => u32::try_from(*n).map(Some).map_err(|_| {
                Error::ModelFormat(format!(
                    "metadata key `{key}` is {n}, expected an integer from 0 to {}",
                    u32::MAX
                ))
            }),
            Some(other) => Err(wrong(key, other, "an integer")),
        }
    }

    /// A number, or `None` when the key is absent.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x as f32)),
            Some(Value::Int(n)) => Ok(Some(*n as f32)),
            Some(other) => Err(wrong(key, other, "a number")),
        }
    }

    /// A boolean, or `None` when the key is absent.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(wrong(key, other, "a boolean")),
        }
    }

    /// A string, or `None` when the key is absent.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(s)) => Ok(Some(s)),
            Some(other) => Err(wrong(key, other, "a string")),
        }
    }

    /// An array of strings, or `None` when the key is absent.
    pub fn strs(&self, key: &str) -> Result<Option<&[String]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Str(v))) => Ok(Some(v)),
            Some(other) => Err(wrong(key, other, "an array of strings")),
        }
    }

    /// An array of floats, or `None` when the key is absent.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Float(v))) => Ok(Some(v)),
            Some(other) => Err(wrong(key, other, "an array of floats")),
        }
    }

    /// An array of integers, or `None` when the key is absent.
    pub fn ints(&self, key: &str) -> Result<Option<&[i64]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Int(v))) => Ok(Some(v)),
            Some(other) => Err(wrong(key, other, "an array of integers")),
        }
    }
}

fn wrong(key: &str, found: &Value, expected: &str) -> Error {
    Error::ModelFormat(format!(
        "metadata key `{key}` is {}, expected {expected}",
        found.kind()
    ))
}
