//! Keys and values of one sequence, as Candle tensors that grow with use.
//!
//! With a sliding window, what no later query can see is dropped when room is needed, so that memory is
//! bounded by the window and not by the context.

use candle_core::{DType, Device, Tensor};

use crate::engine::{CHUNK, KvType};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::Config;

/// Tokens of the first allocation; it doubles from there.
const FIRST_ROOM: usize = 256;

pub(super) struct Cache {
    // (keys, values) per layer, each (kv_heads, room, head_dim)
    layers: Vec<Option<(Tensor, Tensor)>>,
    shape: (usize, usize),
    dtype: DType,
    device: Device,
    room: usize,
    max_room: usize,
    // Position of the first token kept, and one past the last
    first: usize,
    end: usize,
    window: Option<usize>,
    n_ctx: usize,
    bytes_per_token: u64,
}

/// Candle has no quantized tensors that could grow: q8_0 is refused before.
fn dtype(kv_type: KvType) -> DType {
    if kv_type == KvType::F32 {
        DType::F32
    } else {
        DType::F16
    }
}

/// Bytes of one element.
pub(super) fn element_bytes(kv_type: KvType) -> usize {
    dtype(kv_type).size_in_bytes()
}

impl Cache {
    pub(super) fn new(config: &Config, kv_type: KvType, n_ctx: usize, device: &Device) -> Self {
        // Twice the window, so that dropping what is out of sight copies each key once per window and not per token.
        let max_room = config
            .sliding_window
            .map_or(n_ctx, |w| n_ctx.min(2 * w + CHUNK));
        Self {
            layers: vec![None; config.n_layers],
            shape: (config.n_kv_heads, config.head_dim),
            dtype: dtype(kv_type),
            device: device.clone(),
            room: 0,
            max_room,
            first: 0,
            end: 0,
            window: config.sliding_window,
            n_ctx,
            bytes_per_token: config.kv_bytes_per_token(element_bytes(kv_type)),
        }
    }

    /// Tokens so far: the next one's position.
    pub(super) fn n_past(&self) -> usize {
        self.end
    }

    /// Position of the first key that is kept.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Makes room for `n` more tokens in every layer.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        if self.end + n > self.n_ctx {
            return Err(Error::Engine(format!(
                "{} tokens in a context of {}",
                self.end + n,
                self.n_ctx
            )));
        }
        let kept = self.end - self.first;
        if kept + n <= self.room {
            return Ok(());
        }
        // The next query, at `end`, sees keys after `end - window`.
        let visible = self.window.map_or(kept, |w| kept.min(w - 1));
        let room = if visible + n <= self.room && 2 * visible <= self.room {
            self.room
        } else {
            (kept + n)
                .next_power_of_two()
                .max(FIRST_ROOM)
                .min(self.max_room)
        };
        let dropped = kept - if kept + n <= room { kept } else { visible };
        let kept = kept - dropped;
        if room > self.room && self.device.is_cpu() {
            // Layer by layer the old room is given back: what is wanted is the difference, and one layer twice.
            let bytes = |tokens: usize| tokens as u64 * self.bytes_per_token;
            let needed = bytes(room - self.room) + bytes(self.room) / self.layers.len() as u64;
            if let Some(available) = memory::available().filter(|&a| needed > a) {
                return Err(Error::OutOfMemory {
                    what: format!("growing the KV cache to {room} tokens"),
                    needed,
                    available,
                    remedy: "use a smaller n_ctx or max_tokens, or fewer streams at once".into(),
                });
            }
        }
        let (heads, dim) = self.shape;
        for layer in &mut self.layers {
            let fresh = || Tensor::zeros((heads, room, dim), self.dtype, &self.device);
            let (k, v) = (fresh()?, fresh()?);
            if let Some((old_k, old_v)) = layer.take().filter(|_| kept > 0) {
                k.slice_set(&old_k.narrow(1, dropped, kept)?.contiguous()?, 1, 0)?;
                v.slice_set(&old_v.narrow(1, dropped, kept)?.contiguous()?, 1, 0)?;
            }
            *layer = Some((k, v));
        }
        self.room = room;
        self.first += dropped;
        Ok(())
    }

    /// Writes one layer's new keys and values, (kv_heads, n, head_dim), and returns all that are kept, in f32.
    pub(super) fn append(
        &self,
        layer: usize,
        k: &Tensor,
        v: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (all_k, all_v) = self.layers[layer]
            .as_ref()
            .expect("reserved before the step");
        let (at, n) = (self.end - self.first, k.dim(1)?);
        let write = |all: &Tensor, new: &Tensor| -> candle_core::Result<Tensor> {
            all.slice_set(&new.to_dtype(self.dtype)?.contiguous()?, 1, at)?;
            all.narrow(1, 0, at + n)?.to_dtype(DType::F32)
        };
        Ok((write(all_k, k)?, write(all_v, v)?))
    }

    /// The step is done in every layer.
    pub(super) fn advance(&mut self, n: usize) {
        self.end += n;
    }
}
