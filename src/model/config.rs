//! GGUF metadata of the `phi3` and `phi2` architectures -> one checked [`Config`].
//!
//! What each key means, and which are refused, is in [`super::keys`]; the rotary embedding is in [`super::rope`].

use super::keys::Keys;
use super::rope::RopeConfig;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Metadata};

/// Which model the file describes (`general.architecture`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Phi-2: LayerNorm, biases, attention and feed-forward side by side.
    Phi2,
    /// Phi-3, Phi-3.5 and Phi-4: RMSNorm, a gated feed-forward layer after the attention.
    Phi3,
}

impl Architecture {
    /// As the file writes it, which is also the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Phi2 => "phi2",
            Self::Phi3 => "phi3",
        }
    }
}

/// How activations are normalised before attention, before the feed-forward layer and before the output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + eps) * weight` (arXiv:1910.07467).
    Rms {
        /// Keeps the divisor above zero.
        eps: f32,
    },
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, with the variance over n (arXiv:1607.06450).
    Layer {
        /// Keeps the divisor above zero.
        eps: f32,
    },
}

/// The feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// `down(silu(gate) * up)`, with gate and up as halves of one matrix (arXiv:2002.05202).
    GatedSilu,
    /// `down(gelu(up))`, GELU by its tanh approximation (`gelu_new` of `transformers`).
    Gelu,
}

/// Hyperparameters of a model. Every field is within bounds and consistent with the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which family of models.
    pub architecture: Architecture,
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
    /// Width of the feed-forward layer, before a gate doubles it.
    pub d_ff: usize,
    /// Rows of the embedding.
    pub n_vocab: usize,
    /// Tokens the model was made for.
    pub n_ctx: usize,
    /// The kind of every norm.
    pub norm: Norm,
    /// The feed-forward layer.
    pub ffn: FeedForward,
    /// Attention and feed-forward layer read the same norm of the same input, and both are added to it; otherwise
    /// the feed-forward layer has a norm of its own and sees what the attention gave.
    pub parallel_block: bool,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Keys each query sees, itself included; `None` is all of them.
    pub sliding_window: Option<usize>,
    /// The embedding serves as output matrix.
    pub tied_output: bool,
}

/// What of a model its keys and values depend on, which its header alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Which family of models.
    pub architecture: Architecture,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens the model was made for.
    pub n_ctx: usize,
    /// Keys each query sees, itself included; `None` is all of them.
    pub sliding_window: Option<usize>,
    // A model of this shape and context has been published.
    published: bool,
}

/// (layers, width, context, `sliding_window` of its config.json) of published models whose early files lack
/// `attention.sliding_window`: Phi-3-mini-4k, Phi-3-medium-4k, then Phi-3-mini-128k and Phi-3.5-mini, and
/// Phi-3-medium-128k, whose windows the context never leaves.
const PUBLISHED_WINDOWS: [(usize, usize, usize, usize); 4] = [
    (32, 3072, 4096, 2047),
    (40, 5120, 4096, 2047),
    (32, 3072, 131_072, 262_144),
    (40, 5120, 131_072, 131_072),
];

/// No published model comes near; it bounds what a hostile file can make anyone allocate or loop over.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 12;
const MAX_CONTEXT: usize = 1 << 24;

impl Dimensions {
    /// Reads and checks `metadata`.
    ///
    /// # Errors
    /// As [`Config::from_gguf`].
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let architecture = architecture(metadata)?;
        let keys = Keys::new(metadata, architecture);
        keys.audit()?;

