//! Stop strings: ends a text before the first of them, however the text is cut into pieces.
//!
//! The stop string that starts earliest wins; of those that start together, the one that ends first
//! (a shorter one is a prefix of the longer), then the one listed first. So when "bc" has been read
//! and "abcd" may still come of it, the answer waits for the byte that decides.
//!
//! Each stop string has its Knuth-Morris-Pratt automaton: after every byte its state is the length of
//! the longest prefix that the text ends with. That is all there is to hold back, and it costs
//! amortised constant time per byte and stop string, whatever their lengths. A text without stop
//! strings passes through untouched.

use crate::error::{Error, Result};

/// What a piece of text came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// The text that may be shown now.
    pub text: String,
    /// The index of the stop string that ended the text; nothing follows it.
    pub matched: Option<usize>,
}

/// Watches a text for stop strings.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    automata: Vec<Automaton>,
    /// Text that has not been shown; what has is `held[..shown]`, removed from time to time.
    held: String,
    shown: usize,
    /// A match that an earlier start may still overrule: where in `held` it starts, and its index.
    candidate: Option<(usize, usize)>,
    ended: bool,
}

impl StopStrings {
    /// Stops before any of `strings`. An empty one is an error; an empty list never stops.
    pub fn new(strings: Vec<String>) -> Result<Self> {
        if let Some(i) = strings.iter().position(String::is_empty) {
            return Err(Error::InvalidRequest(format!(
                "stop string {i} is empty, expected at least one character"
            )));
        }
        Ok(Self {
            automata: strings.into_iter().map(Automaton::new).collect(),
            ..Self::default()
        })
    }

    /// Takes the next piece of the text; gives what can no longer become a stop string. After a match
    /// it gives nothing.
    pub fn push(&mut self, delta: &str) -> Stopped {
        if self.ended {
            return Stopped::default();
        }
        if self.automata.is_empty() {
            return Stopped {
                text: delta.to_string(),
                matched: None,
            };
        }
        let begin = self.held.len();
        self.held.push_str(delta);
        for (i, &byte) in delta.as_bytes().iter().enumerate() {
            let end = begin + i + 1;
            for (index, automaton) in self.automata.iter_mut().enumerate() {
                if automaton.step(byte) {
                    let start = end - automaton.pattern.len();
                    // On equal starts the earlier candidate stays: it ended first or is listed first.
                    if self.candidate.is_none_or(|(best, _)| start < best) {
                        self.candidate = Some((start, index));
                    }
                }
            }
            if let Some((start, index)) = self.candidate
                && end - self.longest_prefix() >= start
            {
                return self.end(start, index);
            }
        }
        let keep = self.held.len() - self.longest_prefix();
        Stopped {
            text: self.show(keep),
            matched: None,
        }
    }

    /// The end of the text: what was held back, less a match that was still waiting.
    pub fn finish(&mut self) -> Stopped {
        if let Some((start, index)) = self.candidate {
            return self.end(start, index);
        }
        let text = self.show(self.held.len());
        self.ended = true;
        Stopped {
            text,
            matched: None,
        }
    }

    fn end(&mut self, start: usize, index: usize) -> Stopped {
        let text = self.show(start);
        self.ended = true;
        self.candidate = None;
        self.held = String::new();
        self.shown = 0;
        Stopped {
            text,
            matched: Some(index),
        }
    }

    fn longest_prefix(&self) -> usize {
        self.automata.iter().map(|a| a.state).max().unwrap_or(0)
    }

    /// Shows up to `end` of `held`.
    fn show(&mut self, end: usize) -> String {
        let text = self.held[self.shown..end].to_string();
        self.shown = end;
        // Moving the rest only when it is the smaller part keeps the total linear.
        if self.shown > self.held.len() / 2 {
            self.held.drain(..self.shown);
            if let Some((start, _)) = &mut self.candidate {
                *start -= self.shown;
            }
            self.shown = 0;
        }
        text
    }
}

/// Knuth-Morris-Pratt for one stop string.
#[derive(Debug, Clone)]
struct Automaton {
    pattern: Box<[u8]>,
    /// By length matched: the length of its longest proper prefix that is also its suffix.
    fallback: Vec<usize>,
    /// The longest proper prefix of the pattern that the text ends with.
    state: usize,
}

impl Automaton {
    fn new(pattern: String) -> Self {
        let pattern = pattern.into_bytes().into_boxed_slice();
        let mut fallback = vec![0; pattern.len() + 1];
        let mut state = 0;
        for i in 1..pattern.len() {
            while state > 0 && pattern[i] != pattern[state] {
                state = fallback[state];
            }
            if pattern[i] == pattern[state] {
                state += 1;
            }
            fallback[i + 1] = state;
        }
        Self {
            pattern,
            fallback,
            state: 0,
        }
    }

    /// Reads a byte; true when the pattern ends with it.
    fn step(&mut self, byte: u8) -> bool {
        while self.state > 0 && byte != self.pattern[self.state] {
            self.state = self.fallback[self.state];
        }
        if byte == self.pattern[self.state] {
            self.state += 1;
        }
        let whole = self.state == self.pattern.len();
        if whole {
            // What else it may find starts later than this, and so never counts.
            self.state = 0;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Random;
    use super::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(|s| s.to_string()).collect()).unwrap()
    }

