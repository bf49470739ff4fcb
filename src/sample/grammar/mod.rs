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

mod schema;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::perf::ParserPerfCounters;
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer, SlicedBiasComputer};
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Logger, panic_utils, regex_to_lark};

use self::schema::Schemas;
use crate::error::{Error, Result};

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// The JSON of a JSON Schema.
    Schema(String),
    /// A regular expression, which the whole text matches.
    Regex(String),
    /// A Lark grammar.
    Lark(String),
    /// Calls of functions.
    Calls(Calls),
}

/// Calls as a JSON list, `[{"name": ..., "arguments": {...}}, ...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// Names of functions, and the JSON Schemas of their arguments.
    pub functions: Vec<(String, String)>,
    /// What goes before the list.
    pub prefix: String,
    /// Whether the text may be something else: one that does not begin with the prefix and `[`.
    pub or_text: bool,
}

/// Bytes of a regular expression or grammar.
const MAX_BYTES: usize = 1 << 17;
/// Brackets in brackets.
const MAX_NESTING: usize = 100;
/// Rules of a grammar.
const MAX_RULES: usize = 2000;
/// Longest token, in bytes; longer ones are never chosen.
const MAX_TOKEN: usize = 500;
/// Virtual memory, touched only as deep as rules refer to each other.
const STACK_BYTES: usize = 256 << 20;
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
    // Tokens that have a place in a text, those with other bytes at its start, those with none there, and the bytes
    text: SimpleVob,
    altered: SimpleVob,
    silent: SimpleVob,
    first: First,
    ends: Vec<u32>,
    kept: Mutex<Vec<(Constraint, Parser)>>,
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
            let set = |has: &dyn Fn(usize) -> bool| {
                let mut set = trie.alloc_token_set();
                (0..n)
                    .filter(|&id| has(id))
                    .for_each(|id| set.allow_token(id as u32));
                set
            };
            let text = set(&|id| !words[id].is_empty());
            let (mut altered, mut silent) = (trie.alloc_token_set(), trie.alloc_token_set());
            for (id, bytes) in &table.first {
                altered.allow_token(*id);
                if bytes.is_empty() {
                    silent.allow_token(*id);
                }
            }
            let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::new(&tokens, &SlicedBiasComputer::json_slices())?;
            Ok(Self {
                tokens,
                slices,
                text,
                altered,
                silent,
                first: First(first),
                ends: table.ends.clone(),
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
        let parser = match self.kept(constraint) {
            Some(parser) => parser,
            None => self.compile(constraint)?,
        };
        let mut matcher = Matcher {
            grammars: self.clone(),
            parser,
            at_start,
            allowed: self.text.clone(),
            accepting: false,
            ends: self.ends.clone(),
            n_bytes: 0,
            done: false,
        };
        matcher.look(constraint.name())?;
        if matcher.done {
            return Err(Error::InvalidRequest(format!(
                "{} matches no text but the empty one",
                constraint.name()
            )));
        }
        Ok(matcher)
    }

    fn kept(&self, constraint: &Constraint) -> Option<Parser> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(other, _)| other == constraint)?;
        Some(found.1.deep_clone())
    }

    fn compile(&self, constraint: &Constraint) -> Result<Parser> {
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
            if grammar.lexer_spec().has_stop {
                return Err(Error::InvalidRequest(
                    "the grammar has `stop`, whose text would have to be taken back: write `suffix`".into(),
                ));
            }
            if grammar.lexer_spec().has_temperature {
                return Err(Error::InvalidRequest(
                    "the grammar has `temperature`, expected it as the argument of that name"
                        .into(),
                ));
            }
            let counters = Arc::new(ParserPerfCounters::default());
            Parser::new(self.tokens.clone(), grammar, limits, counters)
                .map_err(|e| constraint.wrong(&e))
        };
        let guarded = || {
            panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(build())))
                .unwrap_or_else(|panic| Err(constraint.wrong(&panic)))
        };
        let parser = std::thread::scope(|scope| {
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
        kept.push((constraint.clone(), parser.deep_clone()));
        Ok(parser)
    }
}

/// A mask takes a hundred milliseconds at most, and a grammar a hundred megabytes.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

impl Constraint {
    /// What messages call it.
    fn name(&self) -> &'static str {
        match self {
            Self::Schema(_) => "json_schema",
            Self::Regex(_) => "regex",
            Self::Lark(_) => "grammar",
            Self::Calls(_) => "tools",
        }
    }

    fn wrong(&self, cause: &dyn std::fmt::Display) -> Error {
        let cause = cause.to_string();
        // A panic's backtrace and a parser's state say nothing to the user.
        let cause = cause.split("\n<").next().unwrap_or_default().trim_end();
        // A regular expression is shown as it was given, not as part of a grammar.
        let cause = match (self, cause.split_once("regex parse error:")) {
            (Self::Regex(_), Some((_, shown))) => {
                shown.split("\n   1 |").next().unwrap_or_default()
            }
            _ => cause,
        };
        let cause = match cause {
            c if c.contains("oneOf constraints are not supported") => {
                "the alternatives of a `oneOf` cannot be told apart by their types or by a required property with \
                 different constants; write anyOf"
            }
            c if c.starts_with("initial lexer configuration") || c.contains("fuel") => {
                "it is too complex: shorten it, or lower the numbers in it"
            }
            c => c,
        };
        Error::InvalidRequest(format!("{} cannot be used: {cause}", self.name()))
    }

    fn grammar(&self) -> Result<TopLevelGrammar> {
        match self {
            Self::Schema(text) => {
                let mut schemas = Schemas::default();
                let schema = schemas.add("json_schema", text)?;
                Ok(TopLevelGrammar::from_json_schema(schemas.whole(schema)))
            }
            Self::Regex(regex) => {
                check_size("regex", regex)?;
                Ok(TopLevelGrammar::from_lark(format!(
                    "start: /{}/",
                    regex_to_lark(unanchored(regex), "")
                )))
            }
            Self::Lark(text) => {
                check_size("grammar", text)?;
                Ok(TopLevelGrammar::from_lark(with_checked_schemas(text)?))
            }
            Self::Calls(calls) => calls.grammar(),
        }
    }
}