        let d_model = keys.required("embedding_length", MAX_WIDTH)?;
        let n_heads = keys.required("attention.head_count", MAX_HEADS)?;
        let n_kv_heads = keys
            .count("attention.head_count_kv", MAX_HEADS)?
            .unwrap_or(n_heads);
        let head_dim = divided(&keys, "embedding_length", d_model, n_heads)?;
        divided(&keys, "attention.head_count", n_heads, n_kv_heads)?;
        for key in ["attention.key_length", "attention.value_length"] {
            if let Some(found) = keys.count(key, MAX_WIDTH)?.filter(|&n| n != head_dim) {
                return Err(Error::Unsupported(format!(
                    "`{}` is {found}, supported: embedding_length / head_count = {head_dim}",
                    keys.name(key)
                )));
            }
        }
        let n_layers = keys.required("block_count", MAX_LAYERS)?;
        let n_ctx = keys.required("context_length", MAX_CONTEXT)?;
        let published = PUBLISHED_WINDOWS.iter().find(|row| {
            architecture == Architecture::Phi3
                && (row.0, row.1, row.2) == (n_layers, d_model, n_ctx)
        });
        let sliding_window = match keys.number("attention.sliding_window")? {
            Some(window) => Some(window),
            None => published.map(|row| row.3),
        };
        Ok(Self {
            architecture,
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ctx,
            // 0, and a window that the context never leaves, mean off.
            sliding_window: sliding_window.filter(|&w| w > 0 && w < n_ctx),
            published: published.is_some(),
        })
    }
}

impl Config {
    /// Reads and checks the metadata of `gguf`.
    ///
    /// # Errors
    /// `Unsupported` for another architecture or a key whose effect is not known; `ModelFormat` for missing,
    /// mistyped or impossible values.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let Dimensions {
            architecture,
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ctx,
            sliding_window,
            published,
        } = Dimensions::read(&gguf.metadata)?;
        let keys = Keys::new(&gguf.metadata, architecture);
        let embedding = gguf
            .tensor("token_embd.weight")
            .ok_or_else(|| Error::ModelFormat("tensor `token_embd.weight` is missing".into()))?;
        let eps = |key: &str| keys.positive(key)?.ok_or_else(|| keys.missing(key));
        Ok(Self {
            architecture,
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            head_dim,
            d_ff: keys.required("feed_forward_length", MAX_WIDTH)?,
            n_vocab: embedding.shape[0],
            n_ctx,
            norm: match architecture {
                Architecture::Phi2 => Norm::Layer {
                    eps: eps("attention.layer_norm_epsilon")?,
                },
                Architecture::Phi3 => Norm::Rms {
                    eps: eps("attention.layer_norm_rms_epsilon")?,
                },
            },
            ffn: match architecture {
                Architecture::Phi2 => FeedForward::Gelu,
                Architecture::Phi3 => FeedForward::GatedSilu,
            },
            parallel_block: architecture == Architecture::Phi2,
            rope: RopeConfig::read(gguf, &keys, head_dim, n_ctx, published)?,
            sliding_window,
            tied_output: gguf.tensor("output.weight").is_none(),
        })
    }

    /// Width of queries, keys and values together.
    pub fn d_qkv(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Width of the queries.
    pub fn d_q(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    pub fn d_kv(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Outputs of the first matrix of the feed-forward layer.
    pub fn d_ffn_up(&self) -> usize {
        match self.ffn {
            FeedForward::GatedSilu => 2 * self.d_ff,
            FeedForward::Gelu => self.d_ff,
        }
    }

    /// Bytes of keys and values for one token, all layers, at `element_bytes` each.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> u64 {
        2 * (self.n_layers * self.d_kv() * element_bytes) as u64
    }
}

fn architecture(metadata: &Metadata) -> Result<Architecture> {
    match metadata.str("general.architecture")? {
        Some("phi2") => Ok(Architecture::Phi2),
        Some("phi3") => Ok(Architecture::Phi3),
        Some(other) => Err(Error::Unsupported(format!(
            "the architecture is `{other}`, supported: `phi3` (Phi-3, Phi-3.5, Phi-4, Phi-4-mini) and `phi2` (Phi-2)"
        ))),
        None => Err(Error::ModelFormat(
            "metadata key `general.architecture` is missing".into(),
        )),
    }
}

/// `whole / parts`, where `key` names the whole.
fn divided(keys: &Keys, key: &str, whole: usize, parts: usize) -> Result<usize> {
    if whole.is_multiple_of(parts) {
        return Ok(whole / parts);
    }
    let by = match key {
        "embedding_length" => "attention.head_count",
        _ => "attention.head_count_kv",
    };
    Err(Error::ModelFormat(format!(
        "`{}` {whole} is not a multiple of `{}` {parts}",
        keys.name(key),
        keys.name(by)
    )))
}
