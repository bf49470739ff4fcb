//! GGUF metadata of the `phi3` architecture -> one checked [`Config`].
//!
//! A key under `phi3.` that is neither used here nor known to change nothing is refused by name: a file
//! that needs something this package does not do must not load and talk nonsense.

use crate::error::{Error, Result};
use crate::gguf::{Gguf, Metadata};

/// Hyperparameters of a Phi-3 model. Every field is within bounds and consistent with the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads` (grouped-query attention, arXiv:2305.13245).
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the feed-forward layer, before the gate doubles it.
    pub d_ff: usize,
    /// Rows of the embedding.
    pub n_vocab: usize,
    /// Tokens the model was made for.
    pub n_ctx: usize,
    /// Epsilon of RMSNorm.
    pub rms_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Keys each query sees, itself included; `None` is all of them.
    pub sliding_window: Option<usize>,
    /// The embedding serves as output matrix.
    pub tied_output: bool,
}

/// Rotary position embedding (arXiv:2104.09864), in the NEOX layout: halves, not pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Dimensions of a head that are rotated; the rest pass through.
    pub dim: usize,
    /// Base of the frequencies.
    pub base: f32,
}

/// Keys under `phi3.` that do not change the result here: descriptions, or duplicates of what is checked elsewhere.
const HARMLESS: &[&str] = &["vocab_size", "rope.scaling.original_context_length"];

const KNOWN: &[&str] = &[
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "block_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.attn_factor",
];

/// (layers, width, context) of the published models whose early files lack `attention.sliding_window`:
/// Phi-3-mini-4k and Phi-3-medium-4k have `"sliding_window": 2047` in their config.json.
const PUBLISHED_WINDOWS: [(usize, usize, usize, usize); 2] =
    [(32, 3072, 4096, 2047), (40, 5120, 4096, 2047)];

/// No published model comes near; it bounds what a hostile file can make anyone allocate or loop over.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 12;
const MAX_CONTEXT: usize = 1 << 24;

impl Config {
    /// Reads and checks the metadata of `gguf`.
    ///
    /// # Errors
    /// `Unsupported` for another architecture or an unknown key; `ModelFormat` for missing, mistyped or
    /// impossible values.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let metadata = &gguf.metadata;
        let architecture = metadata.str("general.architecture")?.ok_or_else(|| {
            Error::ModelFormat("metadata key `general.architecture` is missing".into())
        })?;
        if architecture != "phi3" {
            return Err(Error::Unsupported(format!(
                "the architecture is `{architecture}`, supported: `phi3` (Phi-3-mini, Phi-3-medium and their kin)"
            )));
        }
        refuse_unknown_keys(metadata)?;

