//! The keys under `phi3.` and `phi2.`: what each means, and getters that check.
//!
//! The names are those of llama.cpp's `llama-arch.cpp` and of the `gguf` package (0.19, `constants.Keys`); each of
//! them is in this table, which a test holds against that package.

use super::config::Architecture;
use crate::error::{Error, Result};
use crate::gguf::{Audit, Meaning, Metadata, Neutral};

use Meaning::{Harmless, Off, Refused, Used};

const ZERO: Meaning = Off(Neutral::Number(0.0));
const ONE: Meaning = Off(Neutral::Number(1.0));
const FALSE: Meaning = Off(Neutral::Bool(false));
const TRUE: Meaning = Off(Neutral::Bool(true));
const EXPERTS: Meaning = Refused("a mixture of experts");
const ENCODER: Meaning = Refused("an encoder");
const LATENT: Meaning = Refused("low-rank attention");
const LAYER_WINDOWS: Meaning = Refused("windows that differ between layers");
const YARN: Meaning = Refused("YaRN scaling of the rotary embedding");

/// Names without the architecture in front; those of [`by_architecture`] are not here.
const MEANINGS: &[(&str, Meaning)] = &[
    // The embedding's rows are what counts; the tokenizer is held against them.
    ("vocab_size", Harmless),
    ("context_length", Used),
    ("embedding_length", Used),
    (
        "embedding_length_out",
        Refused("an output of another width"),
    ),
    ("features_length", ENCODER),
    ("block_count", Used),
    ("leading_dense_block_count", ZERO),
    ("feed_forward_length", Used),
    ("expert_feed_forward_length", ZERO),
    ("expert_shared_feed_forward_length", ZERO),
    ("expert_chunk_feed_forward_length", ZERO),
    ("tensor_data_layout", Off(Neutral::Text("reference"))),
    ("expert_count", ZERO),
    ("expert_used_count", ZERO),
    ("expert_shared_count", ZERO),
    ("expert_group_count", ZERO),
    ("expert_group_used_count", ZERO),
    ("expert_weights_scale", EXPERTS),
    ("expert_weights_norm", EXPERTS),
    ("expert_gating_func", EXPERTS),
    ("expert_group_scale", EXPERTS),
    ("experts_per_group", EXPERTS),
    ("moe_every_n_layers", ZERO),
    ("moe_latent_size", ZERO),
    ("interleave_moe_layer_step", ZERO),
    ("nextn_predict_layers", ZERO),
    ("n_deepstack_layers", ZERO),
    // How a text's embedding is made of its tokens'; nothing here asks for one.
    ("pooling_type", Harmless),
    ("logit_scale", ONE),
    ("decoder_start_token_id", ENCODER),
    ("decoder_block_count", ENCODER),
    ("attn_logit_softcapping", ZERO),
    ("router_logit_softcapping", EXPERTS),
    ("final_logit_softcapping", ZERO),
    ("swin_norm", FALSE),
    ("rescale_every_n_layers", ZERO),
    ("time_mix_extra_dim", ZERO),
    ("time_decay_extra_dim", ZERO),
    ("residual_scale", ONE),
    ("embedding_scale", ONE),
    ("token_shift_count", ZERO),
    ("full_attention_interval", LAYER_WINDOWS),
    ("activation_sparsity_scale", Refused("sparse activations")),
    ("altup.active_idx", Refused("alternating updates")),
    ("altup.num_inputs", Refused("alternating updates")),
    ("embedding_length_per_layer_input", ZERO),
    ("swiglu_clamp_exp", EXPERTS),
    ("swiglu_clamp_shexp", EXPERTS),
    ("attention.head_count", Used),
    ("attention.head_count_kv", Used),
    ("attention.max_alibi_bias", ZERO),
    ("attention.clamp_kqv", ZERO),
    ("attention.key_length", Used),
    ("attention.value_length", Used),
    ("attention.group_norm_epsilon", Refused("a group norm")),
    ("attention.group_norm_groups", Refused("a group norm")),
    ("attention.causal", TRUE),
    ("attention.q_lora_rank", LATENT),
    ("attention.kv_lora_rank", LATENT),
    ("attention.decay_lora_rank", LATENT),
    ("attention.iclr_lora_rank", LATENT),
    ("attention.value_residual_mix_lora_rank", LATENT),
    ("attention.gate_lora_rank", LATENT),
    ("attention.relative_buckets_count", ZERO),
    ("attention.sliding_window", Used),
    ("attention.sliding_window_pattern", LAYER_WINDOWS),
    // 0 is the usual 1 / sqrt(head_dim).
    ("attention.scale", ZERO),
    ("attention.output_scale", ZERO),
    ("attention.temperature_length", ZERO),
    ("attention.temperature_scale", ZERO),
    ("attention.key_length_mla", LATENT),
    ("attention.value_length_mla", LATENT),
    ("attention.key_length_swa", LAYER_WINDOWS),
    ("attention.value_length_swa", LAYER_WINDOWS),
    ("attention.shared_kv_layers", ZERO),
    ("attention.indexer.head_count", Refused("sparse attention")),
    ("attention.indexer.key_length", Refused("sparse attention")),
    ("attention.indexer.top_k", Refused("sparse attention")),
    ("rope.dimension_count", Used),
    ("rope.dimension_count_swa", LAYER_WINDOWS),
    (
        "rope.dimension_sections",
        Refused("a rotary embedding of several axes"),
    ),
    ("rope.freq_base", Used),
    ("rope.freq_base_swa", LAYER_WINDOWS),
    ("rope.scaling.type", Used),
    ("rope.scaling.factor", ONE),
    (
        "rope.scaling.alpha",
        Refused("dynamic scaling of the rotary embedding"),
    ),
    ("rope.scaling.attn_factor", Used),
    ("rope.scaling.original_context_length", Used),
    // Says how the model was trained.
    ("rope.scaling.finetuned", Harmless),
    ("rope.scaling.yarn_log_multiplier", YARN),
    ("rope.scaling.yarn_ext_factor", YARN),
    ("rope.scaling.yarn_attn_factor", YARN),
    ("rope.scaling.yarn_beta_fast", YARN),
    ("rope.scaling.yarn_beta_slow", YARN),
];

