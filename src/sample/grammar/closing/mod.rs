//! Ending a text within its budget: whether it can still end after a token, and how.
//!
//! The shortest ending is found on a chart of the text (`chart`), exactly, but for two things: it is the shortest in
//! bytes and not in tokens, and lexemes are taken to end where they can. So what is found is only taken for an ending
//! where the chart, fed with it, says that the text is complete, and where the vocabulary can spell it. In a language
//! whose words run into each other (`select` and a name) it is tried again with what may be skipped in between. A text
//! that has an ending within its budget keeps one: tokens after which none is found are not taken, and the ending at
//! hand goes on. Where none is found from the start (a grammar that limits rules in tokens, a vocabulary without the
//! letters), texts are as long as they get.

mod chart;
mod lexemes;
mod rules;

use std::sync::Arc;

use llguidance::api::ParserLimits;
use llguidance::earley::CGrammar;

use self::chart::Chart;
use self::lexemes::Lexemes;
use self::rules::{NEVER, Rules};
use super::spelling::Spelling;

/// With so much room to spare nothing is looked at but the cost of the shortest ending, which one with what may be
/// skipped in between does not exceed: times and tokens.
const ROOM: (usize, usize) = (4, 64);

/// How a text can end.
#[derive(Clone)]
pub(super) struct Closing {
    chart: Chart,
    // The chart has lost the text: it is more complex than it may be
    lost: bool,
    // An ending of the text, if one has been needed, and the one after a token that has been looked at
    ending: Option<Vec<u32>>,
    after: Option<(u32, Vec<u32>)>,
}

/// What is known of how texts of a grammar end.
pub(super) enum Ends {
    /// No text of it has an end.
    Never,
    /// It is too complex, or has limits in tokens.
    Unknown,
    Known(Box<Closing>),
}

impl Closing {
    /// At the beginning of a text. `has_token` says which bytes are a token.
    pub(super) fn of(grammar: &CGrammar, limits: ParserLimits, has_token: &[bool; 256]) -> Ends {
        let spec = grammar.lexer_spec();
        let Some(mut lexemes) = Lexemes::new(spec, limits, has_token) else {
            return Ends::Unknown;
        };
        let Some(rules) = Rules::new(grammar, |lexeme| lexemes.shortest(lexeme)) else {
            return Ends::Unknown;
        };
        if lexemes.is_lost() || spec.has_max_tokens {
            return Ends::Unknown;
        }
        if rules.cost() == NEVER {
            return Ends::Never;
        }
        Ends::Known(Box::new(Self {
            chart: Chart::new(Arc::new(rules), lexemes),
            lost: false,
            ending: None,
            after: None,
        }))
    }

    /// Goes on with a token of these bytes.
    pub(super) fn push(&mut self, id: u32, bytes: &[u8]) {
        self.lost = self.lost || !self.chart.push(bytes);
        self.ending = match (self.ending.take(), self.after.take()) {
            (_, Some((token, ending))) if token == id => Some(ending),
            (Some(ending), _) if ending.first() == Some(&id) => Some(ending[1..].to_vec()),
            _ => None,
        };
    }

    /// Whether the text is complete as it is; none if that is not known any more.
    #[cfg(test)]
    pub(super) fn is_complete(&mut self) -> Option<bool> {
        (!self.lost).then(|| self.chart.is_complete())
    }

    /// Whether the text has an ending of at most `left` tokens after a token of these bytes.
    pub(super) fn fits(
        &mut self,
        id: u32,
        bytes: &[u8],
        left: usize,
        spelling: &Spelling<'_>,
    ) -> bool {
        let goes_on = |ending: &Vec<u32>| ending.first() == Some(&id) && ending.len() <= left + 1;
        if self.lost || self.ending.as_ref().is_some_and(goes_on) {
            return true;
        }
        let mark = self.chart.mark();
        let fits = if self.chart.push(bytes) {
            let cost = self.chart.cost() as usize;
            cost * ROOM.0 + ROOM.1 <= left || {
                let ending = self.find(left, false, spelling);
                let fits = ending.is_some();
                self.after = ending.map(|ending| (id, ending));
                fits
            }
        } else {
            // `push` will find out.
            true
        };
        self.chart.back_to(mark);
        fits
    }

    /// An ending of the text, if one is known that has at most `left` tokens.
    pub(super) fn ending(
        &mut self,
        left: usize,
        at_start: bool,
        spelling: &Spelling<'_>,
    ) -> Option<&[u32]> {
        if self.lost {
            return None;
        }
        if self.ending.is_none() {
            self.ending = self.find(left, at_start, spelling);
        }
        self.ending.as_deref().filter(|ending| ending.len() <= left)
    }

    fn find(&mut self, left: usize, at_start: bool, spelling: &Spelling<'_>) -> Option<Vec<u32>> {
        [false, true].into_iter().find_map(|apart| {
            let text = self.chart.ending(apart)?;
            let ids = spelling.shortest(&text, at_start)?;
            (ids.len() <= left && self.chart.ends_with(&text)).then_some(ids)
        })
    }
}

#[cfg(test)]
mod tests;
