//! Prompt lookup: guesses at the next tokens, taken from where the text's last words occurred before.
//!
//! A guess is run together with the last token, and holds as far as the sampler chooses the same: the text is what
//! it would be without, and several tokens come for little more than the price of one where the text repeats its
//! context (code, quotations, lists). After <https://github.com/apoorvumang/prompt-lookup-decoding>, which
//! `transformers` has as `prompt_lookup_num_tokens`.
//!
//! How much is guessed depends on how often guesses have been right, which is observed for free: also a guess that
//! was not run is compared with the token that came.

use std::collections::HashMap;

/// The longest guess.
pub const MAX_GUESS: usize = 8;

/// Tokens that must match, tried in this order.
const NGRAMS: [usize; 2] = [3, 2];

/// Weight of the newest observation.
const NEW: f64 = 0.15;

/// How many tokens to guess.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speculation {
    /// As many as pays, none if none does.
    #[default]
    Auto,
    /// None.
    Off,
    /// This many where there is a match: 1 to [`MAX_GUESS`].
    Fixed(usize),
}

/// The text so far, where its n-grams occurred last, and what guessing has brought.
#[derive(Debug)]
pub(super) struct Lookup {
    speculation: Speculation,
    ids: Vec<u32>,
    // n-gram -> index of the token after its last occurrence
    after: HashMap<([u32; 3], usize), usize>,
    // What the next token is expected to be
    expected: Option<u32>,
    // How often an expected token came
    hits: f64,
    // Seconds of a step with i guesses; 0 before there was one
    seconds: [f64; MAX_GUESS + 1],
}

impl Lookup {
    pub(super) fn new(speculation: Speculation, prompt: &[u32]) -> Self {
        let mut lookup = Self {
            speculation,
            ids: Vec::new(),
            after: HashMap::new(),
            expected: None,
            hits: 0.5,
            seconds: [0.0; MAX_GUESS + 1],
        };
        if speculation != Speculation::Off {
            for &id in prompt {
                lookup.index(id);
            }
        }
        lookup
    }

    /// Takes in a chosen token.
    pub(super) fn push(&mut self, id: u32) {
        if self.speculation == Speculation::Off {
            return;
        }
        if let Some(expected) = self.expected.take() {
            let hit = f64::from(u8::from(expected == id));
            self.hits += NEW * (hit - self.hits);
        }
        self.index(id);
        self.expected = self.found().map(|at| self.ids[at]);
    }

    fn index(&mut self, id: u32) {
        for n in NGRAMS {
            if let Some(ngram) = self.tail(n) {
                self.after.insert((ngram, n), self.ids.len());
            }
        }
        self.ids.push(id);
    }

    fn tail(&self, n: usize) -> Option<[u32; 3]> {
        let mut ngram = [0; 3];
        ngram[..n].copy_from_slice(&self.ids[self.ids.len().checked_sub(n)?..]);
        Some(ngram)
    }

    fn found(&self) -> Option<usize> {
        NGRAMS
            .iter()
            .find_map(|&n| self.after.get(&(self.tail(n)?, n)).copied())
    }

    /// Tokens that may come next, at most `room`; none where guessing would not pay.
    pub(super) fn guess(&self, room: usize) -> &[u32] {
        let Some(at) = self.found() else {
            return &[];
        };
        let there = (self.ids.len() - at).min(room).min(MAX_GUESS);
        let n = match self.speculation {
            Speculation::Off => 0,
            Speculation::Fixed(n) => n.min(there),
            Speculation::Auto => self.best(there),
        };
        &self.ids[at..at + n]
    }

    /// The number of guesses, up to `most`, that promises the most tokens a second.
    fn best(&self, most: usize) -> usize {
        let rate = |n: usize| {
            // The chosen token, and each guess if all before it were right.
            let tokens: f64 = (0..=n).map(|i| self.hits.powi(i as i32)).sum();
            tokens / self.cost(n)
        };
        (0..=most).fold(
            0,
            |best, n| if rate(n) > rate(best) * 1.02 { n } else { best },
        )
    }

    /// Time of a step with `n` guesses, as a multiple of one with none: as measured, or a tenth more for each.
    fn cost(&self, n: usize) -> f64 {
        let (one, this) = (self.seconds[0], self.seconds[n]);
        if one > 0.0 && this > 0.0 {
            (this / one).max(1.0)
        } else {
            1.0 + 0.1 * n as f64
        }
    }

    /// Takes in how long a step with `n` guesses took.
    pub(super) fn measured(&mut self, n: usize, seconds: f64) {
        let known = &mut self.seconds[n.min(MAX_GUESS)];
        *known = if *known > 0.0 {
            *known + 0.2 * (seconds - *known)
        } else {
            seconds
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_go_on_from_the_last_occurrence_of_the_longest_match() {
        let mut lookup = Lookup::new(
            Speculation::Fixed(4),
            &[1, 2, 3, 10, 11, 9, 2, 3, 20, 21, 7, 1, 2],
        );
        assert_eq!(lookup.guess(8), [3, 10, 11, 9]);
        lookup.push(3);
        // 1 2 3 came before, and 2 3 later than that: three tokens tell more than two.
        assert_eq!(lookup.guess(8), [10, 11, 9, 2]);
        assert_eq!(lookup.guess(2), [10, 11]);
        lookup.push(99);
        assert!(lookup.guess(8).is_empty());
    }

    #[test]
    fn guessing_ends_where_it_does_not_pay_and_comes_back() {
        let mut lookup = Lookup::new(Speculation::Auto, &[]);
        let mut guessed = 0;
        // 5 6 comes again and again, each time followed by something else.
        for i in 0..200 {
            for id in [5, 6, 1000 + i] {
                lookup.push(id);
                guessed += lookup.guess(8).len();
            }
        }
        assert!(guessed < 20, "{guessed}");
        for _ in 0..20 {
            for id in 2000..2030 {
                lookup.push(id);
            }
        }
        assert_eq!(lookup.guess(8).len(), 8);
    }

    #[test]
    fn off_is_off() {
        let mut lookup = Lookup::new(Speculation::Off, &[1, 2, 3, 1, 2]);
        lookup.push(3);
        assert!(lookup.guess(8).is_empty());
    }
}
