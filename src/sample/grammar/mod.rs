//! Texts that must match a JSON Schema, a regular expression or a grammar: which tokens may come next.
//!
//! llguidance knows which bytes may follow those so far; here that meets a vocabulary. A token is judged by the bytes
//! that it adds to the *decoded* text, so the first token, which may lose its leading space, has a table of its own.
//! Tokens without text (control tokens, padding) never match; those that end a text may come where the grammar
//! accepts what there is. Tokens are chosen by the model, one at a time: where the grammar leaves one way only, it
//! is still the model that cuts it into tokens.
//!
//! Grammars come from users, so building one is bounded in time and memory and happens on a thread with a stack of
//! its own: llguidance recurses as deep as rules refer to each other.

mod closing;
mod constraint;
mod document;
mod laws;
mod matcher;
mod schema;
mod spelling;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::earley::perf::ParserPerfCounters;
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer, SlicedBiasComputer};
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Logger, panic_utils};

use self::closing::{Closing, Ends};
pub use self::constraint::{Calls, Constraint};
pub use self::matcher::Matcher;
use self::spelling::Spelling;
use crate::error::{Error, Result};

/// Longest token, in bytes; longer ones are never chosen.
const MAX_TOKEN: usize = 500;
/// Virtual memory, touched only as deep as rules refer to each other.
const STACK_BYTES: usize = 128 << 20;
/// Compiled grammars that are kept for the next request.
const N_KEPT: usize = 8;

/// The bytes of a vocabulary's tokens.
#[derive(Debug, Default)]
pub struct TokenTable {
    /// By id: what the token adds to a text; empty for those that have no place in one.
    pub bytes: Vec<Box<[u8]>>,
    /// The ids whose bytes are others at the start of a text, and those.
    pub first: Vec<(u32, Box<[u8]>)>,
    /// The ids that end a text.
    pub ends: Vec<u32>,
}

/// The tokens that begin a text differently than they go on in one.
struct First(TokTrie);

impl BiasComputer for First {
    fn compute_bias(&self, rec: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut set = self.0.alloc_token_set();
        self.0.add_bias(rec, &mut set, start);
        set
    }

    fn trie(&self) -> &TokTrie {
        &self.0
    }
}

/// A vocabulary, ready for any number of grammars.
pub struct Grammars {
    tokens: TokEnv,
    slices: SlicedBiasComputer,
    // Tokens with other bytes at the start of a text, those with none there, and the bytes there
    altered: SimpleVob,
    silent: SimpleVob,
    first: First,
    ends: Vec<u32>,
    // Whether a byte is a token
    has_token: [bool; 256],
    kept: Mutex<Vec<(Constraint, Compiled)>>,
}

/// A grammar at the beginning of a text.
struct Compiled {
    parser: Parser,
    closing: Option<Box<Closing>>,
}

impl Grammars {
    /// Sorts the tokens.
    pub fn new(mut table: TokenTable) -> Result<Self> {
        let n = table.bytes.len();
        for &id in &table.ends {
            table.bytes[id as usize] = Box::default();
        }
        let usable = |bytes: &[u8]| {
            // 0xFF is in no character, and marks special tokens to toktrie.
            if bytes.len() > MAX_TOKEN || bytes.first() == Some(&0xFF) {
                Vec::new()
            } else {
                bytes.to_vec()
            }
        };
        let words: Vec<Vec<u8>> = table.bytes.iter().map(|b| usable(b)).collect();
        let mut first_words = vec![Vec::new(); n];
        for (id, bytes) in &table.first {
            if !words[*id as usize].is_empty() {
                first_words[*id as usize] = usable(bytes);
            }
        }
        // llguidance is told of no end: `Matcher` adds those where the grammar accepts.
        let info = TokRxInfo::new(n as u32, INVALID_TOKEN);
        let guarded = || {
            let trie = TokTrie::from(&info, &words);
            let first = TokTrie::from(&info, &first_words);
            let (mut altered, mut silent) = (trie.alloc_token_set(), trie.alloc_token_set());
            for (id, bytes) in &table.first {
                altered.allow_token(*id);
                if bytes.is_empty() {
                    silent.allow_token(*id);
                }
            }
            let has_token = std::array::from_fn(|byte| trie.token_id(&[byte as u8]).is_some());
            let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::new(&tokens, &SlicedBiasComputer::json_slices())?;
            Ok(Self {
                tokens,
                slices,
                altered,
                silent,
                first: First(first),
                ends: table.ends.clone(),
                has_token,
                kept: Mutex::default(),
            })
        };
        panic_utils::catch_unwind(AssertUnwindSafe(guarded)).map_err(|e| {
            Error::Engine(format!("the vocabulary cannot be sorted for grammars: {e}"))
        })
    }

