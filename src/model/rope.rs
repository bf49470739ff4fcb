//! Rotary position embedding: what the file says of it, and the cosines and sines of the positions a step needs.
//!
//! The tables are computed for each step and not kept for the whole context: a chunk's table takes microseconds, and
//! a context of 128k would otherwise cost 50 MB.
//!
//! Long rope (LongRoPE, arXiv:2402.13753), as `transformers` 4.57 has it (`modeling_rope_utils.py`,
//! `_compute_longrope_parameters` and `longrope_frequency_update`): each frequency is divided by a factor, from the
//! short list while the whole sequence has up to `original_context_length` tokens and from the long list beyond,
//! for *all* of its positions; cosines and sines are multiplied by the attention factor at every length. Keys that
//! were rotated with one list are of no use with the other: [`Regime`] says which, and `engine/regime.rs` runs the
//! tokens again when it changes.

use super::keys::Keys;
use crate::error::{Error, Result};
use crate::gguf::{GgmlType, Gguf};

/// Rotary position embedding (arXiv:2104.09864), in the NEOX layout: halves, not pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Dimensions of a head that are rotated, the first ones; the rest pass through.
    pub dim: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// The stretching of Phi-3-128k, Phi-3.5 and Phi-4-mini.
    pub long: Option<LongRope>,
}

/// Factors for short and for long sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Tokens of the longest sequence for which the short factors hold.
    pub original: usize,
    /// (dim / 2) f32: the frequencies are divided by them.
    pub short: Vec<f32>,
    /// (dim / 2) f32
    pub long: Vec<f32>,
    /// Cosines and sines are multiplied by it, at every length.
    pub attn_factor: f32,
}

/// Which factors a sequence is rotated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// The short ones, or none at all.
    Short,
    /// The long ones.
    Long,
}

impl Regime {
    /// `"short"` or `"long"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

const FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

impl RopeConfig {
    /// `published` is whether a model of this shape and context is known; with a long context it then needs factors.
    pub(super) fn read(
        gguf: &Gguf,
        keys: &Keys,
        head_dim: usize,
        n_ctx: usize,
        published: bool,
    ) -> Result<Self> {
        let dim = keys
            .count("rope.dimension_count", 1 << 20)?
            .unwrap_or(head_dim);
        if dim > head_dim || !dim.is_multiple_of(2) {
            return Err(Error::ModelFormat(format!(
                "`{}` is {dim}, expected an even number up to the head's {head_dim}",
                keys.name("rope.dimension_count")
            )));
        }
        Ok(Self {
            dim,
            base: keys.positive("rope.freq_base")?.unwrap_or(10_000.0),
            long: LongRope::read(gguf, keys, dim, n_ctx, published)?,
        })
    }

    /// What a sequence of `n_tokens` in all is rotated with.
    pub fn regime(&self, n_tokens: usize) -> Regime {
        match &self.long {
            Some(long) if n_tokens > long.original => Regime::Long,
            _ => Regime::Short,
        }
    }

    /// How many more tokens a sequence of `n_tokens` takes before its regime changes; `usize::MAX` is any number.
    pub fn room(&self, n_tokens: usize) -> usize {
        match &self.long {
            Some(long) if n_tokens <= long.original => long.original - n_tokens,
            _ => usize::MAX,
        }
    }
}

impl LongRope {
    fn read(
        gguf: &Gguf,
        keys: &Keys,
        dim: usize,
        n_ctx: usize,
        published: bool,
    ) -> Result<Option<Self>> {
        const ORIGINAL: &str = "rope.scaling.original_context_length";
        const FACTOR: &str = "rope.scaling.attn_factor";
        const TYPE: &str = "rope.scaling.type";
        let original = keys.count(ORIGINAL, 1 << 24)?;
        let factor = keys.positive(FACTOR)?;
        let named = match keys.text(TYPE)? {
            // Without a factor, `linear` is what llama.cpp takes for granted.
            None | Some("none" | "linear") => false,
            Some("longrope" | "su") => true,
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "metadata key `{}` is `{other}`, expected `longrope` or `none`",
                    keys.name(TYPE)
                )));
            }
        };
        // The factors may be left out by mistake, and the file then loads and talks nonsense elsewhere.
        let why = if named {
            Some(format!("`{}` is `longrope`", keys.name(TYPE)))
        } else if factor.is_some_and(|f| f != 1.0) {
            Some(format!("`{}` is there", keys.name(FACTOR)))
        } else if FACTORS.iter().any(|name| gguf.tensor(name).is_some()) {
            Some("the other factors are there".into())
        } else if original.is_some_and(|original| original < n_ctx) {
            Some(format!(
                "`{}` {n_ctx} is longer than `{}`",
                keys.name("context_length"),
                keys.name(ORIGINAL)
            ))
        } else if published && n_ctx > 4096 {
            Some("the published model of this shape has them".into())
        } else {
            None
        };
        let Some(why) = why else {
            return Ok(None);
        };
        let [short, long] = FACTORS.map(|name| factors(gguf, name, dim / 2, &why));
        let (short, long) = (short?, long?);
        let original = original.ok_or_else(|| keys.missing(ORIGINAL))?;
        Ok(Some(Self {
            original,
            short,
            long,
            attn_factor: factor.unwrap_or_else(|| default_attn_factor(n_ctx, original)),
        }))
    }
}

