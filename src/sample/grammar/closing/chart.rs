//! Earley's chart of the text so far, with the cost of the shortest ending.
//!
//! llguidance keeps such a chart, too, and shows nothing of it. This one follows the same rules and the same lexer, byte
//! by byte, and knows of each rule that has begun what it costs to get from the end of that rule to the end of the
//! text. What it does not know: limits in tokens (`max_tokens` of a rule), and that of several grammars in one only
//! that which has begun skips its white space.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use llguidance::earley::lexerspec::LexemeIdx;
use llguidance::earley::regexvec::{MatchingLexemes, StateID};

use super::lexemes::{Advance, Lexemes};
use super::rules::{Cost, NEVER, Rules, Symbol, add};

/// Longest ending that is written out, in bytes.
const MAX_ENDING: usize = 1 << 15;

/// An alternative of a rule: how far it has been read, and since which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    dot: u32,
    origin: u32,
}

/// The items of a row that wait for a rule to end, and the cheapest way on from there: its cost and its item.
#[derive(Debug, Clone)]
struct Waiting {
    items: Vec<Item>,
    cost: Cost,
    way: Option<Item>,
}

#[derive(Debug, Clone)]
struct Row {
    // Those that wait for a lexeme
    items: Vec<(LexemeIdx, Item)>,
    waiting: Vec<Waiting>,
    places: AHashMap<u32, usize>,
    complete: bool,
    start: StateID,
}

/// Where the shortest ending leads first.
enum Way {
    Complete,
    Through(LexemeIdx, Item),
    // What may be skipped has to end before
    AfterSkip(LexemeIdx, Option<(LexemeIdx, Item)>),
}

/// A place in the text to come back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    rows: usize,
    state: StateID,
    inside: bool,
}

#[derive(Clone)]
pub(super) struct Chart {
    rules: Arc<Rules>,
    lexemes: Lexemes,
    rows: Vec<Row>,
    // The lexer's state, and whether a lexeme has begun
    state: StateID,
    inside: bool,
}