    /// Begins a text. `at_start` says that its first token loses a leading space.
    ///
    /// # Errors
    /// `InvalidRequest` for a grammar that is broken, too large, or that no text of this vocabulary matches.
    pub fn matcher(self: &Arc<Self>, constraint: &Constraint, at_start: bool) -> Result<Matcher> {
        let compiled = match self.kept(constraint) {
            Some(compiled) => compiled,
            None => self.compile(constraint)?,
        };
        Matcher::new(self.clone(), compiled, at_start, constraint)
    }

    /// What a token adds to a text.
    fn bytes(&self, id: u32, at_start: bool) -> &[u8] {
        let altered = at_start && self.altered.is_allowed(id);
        let trie = if altered {
            self.first.trie()
        } else {
            self.tokens.tok_trie()
        };
        trie.token(id)
    }

    fn spelling(&self) -> Spelling<'_> {
        Spelling {
            tokens: self.tokens.tok_trie(),
            altered: &self.altered,
            first: &self.first.0,
        }
    }

    fn kept(&self, constraint: &Constraint) -> Option<Compiled> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(other, _)| other == constraint)?;
        Some(found.1.copy())
    }

    fn compile(&self, constraint: &Constraint) -> Result<Compiled> {
        let build = || {
            let limits = limits();
            let grammar = GrammarInit::Serialized(constraint.grammar()?)
                .to_cgrammar(
                    Some(self.tokens.clone()),
                    &mut Logger::new(0, 0),
                    limits.clone(),
                    SlicedBiasComputer::json_slices(),
                )
                .map_err(|e| constraint.wrong(&e))?;
            let spec = grammar.lexer_spec();
            let n = self.tokens.tok_trie().vocab_size() as u32;
            if (0..n).any(|id| spec.lexemes.iter().any(|l| l.contains_token(id))) {
                return Err(Error::InvalidRequest(
                    "the grammar names tokens by number, expected text: how it is cut into tokens is the model's choice".into(),
                ));
            }
            if spec.has_stop {
                return Err(Error::InvalidRequest(
                    "the grammar has `stop`, whose text would have to be taken back: write `suffix`".into(),
                ));
            }
            let closing = match Closing::of(&grammar, limits.clone(), &self.has_token) {
                Ends::Known(closing) => Some(closing),
                Ends::Unknown => None,
                Ends::Never => return Err(constraint.wrong(&"no text that `start` derives has an end, because of rules that always need themselves again")),
            };
            let counters = Arc::new(ParserPerfCounters::default());
            let parser = Parser::new(self.tokens.clone(), grammar, limits, counters)
                .map_err(|e| constraint.wrong(&e))?;
            Ok(Compiled { parser, closing })
        };
        let guarded = || {
            panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(build())))
                .unwrap_or_else(|panic| Err(constraint.wrong(&panic)))
        };
        let compiled = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("candlewick-grammar".into())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, guarded)
                .map_err(|e| Error::Engine(format!("no thread for building a grammar: {e}")))?
                .join()
                .unwrap_or_else(|_| {
                    Err(Error::Engine(
                        "building a grammar ended without a word".into(),
                    ))
                })
        })?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= N_KEPT {
            kept.remove(0);
        }
        kept.push((constraint.clone(), compiled.copy()));
        Ok(compiled)
    }
}

impl Compiled {
    /// One that shares nothing that changes.
    fn copy(&self) -> Self {
        Self {
            parser: self.parser.deep_clone(),
            closing: self.closing.clone(),
        }
    }
}

/// A mask takes a hundred milliseconds at most, and a grammar a hundred megabytes.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_items_in_row: 6_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Grammars({} tokens)",
            self.tokens.tok_trie().vocab_size()
        )
    }
}

#[cfg(test)]
mod tests;
