use half::f16;

use super::guard::Guarded;
use super::{Rng, U, assert_same_bits, scalar, tiers};
use crate::kernels::activations::{InputKind, Writer};
use crate::kernels::pages::{KvFormat, PAGE, PageLayout};

/// Lengths around the vectors'.
const LENS: [usize; 9] = [1, 7, 15, 16, 17, 33, 96, 255, 3072];

#[test]
fn rms_norm_and_add() {
    let mut rng = Rng(5);
    for len in LENS {
        let (x, y) = (
            Guarded::new(&rng.floats(len)),
            Guarded::new(&rng.floats(len)),
        );
        let weight = Guarded::new(&rng.floats(len));
        let mut expected = vec![f32::NAN; len];
        // SAFETY: the plain tier is on every CPU.
        unsafe { (scalar().rms_norm)(&x, &weight, 1e-5, &mut expected) };
        for (isa, tier) in tiers() {
            let mut out = Guarded::new(&vec![f32::NAN; len]);
            // SAFETY: the tier is available.
            unsafe { (tier.rms_norm)(&x, &weight, 1e-5, &mut out) };
            assert_same_bits(&out, &expected, &format!("rms_norm {} {len}", isa.name()));
            let mut sums = Guarded::new(&x);
            // SAFETY: as above.
            unsafe { (tier.add)(&mut sums, &y) };
            let expected: Vec<f32> = x.iter().zip(y.iter()).map(|(x, y)| x + y).collect();
            assert_same_bits(&sums, &expected, &format!("add {} {len}", isa.name()));
        }
        // The squares are positive: their sum, and all that follows it, is within len / 16 + 12 roundings.
        let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = 1.0 / (squares / len as f64 + 1e-5).sqrt();
        for ((got, x), w) in expected.iter().zip(x.iter()).zip(weight.iter()) {
            let exact = f64::from(*x) * scale * f64::from(*w);
            let bound = (len as f64 / 16.0 + 12.0) * U * exact.abs();
            assert!(
                (f64::from(*got) - exact).abs() <= bound,
                "{len}: {got} {exact}"
            );
        }
    }
}

#[test]
fn rotations() {
    let mut rng = Rng(6);
    for (dim, half) in [
        (8, 4),
        (24, 12),
        (40, 20),
        (96, 48),
        (128, 48),
        (80, 16),
        (17, 0),
        (64, 31),
    ] {
        let (head, cos, sin) = (rng.floats(dim), rng.floats(half), rng.floats(half));
        let (cos, sin) = (Guarded::new(&cos), Guarded::new(&sin));
        let mut expected = head.clone();
        // SAFETY: the plain tier is on every CPU.
        unsafe { (scalar().rotate)(&mut expected, &cos, &sin, 0.3) };
        for (isa, tier) in tiers() {
            let mut got = Guarded::new(&head);
            // SAFETY: the tier is available.
            unsafe { (tier.rotate)(&mut got, &cos, &sin, 0.3) };
            assert_same_bits(&got, &expected, &format!("rotate {} {dim}", isa.name()));
        }
        // Two products, their sum and the scale: 4 roundings of at most |x| + |y|.
        for i in 0..dim {
            let (a, b) = match i {
                i if i < half => (-f64::from(head[i + half] * sin[i]), cos[i]),
                i if i < 2 * half => (f64::from(head[i - half] * sin[i - half]), cos[i - half]),
                _ => (0.0, 1.0),
            };
            let exact = (f64::from(head[i]) * f64::from(b) + a) * f64::from(0.3f32);
            assert!(
                (f64::from(expected[i]) - exact).abs() <= 8.0 * U,
                "{dim} {i}"
            );
        }
    }
}

/// What a [`Writer`] writes to, guarded.
struct Stored {
    floats: Guarded<f32>,
    quants: Guarded<i8>,
    scales: Guarded<f32>,
    sums16: Guarded<i16>,
    sums32: Guarded<i16>,
}