impl Chart {
    pub(super) fn new(rules: Arc<Rules>, lexemes: Lexemes) -> Self {
        let mut chart = Self {
            rules,
            lexemes,
            rows: Vec::new(),
            state: StateID::DEAD,
            inside: false,
        };
        let rules = chart.rules.clone();
        let first = rules.alternatives(0).iter();
        chart.push_row(first.map(|&dot| Item { dot, origin: 0 }).collect());
        chart
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            rows: self.rows.len(),
            state: self.state,
            inside: self.inside,
        }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.rows.truncate(mark.rows);
        (self.state, self.inside) = (mark.state, mark.inside);
    }

    /// Goes on with `bytes`. Where they cannot follow, it has gone on with some of them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        self.lexemes.refuel();
        bytes.iter().all(|&byte| self.push_byte(byte)) && !self.lexemes.is_lost()
    }

    fn push_byte(&mut self, byte: u8) -> bool {
        match self.lexemes.advance(self.state, byte) {
            Advance::Into(state) => {
                (self.state, self.inside) = (state, true);
                true
            }
            Advance::Ends(lexemes) => self.scan(&lexemes),
            Advance::Ended(lexemes) => {
                self.scan(&lexemes)
                    && match self.lexemes.begin(self.state, byte) {
                        Advance::Into(state) => {
                            (self.state, self.inside) = (state, true);
                            true
                        }
                        Advance::Ends(lexemes) => self.scan(&lexemes),
                        _ => false,
                    }
            }
            Advance::Nowhere => false,
        }
    }

    /// Takes in that one of `lexemes` has been read.
    fn scan(&mut self, lexemes: &MatchingLexemes) -> bool {
        let row = &self.rows[self.rows.len() - 1];
        if self.lexemes.is_skip(lexemes) {
            (self.state, self.inside) = (row.start, false);
            return true;
        }
        let read = row.items.iter().filter(|(l, _)| lexemes.contains(*l));
        let items: Vec<Item> = read.map(|(_, item)| item.advanced()).collect();
        if items.is_empty() {
            return false;
        }
        self.push_row(items);
        true
    }

    fn push_row(&mut self, mut items: Vec<Item>) {
        let here = self.rows.len() as u32;
        let rules = self.rules.clone();
        let mut row = Row {
            items: Vec::new(),
            waiting: Vec::new(),
            places: AHashMap::new(),
            complete: false,
            start: StateID::DEAD,
        };
        let mut known: AHashSet<Item> = items.iter().copied().collect();
        let mut next = 0;
        while next < items.len() {
            let item = items[next];
            next += 1;
            let mut add = |item| {
                if known.insert(item) {
                    items.push(item);
                }
            };
            match rules.symbol(item.dot) {
                Symbol::Lexeme(lexeme) => row.items.push((lexeme, item)),
                Symbol::Rule(rule) => {
                    let place = *row.places.entry(rule).or_insert(row.waiting.len());
                    if place == row.waiting.len() {
                        row.waiting.push(Waiting {
                            items: Vec::new(),
                            cost: NEVER,
                            way: None,
                        });
                        for &dot in rules.alternatives(rule) {
                            add(Item { dot, origin: here });
                        }
                    }
                    row.waiting[place].items.push(item);
                    if rules.is_nullable(rule) {
                        add(item.advanced());
                    }
                }
                Symbol::End(rule) => {
                    row.complete |= rule == 0 && item.origin == 0;
                    // What is empty went on when it was begun.
                    if item.origin < here {
                        let origin = &self.rows[item.origin as usize];
                        if let Some(&place) = origin.places.get(&rule) {
                            let waiting = &origin.waiting[place];
                            waiting.items.iter().for_each(|item| add(item.advanced()));
                        }
                    }
                }
            }
        }
        row.start = self.lexemes.start(row.items.iter().map(|(l, _)| *l));
        self.find_ways(&mut row, here);
        (self.state, self.inside) = (row.start, false);
        self.rows.push(row);
    }

    /// The least fixed point of the costs from the end of each rule that has begun here to the end of the text. Rules
    /// mostly come after those that wait for them.
    fn find_ways(&self, row: &mut Row, here: u32) {
        let mut changed = true;
        while changed {
            changed = false;
            for i in 0..row.waiting.len() {
                for j in 0..row.waiting[i].items.len() {
                    let item = row.waiting[i].items[j];
                    let rule = self.rules.lhs(item.dot);
                    let after = if rule == 0 && item.origin == 0 {
                        0
                    } else if item.origin == here {
                        row.waiting[row.places[&rule]].cost
                    } else {
                        self.way_on(item.origin, rule).0
                    };
                    let cost = add(self.rules.rest(item.dot + 1), after);
                    if cost < row.waiting[i].cost {
                        (row.waiting[i].cost, row.waiting[i].way) = (cost, Some(item));
                        changed = true;
                    }
                }
            }
        }
    }

    /// From the end of a rule that began in row `origin`: the cost of the text's ending, and the item that it goes on
    /// with, if any.
    fn way_on(&self, origin: u32, rule: u32) -> (Cost, Option<Item>) {
        if rule == 0 && origin == 0 {
            return (0, None);
        }
        let row = &self.rows[origin as usize];
        let waiting = &row.waiting[row.places[&rule]];
        (waiting.cost, waiting.way)
    }

    /// Whether the text is complete.
    pub(super) fn is_complete(&mut self) -> bool {
        let mark = self.mark();
        let flushed = !self.inside || {
            let ending = self.lexemes.ending(self.state);
            ending.is_some() && self.scan(&ending)
        };
        let complete = flushed && self.rows[self.rows.len() - 1].complete;
        self.back_to(mark);
        complete
    }

    /// At least as many tokens as the shortest ending has, if one of these bytes is there.
    pub(super) fn cost(&mut self) -> Cost {
        self.way().0
    }

    fn way(&mut self) -> (Cost, Way) {
        self.lexemes.refuel();
        let row = self.rows.len() - 1;
        let (mut cost, way) = self.way_through(self.state);
        let mut way = way.map_or(Way::Complete, |(lexeme, item)| Way::Through(lexeme, item));
        if !self.inside && self.rows[row].complete {
            return (0, Way::Complete);
        }
        if self.inside {
            for skip in self.lexemes.skips().to_vec() {
                let end = self.lexemes.cost(self.state, skip);
                if end == NEVER {
                    continue;
                }
                let (rest, through) = if self.rows[row].complete {
                    (0, None)
                } else {
                    self.way_through(self.rows[row].start)
                };
                if add(end, rest) < cost {
                    (cost, way) = (add(end, rest), Way::AfterSkip(skip, through));
                }
            }
        }
        (cost, way)
    }

    /// The cheapest of the lexemes that may be read from `state` on.
    fn way_through(&mut self, state: StateID) -> (Cost, Option<(LexemeIdx, Item)>) {
        let mut best = (NEVER, None);
        let row = self.rows.len() - 1;
        for i in 0..self.rows[row].items.len() {
            let (lexeme, item) = self.rows[row].items[i];
            let end = self.lexemes.cost(state, lexeme);
            if end >= best.0 {
                continue;
            }
            let rest = self.rules.rest(item.dot + 1);
            let after = self.way_on_of(item);
            let cost = add(add(end, rest), after);
            if cost < best.0 {
                best = (cost, Some((lexeme, item)));
            }
        }
        best
    }

    fn way_on_of(&self, item: Item) -> Cost {
        self.way_on(item.origin, self.rules.lhs(item.dot)).0
    }

    /// The shortest ending; `apart` puts what may be skipped between lexemes.
    pub(super) fn ending(&mut self, apart: bool) -> Option<Vec<u8>> {
        let (cost, way) = self.way();
        if cost as usize > MAX_ENDING {
            return None;
        }
        let mut text = Vec::new();
        let mut at = match way {
            Way::Complete => None,
            Way::Through(lexeme, item) => {
                self.lexemes.finish(self.state, lexeme, &mut text);
                Some(item.advanced())
            }
            Way::AfterSkip(skip, through) => {
                self.lexemes.finish(self.state, skip, &mut text);
                through.map(|(lexeme, item)| {
                    self.lexemes.write(lexeme, &mut text);
                    item.advanced()
                })
            }
        };
        let between = if apart { self.between()? } else { Vec::new() };
        while let Some(item) = at {
            self.write_rest(item.dot, &between, &mut text)?;
            let (_, way) = self.way_on(item.origin, self.rules.lhs(item.dot));
            at = way.map(Item::advanced);
        }
        Some(text)
    }

    /// The shortest text that may be skipped.
    fn between(&mut self) -> Option<Vec<u8>> {
        let skips = self.lexemes.skips().to_vec();
        let text = |skip| {
            let mut text = Vec::new();
            if (1..MAX_ENDING as Cost).contains(&self.lexemes.shortest(skip)) {
                self.lexemes.write(skip, &mut text);
            }
            text
        };
        skips.into_iter().map(text).find(|text| !text.is_empty())
    }

    /// Appends the shortest text of what is left of an alternative.
    fn write_rest(&mut self, dot: u32, between: &[u8], text: &mut Vec<u8>) -> Option<()> {
        let rules = self.rules.clone();
        let mut open = vec![dot];
        while let Some(dot) = open.pop() {
            if text.len() > MAX_ENDING || open.len() > MAX_ENDING {
                return None;
            }
            match rules.symbol(dot) {
                Symbol::End(_) => continue,
                Symbol::Lexeme(lexeme) => {
                    text.extend_from_slice(between);
                    self.lexemes.shortest(lexeme);
                    self.lexemes.write(lexeme, text);
                    open.push(dot + 1);
                }
                Symbol::Rule(rule) => {
                    open.push(dot + 1);
                    open.extend(rules.cheapest(rule));
                }
            }
        }
        Some(())
    }

    /// Whether `bytes` complete the text.
    pub(super) fn ends_with(&mut self, bytes: &[u8]) -> bool {
        let mark = self.mark();
        let complete = self.push(bytes) && self.is_complete();
        self.back_to(mark);
        complete
    }
}

impl Item {
    fn advanced(self) -> Self {
        Self {
            dot: self.dot + 1,
            ..self
        }
    }
}
