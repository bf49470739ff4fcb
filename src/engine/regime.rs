//! Long rope, for any engine: when a sequence outgrows the original context, its keys and values are computed anew.
//!
//! Keys that were rotated with the short factors garble the attention of a step that uses the long ones. So the
//! sequence remembers its tokens, and when a step takes it across the boundary it begins again with all of them,
//! which is what `transformers` does (`prepare_inputs_for_generation` of Phi-3 drops the cache there).

use std::any::Any;
use std::time::{Duration, Instant};

use super::{CHUNK, Extent, Interrupt, Sequence};
use crate::error::Result;
use crate::model::{Regime, RopeConfig};

/// A sequence that can be emptied and rotated with other factors.
pub(super) trait Restart: Sequence {
    /// Forgets all tokens; the next ones are rotated as `regime` says.
    fn restart(&mut self, regime: Regime) -> Result<()>;

    /// How its tokens are rotated.
    fn regime(&self) -> Regime;

    /// As [`Sequence::fork`].
    fn branch(&self, n_past: usize) -> Option<Self>
    where
        Self: Sized;
}

/// Runs its tokens again when the regime changes.
pub(super) struct Regimes<S> {
    // Has fewer tokens where running them again was interrupted
    inner: S,
    rope: RopeConfig,
    tokens: Vec<u32>,
    // Tokens that will be there before anyone asks for logits
    announced: usize,
    recomputed: Duration,
}

impl<S: Restart + 'static> Regimes<S> {
    /// `inner`, which holds `tokens`, wrapped where its model has long rope.
    pub(super) fn wrap(inner: S, rope: &RopeConfig, tokens: &[u32]) -> Box<dyn Sequence> {
        if rope.long.is_none() {
            return Box::new(inner);
        }
        Box::new(Self {
            inner,
            rope: rope.clone(),
            tokens: tokens.to_vec(),
            announced: 0,
            recomputed: Duration::ZERO,
        })
    }
}