impl Stored {
    fn new(kind: InputKind, n: usize, k: usize) -> Self {
        let floats = if kind == InputKind::Float { n * k } else { 0 };
        let quants = n * k - floats;
        Self {
            floats: Guarded::new(&vec![f32::NAN; floats]),
            quants: Guarded::new(&vec![-128; quants]),
            scales: Guarded::new(&vec![f32::NAN; quants / kind.block()]),
            sums16: Guarded::new(&vec![-1; quants / 16]),
            sums32: Guarded::new(&vec![-1; quants / 32]),
        }
    }

    fn writer(&mut self, kind: InputKind, n: usize, k: usize) -> Writer {
        Writer {
            kind,
            n,
            k,
            floats: self.floats.as_mut_ptr(),
            quants: self.quants.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            sums16: self.sums16.as_mut_ptr(),
            sums32: self.sums32.as_mut_ptr(),
        }
    }

    #[track_caller]
    fn assert_same(&self, other: &Self, what: &str) {
        assert_same_bits(&self.floats, &other.floats, &what);
        assert!(self.quants[..] == other.quants[..], "{what}: quants");
        assert_same_bits(&self.scales, &other.scales, &what);
        assert!(self.sums16[..] == other.sums16[..], "{what}: sums of 16");
        assert!(self.sums32[..] == other.sums32[..], "{what}: sums of 32");
    }
}

const KINDS: [InputKind; 3] = [InputKind::Float, InputKind::Block32, InputKind::Block256];

/// Blocks of ordinary numbers, zeros, tiny, subnormal and huge ones, and halves that are ties.
fn inputs(rng: &mut Rng, n: usize) -> Vec<f32> {
    let mut x = Vec::new();
    while x.len() < n {
        let kind = rng.below(8);
        for _ in 0..32.min(n - x.len()) {
            x.push(match kind {
                0 => 0.0,
                1 => -0.0,
                2 => rng.float() * 1e-30,
                3 => f32::from_bits(rng.next() as u32 & 0x807f_ffff),
                4 => rng.float() * 1e30,
                // With a maximum of 127 the quants' scale is 1.
                5 => [127.0, -126.5, 0.5, 1.5, -2.5, -127.0][rng.below(6)],
                _ => rng.float() * 10.0,
            });
        }
    }
    x
}

