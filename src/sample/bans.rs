//! What must not come next: `min_tokens`, `bad_words` and `no_repeat_ngram_size`. The last two look at the prompt too.

use super::history::History;
use super::params::SamplingParams;

/// Sets the logits of forbidden ids to -inf; `ends` are the ids that would end the text.
pub(super) fn apply(params: &SamplingParams, history: &History, ends: &[u32], logits: &mut [f32]) {
    let mut forbid = |id: u32| logits[id as usize] = f32::NEG_INFINITY;
    if history.generated().len() < params.min_tokens {
        ends.iter().copied().for_each(&mut forbid);
    }
    let ids = history.ids();
    for word in &params.bad_words {
        if let Some((&last, before)) = word.split_last()
            && ids.ends_with(before)
        {
            forbid(last);
        }
    }
    let n = params.no_repeat_ngram_size;
    if n > 0 && n <= ids.len() {
        let begun = &ids[ids.len() - (n - 1)..];
        for ngram in ids.windows(n) {
            if ngram.starts_with(begun) {
                forbid(ngram[n - 1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(params: &SamplingParams, prompt: &[u32], generated: &[u32]) -> Vec<usize> {
        let mut history = History::new(prompt);
        for &id in generated {
            history.push(id);
        }
        let mut logits = [0.0; 8];
        apply(params, &history, &[7], &mut logits);
        (0..8).filter(|&i| logits[i] == f32::NEG_INFINITY).collect()
    }

    #[test]
    fn each_forbids_what_it_says() {
        let base = SamplingParams::default();
        let ngram = |no_repeat_ngram_size| SamplingParams {
            no_repeat_ngram_size,
            ..base.clone()
        };
        let words = |words: &[&[u32]]| SamplingParams {
            bad_words: words.iter().map(|w| w.to_vec()).collect(),
            ..base.clone()
        };
        let min = |min_tokens| SamplingParams {
            min_tokens,
            ..base.clone()
        };
        assert!(forbidden(&base, &[1, 2, 1], &[2, 1]).is_empty());
        assert_eq!(forbidden(&ngram(1), &[1], &[3]), [1, 3]);
        assert_eq!(forbidden(&ngram(2), &[1, 2, 1, 4], &[1]), [2, 4]);
        assert_eq!(forbidden(&ngram(3), &[1, 2, 3, 4, 1], &[2]), [3]);
        assert!(forbidden(&ngram(9), &[1, 1], &[1]).is_empty());
        assert_eq!(
            forbidden(&words(&[&[5], &[1, 2, 3], &[2, 6]]), &[1], &[2]),
            [3, 5, 6]
        );
        assert_eq!(forbidden(&min(2), &[1, 1, 1], &[2]), [7]);
        assert!(forbidden(&min(2), &[], &[2, 2]).is_empty());
    }
}
