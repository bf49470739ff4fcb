//! A grammar and the text so far: which tokens may come next.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::earley::Parser;
use llguidance::panic_utils;
use llguidance::toktrie::SimpleVob;

use super::closing::Closing;
use super::{Calls, Compiled, Constraint, Grammars};
use crate::error::{Error, Result};

/// A grammar and the text so far.
pub struct Matcher {
    grammars: Arc<Grammars>,
    parser: Parser,
    // How the text can end, where that is known
    closing: Option<Box<Closing>>,
    // Any text will do, and none is ever complete
    open: bool,
    at_start: bool,
    // Tokens that may come next
    allowed: SimpleVob,
    accepting: bool,
    ends: Vec<u32>,
    n_bytes: usize,
    done: bool,
}

impl Matcher {
    /// At the beginning of a text.
    pub(super) fn new(
        grammars: Arc<Grammars>,
        compiled: Compiled,
        at_start: bool,
        constraint: &Constraint,
    ) -> Result<Self> {
        let name = constraint.name();
        let mut matcher = Self {
            allowed: grammars.tokens.tok_trie().alloc_token_set(),
            ends: grammars.ends.clone(),
            grammars,
            parser: compiled.parser,
            closing: compiled.closing,
            open: matches!(constraint, Constraint::Calls(Calls { or_text: true, .. })),
            at_start,
            accepting: false,
            n_bytes: 0,
            done: false,
        };
        matcher.look(name)?;
        if matcher.done {
            return Err(Error::InvalidRequest(format!(
                "{name} matches no text but the empty one"
            )));
        }
        Ok(matcher)
    }

    /// Takes the tokens that may not come next away: their logits become -inf.
    pub fn mask(&self, logits: &mut [f32]) {
        let n = self.grammars.tokens.tok_trie().vocab_size();
        for (id, logit) in logits.iter_mut().enumerate() {
            let id = id as u32;
            let allowed = (id as usize) < n && self.allowed.is_allowed(id);
            if !(allowed || self.accepting && self.ends.contains(&id)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Further tokens that end the text where the grammar accepts it.
    pub fn add_ends(&mut self, ids: impl Iterator<Item = u32>) {
        self.ends.extend(ids);
    }

    /// Takes in a chosen token. After an end token, or when only the end can follow, [`Self::is_done`].
    ///
    /// # Errors
    /// `InvalidRequest` when the grammar has become too complex, or nothing of the vocabulary can follow.
    pub fn push(&mut self, id: u32) -> Result<()> {
        if self.ends.contains(&id) {
            self.done = true;
            return Ok(());
        }
        let grammars = self.grammars.clone();
        let bytes = grammars.bytes(id, self.at_start);
        if let Some(closing) = &mut self.closing {
            closing.push(id, bytes);
        }
        self.n_bytes += bytes.len();
        self.at_start = false;
        let pushed =
            panic_utils::catch_unwind(AssertUnwindSafe(|| self.parser.apply_token(bytes, id)));
        pushed.map_err(|e| self.stuck("the text", &e))?;
        self.look("the text")
    }

    /// Whether the text is complete and nothing can follow.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the text is complete as it is: for the end of a budget. Where any text will do, that says nothing.
    pub fn is_complete(&self) -> bool {
        self.done || self.accepting && !self.open
    }

    /// Whether the text can be completed with at most `left` tokens after `id`, as far as that is known.
    pub fn fits(&mut self, id: u32, left: usize) -> bool {
        let Some(closing) = &mut self.closing else {
            return true;
        };
        let bytes = self.grammars.bytes(id, self.at_start);
        self.ends.contains(&id) || closing.fits(id, bytes, left, &self.grammars.spelling())
    }

    /// The first of at most `left` tokens that complete the text, if such are known. Where it is complete as it is, an
    /// end token.
    pub fn toward_end(&mut self, left: usize) -> Option<u32> {
        let spelling = self.grammars.spelling();
        let ending = self
            .closing
            .as_mut()?
            .ending(left, self.at_start, &spelling)?;
        ending.first().or(self.ends.first()).copied()
    }

    /// Whether the chart and llguidance's say the same of the text.
    #[cfg(test)]
    pub(super) fn charts_agree(&mut self) -> bool {
        let closing = self.closing.as_mut();
        closing.is_none_or(|closing| closing.is_complete() == Some(self.accepting))
    }

    /// Finds out what may come next.
    fn look(&mut self, name: &str) -> Result<()> {
        let looked = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let grammars = &self.grammars;
            let mut allowed = self.parser.compute_bias(&grammars.slices, b"");
            if self.at_start && !grammars.altered.is_zero() {
                let anything = !allowed.is_zero();
                allowed.sub(&grammars.altered);
                if anything {
                    // A lone space, which is dropped: what follows begins the text as it is.
                    allowed.or(&grammars.silent);
                }
                // The state is the same, and the tokens are others.
                self.parser.invalidate_bias_cache();
                allowed.or(&self.parser.compute_bias(&grammars.first, b""));
                self.parser.invalidate_bias_cache();
            }
            let error = self.parser.get_error().map(|e| e.message());
            Ok((allowed, self.parser.is_accepting(), error))
        }));
        let (allowed, accepting, error) = looked.map_err(|e| self.stuck(name, &e))?;
        if let Some(error) = error {
            return Err(self.stuck(name, &error));
        }
        self.allowed = allowed;
        self.accepting = accepting;
        if self.allowed.is_zero() {
            if !accepting {
                return Err(self.stuck(name, &"no token of this model's vocabulary can follow"));
            }
            self.done = true;
        }
        Ok(())
    }

    fn stuck(&self, name: &str, cause: &dyn std::fmt::Display) -> Error {
        let cause = cause.to_string();
        let cause = cause.split("\n<").next().unwrap_or_default();
        Error::InvalidRequest(if self.n_bytes == 0 {
            format!("{name} cannot be used: {cause}, at the very start")
        } else {
            format!(
                "{name} cannot go on as its grammar demands after {} bytes: {cause}",
                self.n_bytes
            )
        })
    }
}