impl Calls {
    fn grammar(&self) -> Result<TopLevelGrammar> {
        let mut schemas = Schemas::default();
        let calls: Result<Vec<_>> = self
            .functions
            .iter()
            .map(|(name, text)| {
                let arguments =
                    schemas.add(&format!("the parameters of the tool `{name}`"), text)?;
                Ok(serde_json::json!({
                    "type": "object",
                    "properties": {"name": {"const": name}, "arguments": arguments},
                    "required": ["name", "arguments"],
                    "additionalProperties": false,
                }))
            })
            .collect();
        let list = schemas
            .whole(serde_json::json!({"type": "array", "items": {"anyOf": calls?}, "minItems": 1}));
        let prefix = &self.prefix;
        // Prefixes are ours: letters, or nothing.
        let start = match (self.or_text, prefix.is_empty()) {
            (true, _) => format!(
                "start: \"{prefix}\" @calls | TEXT\nTEXT: ~/\\s*{prefix}\\[(?s:.*)/ & /(?s:.*)/"
            ),
            (false, false) => format!("start: \"{prefix}\" @calls"),
            (false, true) => return Ok(TopLevelGrammar::from_json_schema(list)),
        };
        let start = start.replace("\"\" ", "");
        let mut calls = GrammarWithLexer::from_json_schema(list);
        calls.name = Some("calls".into());
        Ok(TopLevelGrammar {
            grammars: vec![GrammarWithLexer::from_lark(start), calls],
            max_tokens: None,
        })
    }
}

/// Bounds what recursion and memory depend on before llguidance sees it.
fn check_size(name: &str, text: &str) -> Result<()> {
    let wrong = |found: String, expected: String| {
        Err(Error::InvalidRequest(format!(
            "{name} has {found}, expected at most {expected}"
        )))
    };
    if text.len() > MAX_BYTES {
        return wrong(format!("{} bytes", text.len()), MAX_BYTES.to_string());
    }
    if text.trim().is_empty() {
        return Err(Error::InvalidRequest(format!(
            "{name} is empty, expected something to match"
        )));
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_NESTING {
        return wrong(
            format!("{deepest} brackets in each other"),
            MAX_NESTING.to_string(),
        );
    }
    let rules = text.bytes().filter(|&b| b == b':').count();
    if name == "grammar" && rules > MAX_RULES {
        return wrong(format!("{rules} rules"), MAX_RULES.to_string());
    }
    Ok(())
}

/// Without the anchors at its ends, which say what is so anyway and which llguidance does not know.
fn unanchored(regex: &str) -> &str {
    let regex = regex
        .strip_prefix('^')
        .or_else(|| regex.strip_prefix("\\A"))
        .unwrap_or(regex);
    let escaped = |rest: &str| rest.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
    for end in ["$", "\\Z", "\\z"] {
        match regex.strip_suffix(end) {
            Some(rest) if !escaped(rest) => return rest,
            _ => {}
        }
    }
    regex
}

/// The grammar with the schemas of its `%json` as they are handed over from elsewhere, too.
fn with_checked_schemas(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("%json") {
        let (before, after) = rest.split_at(at + "%json".len());
        out.push_str(before);
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<serde_json::Value>();
        match values.next() {
            Some(Ok(schema)) if schema.is_object() => {
                let line = 1 + text[..text.len() - after.len()].matches('\n').count();
                let mut schemas = Schemas::default();
                let checked = schemas.add(
                    &format!("the %json of the grammar's line {line}"),
                    &schema.to_string(),
                )?;
                out.push(' ');
                out.push_str(&schemas.whole(checked).to_string());
                rest = &after[values.byte_offset()..];
            }
            // In a string or a comment, or an error that llguidance names.
            _ => rest = after,
        }
    }
    out.push_str(rest);
    Ok(out)
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

/// A grammar and the text so far.
pub struct Matcher {
    grammars: Arc<Grammars>,
    parser: Parser,
    at_start: bool,
    // Tokens that may come next
    allowed: SimpleVob,
    accepting: bool,
    ends: Vec<u32>,
    n_bytes: usize,
    done: bool,
}

impl Matcher {
    /// Takes the tokens that may not come next away: their logits become -inf.
    pub fn mask(&self, logits: &mut [f32]) {
        let n = self.grammars.tokens.tok_trie().vocab_size();
        for (id, logit) in logits.iter_mut().enumerate() {
            let id = id as u32;
            let allowed = (id as usize) < n && self.allowed.is_allowed(id);
            if !allowed && !(self.accepting && self.ends.contains(&id)) {
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
        let altered = self.at_start && grammars.altered.is_allowed(id);
        let trie = if altered {
            grammars.first.trie()
        } else {
            grammars.tokens.tok_trie()
        };
        let bytes = trie.token(id);
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

    /// Finds out what may come next.
    fn look(&mut self, name: &str) -> Result<()> {
        let looked = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let grammars = &self.grammars;
            let mut allowed = self.parser.compute_bias(&grammars.slices, b"");
            if self.at_start && !grammars.altered.is_zero() {
                let anything = !allowed.and_is_zero(&grammars.text);
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
            // A grammar may name tokens by number.
            allowed.and(&grammars.text);
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
