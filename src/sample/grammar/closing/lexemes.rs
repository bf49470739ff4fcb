//! Lexemes as automata over bytes, as llguidance's lexer runs them, and the shortest way to the end of each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ahash::{AHashMap, AHashSet};
use llguidance::api::ParserLimits;
use llguidance::earley::lexerspec::{LexemeIdx, LexerSpec};
use llguidance::earley::regexvec::{LexemeSet, MatchingLexemes, NextByte, RegexVec, StateID};

use super::rules::{Cost, NEVER, UNKNOWN, add};

/// States that one search looks at.
const MAX_STATES: usize = 4_000;
/// A byte that no token consists of comes in a larger token, if at all.
const WITHOUT_TOKEN: Cost = 16;

/// The way to the end of a lexeme from a state: the next byte, and the state after it unless the lexeme ends with it.
#[derive(Debug, Clone, Copy)]
struct Step {
    cost: Cost,
    next: Option<(u8, Option<StateID>)>,
}

/// What a byte does.
pub(super) enum Advance {
    Into(StateID),
    /// With the byte, these lexemes end.
    Ends(MatchingLexemes),
    /// These have ended, and the byte belongs to what follows.
    Ended(MatchingLexemes),
    Nowhere,
}

/// The lexemes of a grammar.
#[derive(Clone)]
pub(super) struct Lexemes {
    dfa: RegexVec,
    fuel: u64,
    none: LexemeSet,
    skips: Vec<LexemeIdx>,
    // Of bytes that the lexemes do not tell apart, the one to write, and its cost
    bytes: Vec<(u8, Cost)>,
    steps: AHashMap<(StateID, LexemeIdx), Step>,
    searched: AHashSet<StateID>,
}

impl Lexemes {
    /// `None` when they are too complex. `has_token` says which bytes are a token.
    pub(super) fn new(
        spec: &LexerSpec,
        mut limits: ParserLimits,
        has_token: &[bool; 256],
    ) -> Option<Self> {
        let mut dfa = spec.to_regex_vec(&mut limits).ok()?;
        dfa.set_fuel(limits.initial_lexer_fuel);
        dfa.set_max_states(limits.max_lexer_states);
        // Letters before what may mean something.
        let readable = (b'a'..=b'z').chain(b'0'..=b'9').chain(b'A'..=b'Z');
        let mut order: Vec<u8> = readable.chain(0..=255).collect();
        order.sort_by_key(|&byte| !has_token[usize::from(byte)]);
        let mut seen = vec![false; dfa.alpha().len()];
        order.retain(|&byte| !std::mem::replace(&mut seen[dfa.alpha().map(byte)], true));
        let cost = |byte: u8| {
            if has_token[usize::from(byte)] {
                1
            } else {
                WITHOUT_TOKEN
            }
        };
        Some(Self {
            dfa,
            fuel: limits.step_lexer_fuel,
            none: spec.alloc_lexeme_set(),
            skips: spec.skip_by_class.clone(),
            bytes: order.into_iter().map(|byte| (byte, cost(byte))).collect(),
            steps: AHashMap::new(),
            searched: AHashSet::new(),
        })
    }

    /// Whether they turned out to be too complex.
    pub(super) fn is_lost(&self) -> bool {
        self.dfa.has_error()
    }

    /// Before each step: how much work it may be.
    pub(super) fn refuel(&mut self) {
        self.dfa.set_fuel(self.fuel);
    }

    /// Where one of `lexemes`, or what is skipped between them, begins.
    pub(super) fn start(&mut self, lexemes: impl Iterator<Item = LexemeIdx>) -> StateID {
        let mut set = self.none.clone();
        lexemes
            .chain(self.skips.iter().copied())
            .for_each(|lexeme| set.add(lexeme));
        self.dfa.initial_state(&set)
    }

    fn start_of(&mut self, lexeme: LexemeIdx) -> StateID {
        let mut set = self.none.clone();
        set.add(lexeme);
        self.dfa.initial_state(&set)
    }

    pub(super) fn skips(&self) -> &[LexemeIdx] {
        &self.skips
    }

    pub(super) fn is_skip(&self, lexemes: &MatchingLexemes) -> bool {
        self.skips.iter().any(|&skip| lexemes.contains(skip))
    }

    pub(super) fn advance(&mut self, state: StateID, byte: u8) -> Advance {
        let next = self.dfa.transition(state, byte);
        if next.is_dead() {
            match self.ending(state) {
                MatchingLexemes::None => Advance::Nowhere,
                ended => Advance::Ended(ended),
            }
        } else if next.has_lowest_match() {
            Advance::Ends(self.dfa.state_desc(next).lazy_accepting.clone())
        } else {
            Advance::Into(next)
        }
    }

    /// The state after the first byte of a lexeme, or the lexemes that have no other.
    pub(super) fn begin(&mut self, start: StateID, byte: u8) -> Advance {
        let state = self.dfa.transition(start, byte);
        if state.is_dead() {
            Advance::Nowhere
        } else if self.dfa.next_byte(state) == NextByte::ForcedEOI {
            Advance::Ends(self.ending(state))
        } else {
            Advance::Into(state)
        }
    }