/// Families of names that belong to other kinds of models.
const FOREIGN: &[(&str, Meaning)] = &[
    ("ssm.", Refused("a state-space model")),
    ("kda.", Refused("linear attention")),
    ("wkv.", Refused("linear attention")),
    ("posnet.", Refused("a network for audio")),
    ("convnext.", Refused("a network for audio")),
    ("classifier.", Refused("a classifier")),
    ("shortconv.", Refused("convolutions")),
    ("dense_", Refused("layers behind the output")),
];

/// What differs between the two.
fn by_architecture(architecture: Architecture, name: &str) -> Option<Meaning> {
    use Architecture::{Phi2, Phi3};
    Some(match (name, architecture) {
        ("use_parallel_residual", Phi2) => TRUE,
        ("use_parallel_residual", Phi3) => FALSE,
        ("attention.layer_norm_epsilon", Phi2) => Used,
        ("attention.layer_norm_epsilon", Phi3) => Refused("LayerNorm in a model with RMSNorm"),
        ("attention.layer_norm_rms_epsilon", Phi3) => Used,
        ("attention.layer_norm_rms_epsilon", Phi2) => Refused("RMSNorm in a model with LayerNorm"),
        _ => return None,
    })
}

fn meaning(architecture: Architecture, name: &str) -> Option<Meaning> {
    by_architecture(architecture, name).or_else(|| {
        let exact = MEANINGS.iter().find(|row| row.0 == name);
        let family = || FOREIGN.iter().find(|row| name.starts_with(row.0));
        exact.or_else(family).map(|row| row.1)
    })
}

/// The keys of one file under its architecture's name.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: Architecture,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, architecture: Architecture) -> Self {
        Self {
            metadata,
            architecture,
        }
    }

    /// Which of them are used, and which change nothing; an error for all others.
    pub(super) fn audit(&self) -> Result<Audit> {
        let prefix = format!("{}.", self.architecture.name());
        Audit::of_keys(self.metadata, &prefix, |name| {
            meaning(self.architecture, name)
        })
    }

    /// The key as the file has it.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name())
    }

    /// The error for a key that must be there.
    pub(super) fn missing(&self, name: &str) -> Error {
        Error::ModelFormat(format!("metadata key `{}` is missing", self.name(name)))
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.name(name))
    }

    /// An integer from 0.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.metadata.u32(&self.name(name))?.map(|n| n as usize))
    }

    /// An integer from 1 to `max`.
    pub(super) fn count(&self, name: &str, max: usize) -> Result<Option<usize>> {
        match self.number(name)? {
            Some(n) if !(1..=max).contains(&n) => Err(Error::ModelFormat(format!(
                "metadata key `{}` is {n}, expected 1 to {max}",
                self.name(name)
            ))),
            found => Ok(found),
        }
    }

    /// An integer from 1 to `max` that must be there.
    pub(super) fn required(&self, name: &str, max: usize) -> Result<usize> {
        self.count(name, max)?.ok_or_else(|| self.missing(name))
    }

    /// A number above zero.
    pub(super) fn positive(&self, name: &str) -> Result<Option<f32>> {
        let key = self.name(name);
        match self.metadata.f32(&key)? {
            Some(x) if !(x.is_finite() && x > 0.0) => Err(Error::ModelFormat(format!(
                "metadata key `{key}` is {x}, expected a positive number"
            ))),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_in_the_table_twice() {
        let mut names: Vec<_> = MEANINGS.iter().map(|row| row.0).collect();
        names.sort_unstable();
        let n = names.len();
        names.dedup();
        assert_eq!(names.len(), n);
    }

    #[test]
    fn names_are_told_apart() {
        for (architecture, name, expected) in [
            (Architecture::Phi3, "block_count", Some(Used)),
            (Architecture::Phi2, "use_parallel_residual", Some(TRUE)),
            (Architecture::Phi3, "use_parallel_residual", Some(FALSE)),
            (
                Architecture::Phi3,
                "ssm.anything",
                Some(Refused("a state-space model")),
            ),
            (Architecture::Phi3, "attention.softcap", None),
        ] {
            assert_eq!(meaning(architecture, name), expected, "{name}");
        }
    }
}