impl<S: Restart + 'static> Sequence for Regimes<S> {
    fn n_past(&self) -> usize {
        self.tokens.len()
    }

    /// Keys of one regime are never left for the other.
    fn rewind(&mut self, n_past: usize) -> bool {
        if self.rope.regime(n_past) != self.inner.regime() || !self.inner.rewind(n_past) {
            return false;
        }
        self.tokens.truncate(n_past);
        self.announced = 0;
        true
    }

    /// A step that crosses the boundary rotates all its tokens with the long factors.
    fn room(&self) -> usize {
        let inner = self.inner.room();
        match self.inner.regime() {
            Regime::Short => inner.min(self.rope.room(self.tokens.len())),
            Regime::Long => inner,
        }
    }

    fn announce(&mut self, n_tokens: usize) {
        self.announced = n_tokens;
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()> {
        self.prepare(tokens, interrupt)?;
        self.inner.forward(tokens, n_logits, logits, interrupt)?;
        self.ran(tokens);
        Ok(())
    }

    fn prepare(&mut self, tokens: &[u32], interrupt: Interrupt) -> Result<()> {
        let length = (self.tokens.len() + tokens.len()).max(self.announced);
        let regime = self.rope.regime(length);
        if regime != self.inner.regime() {
            self.inner.restart(regime)?;
        }
        let there = self.inner.n_past();
        if there < self.tokens.len() {
            let started = Instant::now();
            for chunk in self.tokens[there..].chunks(CHUNK) {
                self.inner.forward(chunk, 0, &mut Vec::new(), interrupt)?;
            }
            self.recomputed += started.elapsed();
        }
        Ok(())
    }

    fn ran(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    fn core(&mut self) -> &mut dyn Any {
        self.inner.core()
    }

    fn fork(&self, n_past: usize) -> Option<Box<dyn Sequence>> {
        let inner = self.inner.branch(n_past)?;
        Some(Self::wrap(inner, &self.rope, &self.tokens[..n_past]))
    }

    fn suits(&self, n_tokens: usize) -> bool {
        // What has no tokens yet is rotated as it will need to be.
        let regime = match self.tokens.len() {
            0 => self.rope.regime(self.announced),
            _ => self.inner.regime(),
        };
        self.rope.regime(n_tokens) == regime
    }

    fn kv(&self) -> Option<(Extent, Vec<&[u8]>)> {
        self.inner.kv()
    }

    fn recomputed(&self) -> Duration {
        self.recomputed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::Error;
    use crate::model::LongRope;

    /// Writes down what it is asked to do, and counts.
    struct Log {
        lines: Arc<Mutex<Vec<String>>>,
        regime: Regime,
        n_past: usize,
        // Steps until one fails
        fails_after: usize,
    }

    impl Log {
        fn write(&self, line: String) {
            self.lines.lock().expect("one thread").push(line);
        }
    }

    impl Sequence for Log {
        fn n_past(&self) -> usize {
            self.n_past
        }

        fn forward(
            &mut self,
            tokens: &[u32],
            _: usize,
            _: &mut Vec<f32>,
            _: Interrupt,
        ) -> Result<()> {
            if self.fails_after == 0 {
                self.fails_after = usize::MAX;
                self.write(format!("interrupted at {tokens:?}"));
                return Err(Error::Interrupted);
            }
            self.fails_after -= 1;
            self.n_past += tokens.len();
            self.write(format!("{tokens:?}"));
            Ok(())
        }

        fn room(&self) -> usize {
            usize::MAX
        }

        fn core(&mut self) -> &mut dyn Any {
            self
        }

        fn rewind(&mut self, n_past: usize) -> bool {
            self.n_past = n_past;
            self.write(format!("to {n_past}"));
            true
        }
    }

    impl Restart for Log {
        fn restart(&mut self, regime: Regime) -> Result<()> {
            self.regime = regime;
            self.n_past = 0;
            self.write(format!("{regime:?}"));
            Ok(())
        }

        fn regime(&self) -> Regime {
            self.regime
        }

        fn branch(&self, n_past: usize) -> Option<Self> {
            (n_past <= self.n_past).then(|| Self {
                lines: self.lines.clone(),
                n_past,
                ..*self
            })
        }
    }

    fn sequence() -> (Box<dyn Sequence>, Arc<Mutex<Vec<String>>>) {
        failing(usize::MAX)
    }

    fn failing(fails_after: usize) -> (Box<dyn Sequence>, Arc<Mutex<Vec<String>>>) {
        let rope = RopeConfig {
            dim: 2,
            base: 1e4,
            long: Some(LongRope {
                original: 4,
                short: vec![1.0],
                long: vec![2.0],
                attn_factor: 1.0,
            }),
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Log {
            lines: lines.clone(),
            regime: Regime::Short,
            n_past: 0,
            fails_after,
        };
        (Regimes::wrap(log, &rope, &[]), lines)
    }

    fn run(sequence: &mut dyn Sequence, steps: &[&[u32]]) {
        for step in steps {
            sequence
                .forward(step, 1, &mut Vec::new(), &mut || Ok(()))
                .expect("nothing can fail");
        }
    }

    #[test]
    fn the_tokens_run_again_once_where_the_boundary_is_crossed() {
        let log = |announced, steps: &[&[u32]]| {
            let (mut sequence, lines) = sequence();
            sequence.announce(announced);
            run(sequence.as_mut(), steps);
            lines.lock().expect("one thread").clone()
        };
        assert_eq!(log(0, &[&[1, 2], &[3, 4]]), ["[1, 2]", "[3, 4]"]);
        assert_eq!(
            log(0, &[&[1, 2, 3, 4], &[5], &[6]]),
            ["[1, 2, 3, 4]", "Long", "[1, 2, 3, 4]", "[5]", "[6]"]
        );
        // A long prompt begins with the factors it ends with.
        assert_eq!(
            log(6, &[&[1, 2, 3], &[4, 5, 6]]),
            ["Long", "[1, 2, 3]", "[4, 5, 6]"]
        );
    }

    #[test]
    fn keys_of_one_regime_are_not_left_for_the_other() {
        let (mut sequence, lines) = sequence();
        run(sequence.as_mut(), &[&[1, 2, 3], &[4, 5, 6]]);
        assert!(
            !sequence.rewind(4),
            "these were rotated with the long factors"
        );
        assert_eq!(sequence.n_past(), 6);
        assert!(sequence.rewind(5));
        assert_eq!(sequence.n_past(), 5);
        assert_eq!(
            lines.lock().expect("one thread").last().expect("some"),
            "to 5"
        );
    }

    #[test]
    fn a_change_that_is_interrupted_goes_on_where_it_was() {
        let (mut sequence, lines) = failing(1);
        run(sequence.as_mut(), &[&[1, 2, 3, 4]]);
        let failed = sequence.forward(&[5], 1, &mut Vec::new(), &mut || Ok(()));
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!(sequence.n_past(), 4, "as it was");
        assert!(
            sequence.fork(4).is_none(),
            "these are not there at the moment"
        );
        run(sequence.as_mut(), &[&[5], &[6]]);
        assert_eq!(
            *lines.lock().expect("one thread"),
            [
                "[1, 2, 3, 4]",
                "Long",
                "interrupted at [1, 2, 3, 4]",
                "[1, 2, 3, 4]",
                "[5]",
                "[6]"
            ]
        );
    }

    #[test]
    fn a_fork_suits_the_sequences_that_are_rotated_alike() {
        let (mut sequence, lines) = sequence();
        sequence.announce(6);
        run(sequence.as_mut(), &[&[1, 2, 3], &[4, 5, 6]]);
        assert!(!sequence.suits(4) && sequence.suits(5));
        let mut long = sequence.fork(2).expect("there");
        long.announce(5);
        run(long.as_mut(), &[&[7, 8, 9]]);
        assert_eq!(
            lines.lock().expect("one thread").last().expect("some"),
            "[7, 8, 9]"
        );
        // What goes on without saying how far is rotated as short sequences are, from its beginning.
        let mut short = sequence.fork(2).expect("there");
        run(short.as_mut(), &[&[7]]);
        assert_eq!(
            lines.lock().expect("one thread")[4..],
            ["Short", "[1, 2]", "[7]"]
        );
    }
}