#[test]
fn quantized_inputs() {
    let mut rng = Rng(7);
    for kind in KINDS {
        for (n, k) in [(1, 256), (3, 768), (2, 2048)] {
            let x: Vec<_> = (0..n).map(|_| Guarded::new(&inputs(&mut rng, k))).collect();
            let run = |tier: &super::Tier| {
                let mut to = Stored::new(kind, n, k);
                let writer = to.writer(kind, n, k);
                for (t, x) in x.iter().enumerate() {
                    // In two parts, as the threads do.
                    // SAFETY: the tier is available, and `to` has room.
                    unsafe {
                        (tier.quantize)(&writer, t, 0, &x[..256]);
                        (tier.quantize)(&writer, t, 256, &x[256..]);
                    }
                }
                to
            };
            let expected = run(&scalar());
            for (isa, tier) in tiers() {
                let what = format!("quantize {} {kind:?} {n} x {k}", isa.name());
                run(&tier).assert_same(&expected, &what);
            }
            if kind == InputKind::Float {
                for (t, x) in x.iter().enumerate() {
                    assert_same_bits(&expected.floats[t * k..][..k], x, &"floats");
                }
                continue;
            }
            let (block, chunk) = (kind.block(), kind.block().min(64));
            for (t, x) in x.iter().enumerate() {
                for (b, x) in x.chunks_exact(block).enumerate() {
                    let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    // Subnormal maxima have no scale that is finite.
                    if max < f32::MIN_POSITIVE && max > 0.0 {
                        continue;
                    }
                    assert_eq!(expected.scales[b * n + t], max / 127.0);
                    for (i, x) in x.iter().enumerate() {
                        let k = b * block + i;
                        let got = expected.quants[(k / chunk * n + t) * chunk + k % chunk];
                        let scale = if max > 0.0 { 127.0 / max } else { 0.0 };
                        let exact = (f64::from(*x) * f64::from(scale)).round_ties_even();
                        assert_eq!(f64::from(got), exact, "{kind:?} {x}");
                    }
                    for (size, sums) in [(16, &expected.sums16), (32, &expected.sums32)] {
                        for j in 0..block / size {
                            let sum: i32 = (0..size)
                                .map(|i| b * block + j * size + i)
                                .map(|k| {
                                    i32::from(
                                        expected.quants[(k / chunk * n + t) * chunk + k % chunk],
                                    )
                                })
                                .sum();
                            assert_eq!(i32::from(sums[(b * n + t) * (block / size) + j]), sum);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn silu_mul() {
    let mut rng = Rng(8);
    for kind in KINDS {
        for (n, k) in [(1, 256), (2, 512), (1, 1280)] {
            let gate: Vec<f32> = rng.floats(n * k).iter().map(|x| x * 30.0).collect();
            let (gate, up) = (Guarded::new(&gate), Guarded::new(&rng.floats(n * k)));
            let run = |tier: &super::Tier| {
                let mut to = Stored::new(kind, n, k);
                let writer = to.writer(kind, n, k);
                for t in 0..n {
                    let (gate, up) = (&gate[t * k..][..k], &up[t * k..][..k]);
                    // SAFETY: the tier is available, and `to` has room.
                    unsafe { (tier.silu_mul)(gate, up, &writer, t, 0) };
                }
                to
            };
            let expected = run(&scalar());
            for (isa, tier) in tiers() {
                let what = format!("silu_mul {} {kind:?} {n} x {k}", isa.name());
                run(&tier).assert_same(&expected, &what);
            }
            // exp is within 2 units (4 u), then an addition, a division and a product.
            for ((got, gate), up) in expected.floats.iter().zip(gate.iter()).zip(up.iter()) {
                let gate = f64::from(*gate);
                let exact = gate / (1.0 + (-gate).exp()) * f64::from(*up);
                assert!(
                    (f64::from(*got) - exact).abs() <= 8.0 * U * exact.abs(),
                    "{gate} {up}"
                );
            }
        }
    }
}

/// What no tier may leave different: ties of half precision, its subnormals, and what is beyond its range.
#[test]
fn keys_and_values_are_stored_alike() {
    let mut rng = Rng(9);
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        for head_dim in [8, 16, 24, 32, 40, 96, 120, 128] {
            let layout = PageLayout { format, head_dim };
            let mut input = |_| {
                let x: Vec<f32> = (0..head_dim)
                    .map(|_| match rng.below(6) {
                        0 => rng.float() * 1e6,
                        1 => rng.float() * 1e-7,
                        // Between two neighbours of half precision.
                        2 => {
                            let half = f16::from_bits(rng.next() as u16 & 0xbbff).to_f32();
                            half + half / 2048.0
                        }
                        3 => -0.0,
                        _ => rng.float(),
                    })
                    .collect();
                Guarded::new(&x)
            };
            let rows: Vec<_> = [0, 1, 15, 16, 33, 62, PAGE - 1]
                .map(|position| (position, input(0), input(1)))
                .into();
            let run = |tier: &super::Tier| {
                let mut page = Guarded::new(&vec![0u8; layout.bytes()]);
                for (position, key, value) in &rows {
                    // SAFETY: the tier is available, and the page is one of the layout.
                    unsafe { (tier.write_kv)(&layout, page.as_mut_ptr(), *position, key, value) };
                }
                page
            };
            let expected = run(&scalar());
            for (isa, tier) in tiers() {
                let same = run(&tier)[..] == expected[..];
                assert!(same, "write_kv {} {format:?} {head_dim}", isa.name());
            }
        }
    }
}