    /// The lexemes that may end at a state.
    pub(super) fn ending(&self, state: StateID) -> MatchingLexemes {
        self.dfa.state_desc(state).greedy_accepting.clone()
    }

    /// The shortest text of a lexeme.
    pub(super) fn shortest(&mut self, lexeme: LexemeIdx) -> Cost {
        let start = self.start_of(lexeme);
        self.cost(start, lexeme)
    }

    /// Appends the shortest text of a lexeme.
    pub(super) fn write(&mut self, lexeme: LexemeIdx, text: &mut Vec<u8>) {
        let start = self.start_of(lexeme);
        self.finish(start, lexeme, text);
    }

    /// The shortest way from a state to the end of a lexeme.
    pub(super) fn cost(&mut self, state: StateID, lexeme: LexemeIdx) -> Cost {
        if !self.steps.contains_key(&(state, lexeme)) && self.searched.insert(state) {
            self.search(state);
        }
        self.steps
            .get(&(state, lexeme))
            .map_or(NEVER, |step| step.cost)
    }

    /// Appends what is the shortest way from a state to the end of a lexeme.
    pub(super) fn finish(&mut self, state: StateID, lexeme: LexemeIdx, text: &mut Vec<u8>) {
        let mut at = Some(state);
        while let Some(state) = at {
            let Some((byte, next)) = self.steps.get(&(state, lexeme)).and_then(|step| step.next)
            else {
                return;
            };
            text.push(byte);
            at = next;
        }
    }

    /// Dijkstra's, from a state to the ends of all lexemes that are possible there.
    fn search(&mut self, from: StateID) {
        let mut wanted: Vec<LexemeIdx> = self.dfa.state_desc(from).possible.iter().collect();
        // The states found, with their costs and where from
        let mut found: Vec<(StateID, Cost, usize, u8)> = vec![(from, 0, 0, 0)];
        let mut places: AHashMap<StateID, usize> = AHashMap::from([(from, 0)]);
        let mut heap = BinaryHeap::from([Reverse((0, 0))]);
        while let Some(Reverse((cost, place))) = heap.pop() {
            let state = found[place].0;
            if cost > found[place].1 {
                continue;
            }
            let desc = self.dfa.state_desc(state);
            let (ends, with_byte) = if state.has_lowest_match() && place > 0 {
                (desc.lazy_accepting.clone(), true)
            } else {
                (desc.greedy_accepting.clone(), false)
            };
            for &lexeme in ends.as_slice() {
                if let Some(i) = wanted.iter().position(|&l| l == lexeme) {
                    wanted.swap_remove(i);
                    self.record(&found, place, lexeme, with_byte);
                }
            }
            if wanted.is_empty() {
                return;
            }
            if found.len() > MAX_STATES || self.dfa.has_error() {
                let step = Step {
                    cost: UNKNOWN,
                    next: None,
                };
                for lexeme in wanted {
                    self.steps.entry((from, lexeme)).or_insert(step);
                }
                return;
            }
            if with_byte {
                continue;
            }
            let forced = match self.dfa.next_byte(state) {
                NextByte::ForcedByte(byte) => Some(byte),
                NextByte::ForcedEOI | NextByte::Dead => continue,
                _ => None,
            };
            for i in 0..self.bytes.len() {
                let (byte, more) = self.bytes[i];
                if forced.is_some_and(|f| self.dfa.alpha().map(f) != self.dfa.alpha().map(byte)) {
                    continue;
                }
                let next = self.dfa.transition(state, byte);
                if next.is_dead() {
                    continue;
                }
                let cost = add(cost, more);
                let known = *places.entry(next).or_insert(found.len());
                if known == found.len() {
                    found.push((next, cost, place, byte));
                } else if cost < found[known].1 {
                    found[known] = (next, cost, place, byte);
                } else {
                    continue;
                }
                heap.push(Reverse((cost, known)));
            }
        }
    }

    /// Remembers the way to the end of `lexeme` at a place for each state along it.
    fn record(
        &mut self,
        found: &[(StateID, Cost, usize, u8)],
        place: usize,
        lexeme: LexemeIdx,
        with_byte: bool,
    ) {
        let total = found[place].1;
        let mut remember = |state, step: Step| {
            let known = self.steps.entry((state, lexeme)).or_insert(step);
            if step.cost < known.cost {
                *known = step;
            }
        };
        if !with_byte {
            let step = Step {
                cost: 0,
                next: None,
            };
            remember(found[place].0, step);
        }
        let mut at = place;
        while at != 0 {
            let (state, _, before, byte) = found[at];
            let step = Step {
                cost: total - found[before].1,
                next: Some((byte, (at != place || !with_byte).then_some(state))),
            };
            remember(found[before].0, step);
            at = before;
        }
    }
}
