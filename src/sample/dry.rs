//! DRY, "don't repeat yourself": the longer a repetition that a token would go on with, the less likely the token.
//!
//! As in llama.cpp (`llama_sampler_init_dry`), and after <https://github.com/oobabooga/text-generation-webui/pull/5677>:
//! a token that would continue a repetition of n tokens loses `multiplier * base^(n - allowed_length)`. A repetition is
//! not followed across a sequence breaker. The prompt counts.

use std::collections::HashMap;

use super::params::SamplingParams;

/// The breakers by their first token, and memory that is kept from step to step.
#[derive(Debug)]
pub(super) struct Dry {
    breakers: HashMap<u32, Vec<Box<[u32]>>>,
    // By distance from the end: how many tokens before there are as those at the end
    repeated: Vec<usize>,
}

impl Dry {
    /// `None` where it is off.
    pub(super) fn new(params: &SamplingParams) -> Option<Self> {
        if params.dry_multiplier == 0.0 || params.dry_penalty_last_n == Some(0) {
            return None;
        }
        let mut breakers: HashMap<u32, Vec<Box<[u32]>>> = HashMap::new();
        for sequence in &params.dry_breakers {
            if let Some((&head, tail)) = sequence.split_first() {
                breakers.entry(head).or_default().push(tail.into());
            }
        }
        Some(Self {
            breakers,
            repeated: Vec::new(),
        })
    }

    /// `ids` are the prompt's and the generated ones.
    pub(super) fn apply(&mut self, params: &SamplingParams, ids: &[u32], logits: &mut [f32]) {
        let allowed = params.dry_allowed_length;
        let n = params.dry_penalty_last_n.unwrap_or(usize::MAX);
        let ids = &ids[ids.len().saturating_sub(n)..];
        let limit = self.since_breaker(ids);
        if ids.len() <= allowed || limit < allowed {
            return;
        }
        self.measure(ids);
        let mut longest: HashMap<u32, usize> = HashMap::new();
        for (k, &repeated) in self.repeated.iter().enumerate().skip(1) {
            let length = repeated.min(limit);
            if length >= allowed {
                let next = longest.entry(ids[ids.len() - k]).or_default();
                *next = length.max(*next);
            }
        }
        for (id, length) in longest {
            if !self.is_breaker(id) {
                let more = libm::powf(params.dry_base, (length - allowed) as f32);
                // The last resort is still a number: only what is forbidden is -inf.
                logits[id as usize] -= (params.dry_multiplier * more).min(f32::MAX);
            }
        }
    }

    fn is_breaker(&self, id: u32) -> bool {
        self.breakers
            .get(&id)
            .is_some_and(|tails| tails.iter().any(|tail| tail.is_empty()))
    }

    /// How many tokens there are after the last breaker.
    fn since_breaker(&self, ids: &[u32]) -> usize {
        for (i, id) in ids.iter().rev().enumerate() {
            // A breaker of several tokens begins here and goes on to the right.
            let after = &ids[ids.len() - i..];
            let longest = self.breakers.get(id).and_then(|tails| {
                let whole = tails.iter().filter(|tail| after.starts_with(tail));
                whole.map(|tail| tail.len()).max()
            });
            if let Some(longest) = longest {
                return i - longest;
            }
        }
        ids.len()
    }

    /// Fills `repeated`: the Z-function of the reversed ids, in linear time.
    fn measure(&mut self, ids: &[u32]) {
        let n = ids.len();
        let back = |i: usize| ids[n - 1 - i];
        self.repeated.clear();
        self.repeated.resize(n, 0);
        // The match that reaches furthest: it begins at `left` and ends before `right`.
        let (mut left, mut right) = (0, 0);
        for k in 1..n {
            let mut length = if k < right {
                self.repeated[k - left].min(right - k)
            } else {
                0
            };
            while k + length < n && back(length) == back(k + length) {
                length += 1;
            }
            if k + length > right {
                (left, right) = (k, k + length);
            }
            self.repeated[k] = length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalties(params: &SamplingParams, ids: &[u32]) -> Vec<f32> {
        let mut logits = [0.0; 10];
        if let Some(mut dry) = Dry::new(params) {
            dry.apply(params, ids, &mut logits);
        }
        logits.map(|l| -l).to_vec()
    }

    fn params() -> SamplingParams {
        SamplingParams {
            dry_multiplier: 1.0,
            dry_base: 2.0,
            dry_allowed_length: 2,
            ..Default::default()
        }
    }

    #[test]
    fn longer_repetitions_cost_more() {
        // 1 2 3 came before: after 1 2 it is 3's turn, and a third 2 3 would make it 4's.
        for (ids, token, penalty) in [
            (&[1, 2, 3, 9, 1, 2][..], 3, 1.0),
            (&[1, 2, 3, 4, 9, 1, 2, 3], 4, 2.0),
            (&[1, 2, 3, 4, 5, 9, 1, 2, 3, 4], 5, 4.0),
            (&[2, 3, 9, 1, 2], 3, 0.0),
        ] {
            let mut expected = vec![0.0; 10];
            expected[token] = penalty;
            let found = penalties(&params(), ids);
            assert!(
                found.iter().zip(&expected).all(|(f, e)| f == e),
                "{ids:?} {found:?}"
            );
        }
    }

    #[test]
    fn breakers_cut_and_are_not_penalised() {
        let ids = [1, 2, 3, 4, 9, 1, 2, 3];
        let with = |breakers: &[&[u32]]| SamplingParams {
            dry_breakers: breakers.iter().map(|b| b.to_vec()).collect(),
            ..params()
        };
        assert_eq!(penalties(&with(&[&[2]]), &ids)[4], 0.0);
        assert_eq!(penalties(&with(&[&[1]]), &ids)[4], 1.0);
        assert_eq!(penalties(&with(&[&[4]]), &ids)[4], 0.0);
        // Of two tokens: the repetition begins after both.
        assert_eq!(penalties(&with(&[&[9, 1]]), &ids)[4], 1.0);
        assert_eq!(penalties(&with(&[&[9, 2]]), &ids)[4], 2.0);
    }

    #[test]
    fn a_penalty_is_a_number_however_long_the_repetition() {
        let ids: Vec<u32> = (0..3000).map(|i| i % 3).collect();
        let found = penalties(&params(), &ids);
        assert!(found[0].is_finite() && found[0] > 1e38, "{found:?}");
    }

    #[test]
    fn the_z_function_is_what_comparing_gives() {
        let mut dry = Dry::new(&params()).expect("on");
        let mut state = 1u32;
        for n in 0..200 {
            let ids: Vec<u32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 30) & 1
                })
                .collect();
            dry.measure(&ids);
            for k in 1..n {
                let length = (0..n - k)
                    .take_while(|i| ids[n - 1 - i] == ids[n - 1 - i - k])
                    .count();
                assert_eq!(dry.repeated[k], length);
            }
        }
    }
}