        let d_model = required(metadata, "embedding_length", MAX_WIDTH)?;
        let n_heads = required(metadata, "attention.head_count", MAX_HEADS)?;
        let n_kv_heads =
            optional(metadata, "attention.head_count_kv", MAX_HEADS)?.unwrap_or(n_heads);
        if !d_model.is_multiple_of(n_heads) {
            return Err(impossible(format!(
                "`phi3.embedding_length` {d_model} is not a multiple of `phi3.attention.head_count` {n_heads}"
            )));
        }
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(impossible(format!(
                "`phi3.attention.head_count` {n_heads} is not a multiple of `phi3.attention.head_count_kv` {n_kv_heads}"
            )));
        }
        let head_dim = d_model / n_heads;
        for key in ["attention.key_length", "attention.value_length"] {
            if let Some(found) = optional(metadata, key, MAX_WIDTH)?.filter(|&n| n != head_dim) {
                return Err(Error::Unsupported(format!(
                    "`phi3.{key}` is {found}, supported: embedding_length / head_count = {head_dim}"
                )));
            }
        }
        let rope_dim = optional(metadata, "rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_dim);
        if rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(impossible(format!(
                "`phi3.rope.dimension_count` is {rope_dim}, expected an even number up to the head's {head_dim}"
            )));
        }
        let base = positive(metadata, "rope.freq_base")?.unwrap_or(10_000.0);
        let rms_eps = positive(metadata, "attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| missing("attention.layer_norm_rms_epsilon"))?;
        refuse_long_rope(gguf)?;

        let n_layers = required(metadata, "block_count", MAX_LAYERS)?;
        let n_ctx = required(metadata, "context_length", MAX_CONTEXT)?;
        let sliding_window = match metadata.u32("phi3.attention.sliding_window")? {
            Some(window) => Some(window as usize),
            None => PUBLISHED_WINDOWS
                .iter()
                .find(|row| (row.0, row.1, row.2) == (n_layers, d_model, n_ctx))
                .map(|row| row.3),
        };
        let embedding = gguf
            .tensor("token_embd.weight")
            .ok_or_else(|| Error::ModelFormat("tensor `token_embd.weight` is missing".into()))?;
        Ok(Self {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff: required(metadata, "feed_forward_length", MAX_WIDTH)?,
            n_vocab: embedding.shape[0],
            n_ctx,
            rms_eps,
            rope: RopeConfig {
                dim: rope_dim,
                base,
            },
            // 0, and a window that the context never leaves, mean off.
            sliding_window: sliding_window.filter(|&w| w > 0 && w < n_ctx),
            tied_output: gguf.tensor("output.weight").is_none(),
        })
    }

    /// Width of the fused query, key and value projection.
    pub fn d_qkv(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Bytes of keys and values for one token, all layers, at `element_bytes` each.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> u64 {
        2 * (self.n_layers * self.n_kv_heads * self.head_dim * element_bytes) as u64
    }
}

fn refuse_unknown_keys(metadata: &Metadata) -> Result<()> {
    for (key, _) in metadata.iter() {
        if let Some(name) = key.strip_prefix("phi3.")
            && !KNOWN.contains(&name)
            && !HARMLESS.contains(&name)
        {
            return Err(Error::Unsupported(format!(
                "metadata key `{key}` is not understood and may change the result: a newer candlewick may know it"
            )));
        }
    }
    Ok(())
}

/// Phi-3-128k, Phi-3.5 and Phi-4-mini stretch the rotary embedding (LongRoPE, arXiv:2402.13753).
fn refuse_long_rope(gguf: &Gguf) -> Result<()> {
    let metadata = &gguf.metadata;
    let scaling = metadata
        .str("phi3.rope.scaling.type")?
        .is_some_and(|s| s != "none");
    let factor = metadata
        .f32("phi3.rope.scaling.attn_factor")?
        .is_some_and(|f| f != 1.0);
    let tensors = ["rope_factors_long.weight", "rope_factors_short.weight"];
    if scaling || factor || tensors.iter().any(|name| gguf.tensor(name).is_some()) {
        return Err(Error::Unsupported(
            "this model scales its rotary embedding (long rope, as Phi-3-128k, Phi-3.5 and Phi-4-mini do), which \
             is not supported yet: use a 4k model, such as microsoft/Phi-3-mini-4k-instruct-gguf"
                .into(),
        ));
    }
    Ok(())
}

fn missing(name: &str) -> Error {
    Error::ModelFormat(format!("metadata key `phi3.{name}` is missing"))
}

fn impossible(what: String) -> Error {
    Error::ModelFormat(what)
}

fn optional(metadata: &Metadata, name: &str, max: usize) -> Result<Option<usize>> {
    let key = format!("phi3.{name}");
    match metadata.u32(&key)? {
        None => Ok(None),
        Some(n) if (1..=max).contains(&(n as usize)) => Ok(Some(n as usize)),
        Some(n) => Err(impossible(format!(
            "metadata key `{key}` is {n}, expected 1 to {max}"
        ))),
    }
}

fn required(metadata: &Metadata, name: &str, max: usize) -> Result<usize> {
    optional(metadata, name, max)?.ok_or_else(|| missing(name))
}

fn positive(metadata: &Metadata, name: &str) -> Result<Option<f32>> {
    let key = format!("phi3.{name}");
    match metadata.f32(&key)? {
        Some(x) if !(x.is_finite() && x > 0.0) => Err(impossible(format!(
            "metadata key `{key}` is {x}, expected a positive number"
        ))),
        found => Ok(found),
    }
}
