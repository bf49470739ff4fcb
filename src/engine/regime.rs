//! Long rope, for any engine: when a sequence outgrows the original context, its keys and values are computed anew.
//!
//! Keys that were rotated with the short factors garble the attention of a step that uses the long ones. So the
//! sequence remembers its tokens, and when a step takes it across the boundary it begins again with all of them,
//! which is what `transformers` does (`prepare_inputs_for_generation` of Phi-3 drops the cache there).

use std::any::Any;
use std::time::{Duration, Instant};

use super::{CHUNK, Interrupt, Sequence};
use crate::error::Result;
use crate::model::{Regime, RopeConfig};

/// A sequence that can be emptied and rotated with other factors.
pub(super) trait Restart: Sequence {
    /// Forgets all tokens; the next ones are rotated as `regime` says.
    fn restart(&mut self, regime: Regime) -> Result<()>;
}

/// Runs its tokens again when the regime changes.
pub(super) struct Regimes<S> {
    inner: S,
    rope: RopeConfig,
    regime: Regime,
    tokens: Vec<u32>,
    // Tokens that will be there before anyone asks for logits
    announced: usize,
    recomputed: Duration,
}

impl<S: Restart + 'static> Regimes<S> {
    /// `inner`, which is empty and in [`Regime::Short`], wrapped where its model has long rope.
    pub(super) fn wrap(inner: S, rope: &RopeConfig) -> Box<dyn Sequence> {
        if rope.long.is_none() {
            return Box::new(inner);
        }
        Box::new(Self {
            inner,
            rope: rope.clone(),
            regime: Regime::Short,
            tokens: Vec::new(),
            announced: 0,
            recomputed: Duration::ZERO,
        })
    }
}

impl<S: Restart> Sequence for Regimes<S> {
    fn n_past(&self) -> usize {
        self.tokens.len()
    }

    /// Keys of one regime are never left for the other.
    fn rewind(&mut self, n_past: usize) -> bool {
        if self.rope.regime(n_past) != self.regime || !self.inner.rewind(n_past) {
            return false;
        }
        self.tokens.truncate(n_past);
        self.announced = 0;
        true
    }

    /// A step that crosses the boundary rotates all its tokens with the long factors.
    fn room(&self) -> usize {
        let inner = self.inner.room();
        match self.regime {
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
        self.inner.forward(tokens, n_logits, logits, interrupt)
    }

    fn prepare(&mut self, tokens: &[u32], interrupt: Interrupt) -> Result<()> {
        let length = (self.tokens.len() + tokens.len()).max(self.announced);
        let regime = self.rope.regime(length);
        if regime != self.regime {
            let started = Instant::now();
            self.inner.restart(regime)?;
            self.regime = regime;
            for chunk in self.tokens.chunks(CHUNK) {
                self.inner.forward(chunk, 0, &mut Vec::new(), interrupt)?;
            }
            if !self.tokens.is_empty() {
                self.recomputed += started.elapsed();
            }
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn core(&mut self) -> &mut dyn Any {
        self.inner.core()
    }

    fn recomputed(&self) -> Duration {
        self.recomputed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::LongRope;

    /// Writes down what it is asked to do.
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Sequence for Log {
        fn n_past(&self) -> usize {
            0
        }

        fn forward(
            &mut self,
            tokens: &[u32],
            _: usize,
            _: &mut Vec<f32>,
            _: Interrupt,
        ) -> Result<()> {
            self.0
                .lock()
                .expect("one thread")
                .push(format!("{tokens:?}"));
            Ok(())
        }

        fn room(&self) -> usize {
            usize::MAX
        }

        fn core(&mut self) -> &mut dyn Any {
            self
        }

        fn rewind(&mut self, n_past: usize) -> bool {
            self.0
                .lock()
                .expect("one thread")
                .push(format!("to {n_past}"));
            true
        }
    }

    impl Restart for Log {
        fn restart(&mut self, regime: Regime) -> Result<()> {
            self.0
                .lock()
                .expect("one thread")
                .push(format!("{regime:?}"));
            Ok(())
        }
    }

    fn sequence() -> (Box<dyn Sequence>, Arc<Mutex<Vec<String>>>) {
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
        (Regimes::wrap(Log(lines.clone()), &rope), lines)
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
}
