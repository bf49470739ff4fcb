//! How much memory a model takes here, told from its header.

use super::KvType;
use super::cache;
use crate::gguf::Header;
use crate::kernels::{Heads, KvFormat, Matrix, PageLayout};
use crate::model::Dimensions;

/// Bytes of the matrices that are copied from the file: everything that is multiplied with.
pub fn weight_bytes(header: &Header) -> u64 {
    let tied = header.tensor("output.weight").is_none();
    let matrices = header.tensors().iter().filter(|tensor| {
        let is_embedding = tensor.name == "token_embd.weight";
        tensor.shape.len() == 2 && (tied || !is_embedding)
    });
    matrices
        .map(|t| Matrix::n_bytes(t.ty, t.shape[0], t.shape[1]) as u64)
        .sum()
}

/// Bytes of the keys and values of one sequence of `n_tokens`, at the moment when they are most.
pub fn context_bytes(model: &Dimensions, kv_type: KvType, n_tokens: usize) -> u64 {
    let heads = heads(model, kv_type);
    let n_pages = cache::most_pages(n_tokens, heads.window);
    n_pages as u64 * (model.n_layers * heads.page_bytes()) as u64
}

pub(super) fn heads(model: &Dimensions, kv_type: KvType) -> Heads {
    Heads {
        n_heads: model.n_heads,
        n_kv_heads: model.n_kv_heads,
        layout: PageLayout {
            format: match kv_type {
                KvType::F32 => KvFormat::F32,
                KvType::F16 => KvFormat::F16,
                KvType::Q8_0 => KvFormat::Q8,
            },
            head_dim: model.head_dim,
        },
        window: model.sliding_window.unwrap_or(usize::MAX),
    }
}
