//! Small phi3 models of random blocks, the same on every machine: integers and exact floats alone make them.

use std::path::Path;

use candlewick::gguf::GgmlType;
use half::f16;

const D: usize = 256;
const FF: usize = 512;
const HEADS: usize = 8;
const KV_HEADS: usize = 4;
const LAYERS: usize = 2;
const VOCAB: usize = 320;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// 0 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }
}

/// Q4_K, Q5_K and Q6_K mixed, as people use them.
pub fn q4_k_m(path: &Path) {
    write(path, None, |name| match name {
        "attn_qkv" => GgmlType::Q5_K,
        "ffn_down" | "output" => GgmlType::Q6_K,
        _ => GgmlType::Q4_K,
    });
}

/// All of Q8_0, with a sliding window that cuts keys off.
pub fn q8_0(path: &Path) {
    write(path, Some(100), |_| GgmlType::Q8_0);
}

/// Where a block has its half-precision scale and minimum, minimum / scale for a mean of zero, and the standard
/// deviation of the weights for a scale of 1 when all else is uniform.
fn layout(ty: GgmlType) -> (usize, Option<usize>, f32, f32) {
    match ty {
        GgmlType::Q4_K => (0, Some(2), 7.5, 258.0),
        GgmlType::Q5_K => (0, Some(2), 15.5, 527.0),
        GgmlType::Q6_K => (208, None, 0.0, 1370.0),
        _ => (0, None, 0.0, 73.9),
    }
}

/// Random blocks of `n` weights with about the given standard deviation.
fn blocks(rng: &mut Rng, ty: GgmlType, n: usize, std: f32) -> Vec<u8> {
    let (scale_at, min_at, ratio, unit) = layout(ty);
    let size = ty.block_bytes() as usize;
    let mut bytes: Vec<u8> = (0..n / ty.block_len() as usize * size)
        .map(|_| rng.next() as u8)
        .collect();
    for block in bytes.chunks_exact_mut(size) {
        let mut d = std / unit * (0.5 + rng.float());
        if let Some(at) = min_at {
            block[at..at + 2].copy_from_slice(&f16::from_f32(d * ratio).to_le_bytes());
        } else if rng.below(2) == 1 {
            d = -d;
        }
        block[scale_at..scale_at + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
    bytes
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// Metadata of a GGUF file.
#[derive(Default)]
struct Pairs {
    n: u64,
    bytes: Vec<u8>,
}

impl Pairs {
    fn add(&mut self, key: &str, ty: u32, value: &[u8]) {
        self.n += 1;
        string(&mut self.bytes, key);
        self.bytes.extend(ty.to_le_bytes());
        self.bytes.extend(value);
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.add(key, 4, &(value as u32).to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.add(key, 6, &value.to_le_bytes());
    }

    fn str(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        string(&mut bytes, value);
        self.add(key, 8, &bytes);
    }

    fn array(&mut self, key: &str, ty: u32, items: impl Iterator<Item = Vec<u8>>) {
        let items: Vec<_> = items.collect();
        let mut bytes = ty.to_le_bytes().to_vec();
        bytes.extend((items.len() as u64).to_le_bytes());
        bytes.extend(items.concat());
        self.add(key, 9, &bytes);
    }
}

fn metadata(window: Option<usize>) -> Pairs {
    let mut pairs = Pairs::default();
    pairs.str("general.architecture", "phi3");
    for (key, value) in [
        ("context_length", 1024),
        ("embedding_length", D),
        ("feed_forward_length", FF),
        ("block_count", LAYERS),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", D / HEADS),
    ] {
        pairs.u32(&format!("phi3.{key}"), value);
    }
    if let Some(window) = window {
        pairs.u32("phi3.attention.sliding_window", window);
    }
    pairs.f32("phi3.attention.layer_norm_rms_epsilon", 1e-5);
    pairs.f32("phi3.rope.freq_base", 10_000.0);
    pairs.str("tokenizer.ggml.model", "llama");
    // The unknown token, the ends of a text, bytes, and pieces of no meaning.
    let tokens = (0..VOCAB).map(|id| match id {
        0 => "<unk>".into(),
        1 => "<s>".into(),
        2 => "</s>".into(),
        3..259 => format!("<0x{:02X}>", id - 3),
        _ => format!("piece{id}"),
    });
    let types = (0..VOCAB).map(|id| match id {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1i32,
    });
    pairs.array(
        "tokenizer.ggml.tokens",
        8,
        tokens.map(|token: String| {
            let mut bytes = Vec::new();
            string(&mut bytes, &token);
            bytes
        }),
    );
    pairs.array(
        "tokenizer.ggml.scores",
        6,
        (0..VOCAB).map(|id| (-(id as f32)).to_le_bytes().to_vec()),
    );
    pairs.array(
        "tokenizer.ggml.token_type",
        5,
        types.map(|ty| ty.to_le_bytes().to_vec()),
    );
    pairs
}

/// Writes a model whose matrices have the type that `type_of` gives for the last part of their names.
fn write(path: &Path, window: Option<usize>, type_of: impl Fn(&str) -> GgmlType) {
    let mut rng = Rng(1);
    let (mut infos, mut data, mut n) = (Vec::new(), Vec::new(), 0u64);
    let mut add = |name: &str, rows: usize, cols: usize, gain: f32| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let (ty, bytes) = if rows == 0 {
            let values = (0..cols).flat_map(|_| (0.5 + rng.float()).to_le_bytes());
            (GgmlType::F32, values.collect())
        } else {
            let ty = type_of(last);
            let std = gain / (cols as f32).sqrt();
            (ty, blocks(&mut rng, ty, rows * cols, std))
        };
        string(&mut infos, &format!("{name}.weight"));
        // The fastest dimension first; a vector has one.
        let dims = [cols as u64, rows as u64];
        let dims = &dims[..if rows == 0 { 1 } else { 2 }];
        infos.extend((dims.len() as u32).to_le_bytes());
        infos.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        infos.extend(ty.id().to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend::<Vec<u8>>(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
        n += 1;
    };
    let head = D / HEADS;
    add("token_embd", VOCAB, D, 16.0);
    add("output_norm", 0, D, 0.0);
    add("output", VOCAB, D, 2.0);
    for i in 0..LAYERS {
        let mut block = |name: &str, rows, cols, gain| {
            add(&format!("blk.{i}.{name}"), rows, cols, gain);
        };
        block("attn_norm", 0, D, 0.0);
        block("attn_qkv", (HEADS + 2 * KV_HEADS) * head, D, 1.4);
        block("attn_output", D, D, 1.4);
        block("ffn_norm", 0, D, 0.0);
        block("ffn_up", 2 * FF, D, 1.2);
        block("ffn_down", D, FF, 1.2);
    }
    let pairs = metadata(window);
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(n.to_le_bytes());
    file.extend(pairs.n.to_le_bytes());
    file.extend(pairs.bytes);
    file.extend(infos);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    std::fs::write(path, file).unwrap();
}