    #[test]
    fn every_piece_is_shown_as_soon_as_it_can_be() {
        // Pieces in, pieces out, what finish gives, which stop string.
        type Case<'a> = (
            &'a [&'a str],
            &'a [&'a str],
            &'a [&'a str],
            &'a str,
            Option<usize>,
        );
        let cases: &[Case] = &[
            (&[], &["a", "", "b"], &["a", "", "b"], "", None),
            (
                &["stop"],
                &["do not stop", " now"],
                &["do not ", ""],
                "",
                Some(0),
            ),
            (
                &["stop"],
                &["s", "t", "o", "p"],
                &["", "", "", ""],
                "",
                Some(0),
            ),
            (
                &["stop"],
                &["s", "t", "a", "sto"],
                &["", "", "sta", ""],
                "sto",
                None,
            ),
            (
                &["aab"],
                &["a", "a", "a", "b", "c"],
                &["", "", "a", "", ""],
                "",
                Some(0),
            ),
            (&["x", "bc"], &["abcx"], &["a"], "", Some(1)),
            // One within the other: the earlier start, once it is certain.
            (
                &["bc", "abcd"],
                &["ab", "c", "d"],
                &["", "", ""],
                "",
                Some(1),
            ),
            (
                &["bc", "abcd"],
                &["ab", "c", "x"],
                &["", "", "a"],
                "",
                Some(0),
            ),
            (&["bc", "abcd"], &["abc"], &[""], "a", Some(0)),
            // The same start: the one that ends first, then the one listed first.
            (&["abc", "ab"], &["zabc"], &["z"], "", Some(1)),
            (&["ab", "ab"], &["ab"], &[""], "", Some(0)),
            // Prefixes of one stop string within another.
            (
                &["ababc"],
                &["ab", "ab", "ab", "c"],
                &["", "", "ab", ""],
                "",
                Some(0),
            ),
            (
                &["\u{1FAE0}!"],
                &["\u{1FAE0}", "?"],
                &["", "\u{1FAE0}?"],
                "",
                None,
            ),
            (
                &["\u{1FAE0}"],
                &["a\u{1FAE1}\u{1FAE0}b"],
                &["a\u{1FAE1}"],
                "",
                Some(0),
            ),
        ];
        for (strings, deltas, texts, rest, matched) in cases {
            let mut stop = stops(strings);
            let mut found = None;
            for (delta, text) in deltas.iter().zip(*texts) {
                let stopped = stop.push(delta);
                assert_eq!(stopped.text, *text, "{strings:?} {deltas:?}");
                found = found.or(stopped.matched);
            }
            let last = stop.finish();
            assert_eq!(last.text, *rest, "{strings:?} {deltas:?}");
            assert_eq!(found.or(last.matched), *matched, "{strings:?} {deltas:?}");
            assert_eq!(stop.push("more"), Stopped::default());
        }
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopStrings::new(vec!["a".into(), String::new()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "stop string 1 is empty, expected at least one character"
        );
    }

    /// Where the text ends and by which stop string, by looking at the whole of it.
    fn naive(strings: &[String], text: &str) -> (usize, Option<usize>) {
        strings
            .iter()
            .enumerate()
            .filter_map(|(i, s)| Some((text.find(s.as_str())?, s.len(), i)))
            .min()
            .map_or((text.len(), None), |(start, _, i)| (start, Some(i)))
    }

    #[test]
    fn chunking_makes_no_difference_and_nothing_is_held_back_in_vain() {
        let mut random = Random::new(2);
        let letters = ["a", "b", "é", "ab"];
        for _ in 0..20_000 {
            let strings: Vec<String> = (0..random.below(4))
                .map(|_| random.text(&letters, 4))
                .filter(|s| !s.is_empty())
                .collect();
            let text = random.text(&letters, 14);
            let (end, index) = naive(&strings, &text);
            let mut stop = StopStrings::new(strings.clone()).unwrap();
            let (mut read, mut shown, mut matched) = (0, String::new(), None);
            for chunk in random.chunks(&text) {
                let stopped = stop.push(chunk);
                read += chunk.len();
                shown += &stopped.text;
                matched = matched.or(stopped.matched);
                let so_far = &text[..read];
                if naive(&strings, so_far).1.is_none() {
                    let prefix =
                        |n: &usize| strings.iter().any(|s| s.starts_with(&so_far[read - n..]));
                    let held = (0..=read).filter(|&n| so_far.is_char_boundary(read - n));
                    assert_eq!(shown.len(), read - held.filter(prefix).max().unwrap_or(0));
                }
            }
            let last = stop.finish();
            shown += &last.text;
            assert_eq!(shown, text[..end], "{strings:?} {text:?}");
            assert_eq!(matched.or(last.matched), index, "{strings:?} {text:?}");
        }
    }

    #[test]
    fn a_megabyte_of_stop_string_costs_no_more_per_token() {
        // Comparing or moving what is held at every token would take a terabyte of work.
        let long = "a".repeat(1 << 20);
        let mut stop = stops(&[&format!("{long}b"), &format!("{long}c")]);
        let mut shown = 0;
        for _ in 0..(1 << 21) {
            shown += stop.push("a").text.len();
        }
        assert_eq!(shown, 1 << 20);
        assert_eq!(stop.push("c").matched, Some(1));
    }
}