/// `sqrt(1 + ln(n_ctx / original) / ln(original))`, for files whose converter left it out.
fn default_attn_factor(n_ctx: usize, original: usize) -> f32 {
    if n_ctx <= original || original < 2 {
        return 1.0;
    }
    let scale = n_ctx as f64 / original as f64;
    (1.0 + scale.ln() / (original as f64).ln()).sqrt() as f32
}

fn factors(gguf: &Gguf, name: &str, n: usize, why: &str) -> Result<Vec<f32>> {
    let tensor = gguf.tensor(name).ok_or_else(|| {
        Error::ModelFormat(format!(
            "tensor `{name}` is missing, and {why}: convert the model again with a newer llama.cpp"
        ))
    })?;
    if tensor.shape != [n] || tensor.ty != GgmlType::F32 {
        return Err(Error::ModelFormat(format!(
            "tensor `{name}` is {} of shape {:?}, expected F32 of shape [{n}]",
            tensor.ty.name(),
            tensor.shape
        )));
    }
    let (values, _) = gguf.bytes(tensor).as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|&b| f32::from_le_bytes(b)).collect();
    match values.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
        Some(x) => Err(Error::ModelFormat(format!(
            "tensor `{name}` holds {x}, expected positive numbers"
        ))),
        None => Ok(values),
    }
}

/// The frequencies of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    // (dim / 2) f32 each; the same where there is no long rope
    short: Vec<f32>,
    long: Vec<f32>,
    attn_factor: f32,
}

impl Rope {
    /// `1 / (factor * base^(2i/dim))`, rounded to f32 after each operation as `transformers` does: at position 4,000
    /// the rounding shows.
    pub fn new(config: &RopeConfig) -> Self {
        let powers: Vec<f32> = (0..config.dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / config.dim as f32;
                libm::pow(f64::from(config.base), f64::from(exponent)) as f32
            })
            .collect();
        let stretched = |factors: &[f32]| -> Vec<f32> {
            factors
                .iter()
                .zip(&powers)
                .map(|(factor, power)| 1.0 / (factor * power))
                .collect()
        };
        match &config.long {
            Some(long) => Self {
                short: stretched(&long.short),
                long: stretched(&long.long),
                attn_factor: long.attn_factor,
            },
            None => {
                let plain = stretched(&vec![1.0; powers.len()]);
                Self {
                    short: plain.clone(),
                    long: plain,
                    attn_factor: 1.0,
                }
            }
        }
    }

    /// Cosines and sines of `n` positions from `start`, each (n, dim / 2) f32, the attention factor included.
    pub fn tables(&self, regime: Regime, start: usize, n: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = match regime {
            Regime::Short => &self.short,
            Regime::Long => &self.long,
        };
        (start..start + n)
            .flat_map(|position| {
                frequencies.iter().map(move |f| {
                    let angle = f64::from(position as f32 * f);
                    (
                        libm::cos(angle) as f32 * self.attn_factor,
                        libm::sin(angle) as f32 * self.attn_factor,
                    )
                })
            })
            .unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regime_changes_after_the_original_context() {
        let mut config = RopeConfig {
            dim: 4,
            base: 10_000.0,
            long: None,
        };
        assert_eq!(config.regime(1 << 20), Regime::Short);
        config.long = Some(LongRope {
            original: 128,
            short: vec![1.0, 2.0],
            long: vec![4.0, 8.0],
            attn_factor: 1.5,
        });
        for (n, regime) in [
            (1, Regime::Short),
            (128, Regime::Short),
            (129, Regime::Long),
        ] {
            assert_eq!(config.regime(n), regime, "{n}");
            assert_eq!(config.regime(n + config.room(n).min(1 << 20)), regime);
        }
        let rope = Rope::new(&config);
        let (cos, sin) = rope.tables(Regime::Short, 0, 1);
        assert_eq!((cos, sin), (vec![1.5; 2], vec![0.0; 2]));
        // position 3, frequencies 1/4 and 1/(8 * 100)
        let (cos, _) = rope.tables(Regime::Long, 3, 1);
        assert!((cos[0] - 1.5 * 0.75f32.cos()).abs() < 1e-6);
        assert!((cos[1] - 1.5 * 0.00375f32.cos()).abs() < 1e-6);
    }

    #[test]
    fn the_attention_factor_is_that_of_phi3_128k() {
        // 1.190238 in llama.cpp's files of Phi-3-mini-128k
        assert!((default_attn_factor(131_072, 4096) - 1.190_238).abs() < 1e-6);
        assert_eq!(default_attn_factor(4096, 4096), 1.0);
    }
}
