//! `candlewick._native.Tokenizer`: text to ids and back.

use std::sync::Arc;

use pyo3::prelude::*;

use super::convert;
use super::errors::guard;
use crate::text;

/// The vocabulary of a model. Public as `gen.tokenizer`.
#[pyclass(frozen, module = "candlewick._native")]
pub struct Tokenizer(Arc<text::Tokenizer>);

impl Tokenizer {
    pub(super) fn new(inner: Arc<text::Tokenizer>) -> Self {
        Self(inner)
    }
}

#[pymethods]
impl Tokenizer {
    /// Token ids of `text`; special tokens written in it are recognised.
    #[pyo3(signature = (text, *, add_special_tokens = false))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        add_special_tokens: bool,
    ) -> PyResult<Vec<u32>> {
        let text = convert::text("text", text)?;
        let ids = py.detach(|| {
            guard(|| {
                if add_special_tokens {
                    self.0.encode_prompt(&text)
                } else {
                    self.0.encode(&text)
                }
            })
        })?;
        Ok(ids)
    }

    /// The text of `ids`; invalid bytes become U+FFFD.
    #[pyo3(signature = (ids, *, skip_special_tokens = true))]
    fn decode(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
    ) -> PyResult<String> {
        let ids = convert::ids("ids", ids)?;
        Ok(py.detach(|| guard(|| self.0.decode(&ids, skip_special_tokens)))?)
    }

    /// What a stream gives for each of `ids` after `prompt`, and at its end. For tests of the detokenizer.
    fn _deltas(&self, prompt: Vec<u32>, ids: Vec<u32>) -> Vec<String> {
        let mut detokenizer = text::Detokenizer::new(self.0.clone(), &prompt);
        let mut deltas: Vec<String> = ids.into_iter().map(|id| detokenizer.push(id)).collect();
        deltas.push(detokenizer.finish());
        deltas
    }

    /// Tokens in the vocabulary.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    /// The ids that end a text.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.0.eos_ids().to_vec()
    }

    /// The id that begins a text, or `None`.
    #[getter]
    fn bos_token_id(&self) -> Option<u32> {
        self.0.bos()
    }

    fn __len__(&self) -> usize {
        self.0.vocab_size()
    }

    fn __repr__(&self) -> String {
        format!("Tokenizer(vocab_size={})", self.0.vocab_size())
    }
}
