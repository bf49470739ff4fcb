//! Products of one matrix by tier, type, shape and number of tokens, beside what the machine can do at most.
//!
//! ```sh
//! cargo bench --bench kernels -- --types Q4_K,Q6_K --tiers avx2 --tokens 1,128 --rounds 5
//! ```
//!
//! For one token (`n`) the limit is a plain read of memory by as many threads, in huge pages as the matrices have
//! them; for many it is the tier's products of bytes with their operands in registers. Tiers and limits take turns, so
//! that a machine whose speed drifts is the same to all; shares are medians of those of each round.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::time::{Duration, Instant};

use candlewick::error::Error;
use candlewick::gguf::GgmlType;
use candlewick::kernels::{Activations, Compute, Isa, Matrix, limits};

const USAGE: &str = "\
cargo bench --bench kernels -- [OPTIONS]
  --types LIST     of GGUF, or all (default: Q4_K,Q5_K,Q6_K,Q8_0,F16)
  --tiers LIST     of those that this CPU has (default: all of them)
  --shapes LIST    rows x columns (default: 9216x3072,3072x8192)
  --tokens LIST    in one product (default: 1,8,128)
  --threads N      (default: all that this process may use)
  --rounds N       (default: 3)
  --mb N           matrices of a type and shape, together (default: 512)";

/// How long one measurement takes.
const MEASURE: Duration = Duration::from_millis(200);

struct Options {
    types: Vec<GgmlType>,
    tiers: Vec<Isa>,
    shapes: Vec<(usize, usize)>,
    tokens: Vec<usize>,
    n_threads: usize,
    rounds: usize,
    n_bytes: usize,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(&arguments).map_err(|e| format!("{e}\n{USAGE}"))?;
    println!(
        "{}; {} threads; medians of {} rounds (least to most)\n",
        cpu(),
        options.n_threads,
        options.rounds
    );
    println!(
        "{:<7} {:<11} {:<10} {:>4}  {:<16} {:>4}  {:<16} {:>4}",
        "type", "rows x cols", "tier", "n", "GB/s", "read", "G products/s", "peak"
    );
    let mut machine = Machine::default();
    for &ty in &options.types {
        for &(rows, cols) in &options.shapes {
            if !cols.is_multiple_of(ty.block_len() as usize) {
                continue;
            }
            measure(&options, ty, rows, cols, &mut machine)?;
        }
    }
    println!();
    show_limit("plain read, huge pages", "GB/s", &mut machine.huge);
    show_limit("plain read, small pages", "GB/s", &mut machine.small);
    for (isa, rates) in &mut machine.products {
        show_limit(&format!("byte products, {}", isa.name()), "G/s", rates);
    }
    Ok(())
}

/// The limits of all rounds, a thousand millions a second.
#[derive(Default)]
struct Machine {
    huge: Vec<f64>,
    small: Vec<f64>,
    products: Vec<(Isa, Vec<f64>)>,
}

impl Machine {
    fn read(&mut self, options: &Options, huge: bool) -> Result<f64, Error> {
        let n_bytes = limits::read_bytes().min(options.n_bytes);
        let rate = limits::read_rate(options.n_threads, n_bytes, huge, &mut || Ok(()))? / 1e9;
        if huge {
            &mut self.huge
        } else {
            &mut self.small
        }
        .push(rate);
        Ok(rate)
    }

    fn multiply(&mut self, options: &Options, isa: Isa) -> Result<Option<f64>, Error> {
        let rate = limits::multiply_rate(isa, options.n_threads, &mut || Ok(()))?;
        let Some(rate) = rate.map(|rate| rate / 1e9) else {
            return Ok(None);
        };
        match self.products.iter_mut().find(|(of, _)| *of == isa) {
            Some((_, rates)) => rates.push(rate),
            None => self.products.push((isa, vec![rate])),
        }
        Ok(Some(rate))
    }
}

/// What one tier did with one number of tokens, by round.
#[derive(Default, Clone)]
struct Cell {
    gb: Vec<f64>,
    of_read: Vec<f64>,
    products: Vec<f64>,
    of_products: Vec<f64>,
}

/// Measures one type and shape and prints its rows.
fn measure(
    options: &Options,
    ty: GgmlType,
    rows: usize,
    cols: usize,
    machine: &mut Machine,
) -> Result<(), Failure> {
    let tiers: Vec<Compute> = options
        .tiers
        .iter()
        .map(|&isa| Compute::new(isa, options.n_threads))
        .collect();
    let n_bytes = Matrix::n_bytes(ty, rows, cols);
    let file = weights(rows * cols / ty.block_len() as usize * ty.block_bytes() as usize);
    let mut matrices = Vec::new();
    for _ in 0..options.n_bytes.div_ceil(n_bytes) {
        let mut matrix = Matrix::allocate(ty, rows, cols)?;
        tiers[0].pack(&mut matrix, &file)?;
        matrices.push(matrix);
    }
    drop(file);
    let mut cells = vec![vec![Cell::default(); options.tokens.len()]; tiers.len()];
    for _ in 0..options.rounds {
        let read = machine.read(options, true)?;
        machine.read(options, false)?;
        for (compute, cells) in tiers.iter().zip(&mut cells) {
            let multiply = machine.multiply(options, compute.isa())?;
            for (&n, cell) in options.tokens.iter().zip(cells) {
                let a_second = rate(compute, &matrices, n)?;
                let gb = a_second * n_bytes as f64 / 1e9;
                let products = a_second * (rows * cols * n) as f64 / 1e9;
                cell.gb.push(gb);
                cell.of_read.push(gb / read);
                cell.products.push(products);
                // Floats are multiplied as floats: bytes are no measure of them.
                if ty.block_len() > 1 {
                    cell.of_products
                        .extend(multiply.map(|limit| products / limit));
                }
            }
        }
    }
    for (compute, cells) in tiers.iter().zip(&mut cells) {
        for (n, cell) in options.tokens.iter().zip(cells) {
            println!(
                "{:<7} {:<11} {:<10} {n:>4}  {}  {}",
                ty.name(),
                format!("{rows}x{cols}"),
                compute.isa().name(),
                with_share(&mut cell.gb, &mut cell.of_read),
                with_share(&mut cell.products, &mut cell.of_products),
            );
        }
    }
    Ok(())
}

/// Products a second of `n` tokens, with one matrix after the other, so that none is in a cache.
fn rate(compute: &Compute, matrices: &[Matrix], n: usize) -> Result<f64, Error> {
    let (rows, cols) = (matrices[0].rows(), matrices[0].cols());
    let x: Vec<f32> = (0..n * cols).map(|i| (i % 61) as f32 - 30.0).collect();
    let (mut inputs, mut out) = (Activations::default(), vec![0.0; n * rows]);
    compute.prepare(&x, cols, matrices[0].input(), &mut inputs)?;
    // The first time starts the threads and wakes the units.
    compute.matmul(&matrices[matrices.len() - 1], &inputs, &mut out, 0, rows)?;
    let (mut done, start) = (0, Instant::now());
    for matrix in matrices.iter().cycle() {
        compute.matmul(matrix, &inputs, &mut out, 0, rows)?;
        done += 1;
        if start.elapsed() >= MEASURE {
            break;
        }
    }
    std::hint::black_box(out);
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

/// Bytes that are ordinary numbers as whatever float they are read: no subnormals, whose arithmetic is slow.
fn weights(n_bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..n_bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0x20 | (state >> 27) as u8
        })
        .collect()
}

fn with_share(values: &mut [f64], shares: &mut [f64]) -> String {
    let share = if shares.is_empty() {
        String::from("-")
    } else {
        format!("{:.0}%", 100.0 * median(shares))
    };
    format!("{:<16} {share:>4}", spread(values))
}

fn spread(values: &mut [f64]) -> String {
    let middle = median(values);
    format!(
        "{} ({}-{})",
        number(middle),
        number(values[0]),
        number(values[values.len() - 1])
    )
}

fn number(x: f64) -> String {
    let digits = match x {
        99.95.. => 0,
        9.995.. => 1,
        _ => 2,
    };
    format!("{x:.digits$}")
}

/// Sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

fn show_limit(name: &str, unit: &str, rates: &mut [f64]) {
    println!("{name:<28} {} {unit}", spread(rates));
}

fn cpu() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let known = |name: &str| {
            (0..64)
                .filter_map(GgmlType::from_id)
                .find(|ty| ty.name().eq_ignore_ascii_case(name) && Matrix::supports(*ty))
                .ok_or_else(|| format!("no kernels for {name}"))
        };
        let all_types = || {
            (0..64)
                .filter_map(GgmlType::from_id)
                .filter(|ty| Matrix::supports(*ty))
                .collect()
        };
        let mut options = Self {
            types: ["Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16"]
                .into_iter()
                .map(known)
                .collect::<Result<_, _>>()?,
            tiers: Isa::available(),
            shapes: vec![(9216, 3072), (3072, 8192)],
            tokens: vec![1, 8, 128],
            n_threads: std::thread::available_parallelism()?.get(),
            rounds: 3,
            n_bytes: 512 << 20,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            // `cargo bench` says what it is doing.
            if name == "--bench" {
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} wants a value"))?;
            let items = value.split(',');
            match name.as_str() {
                "--types" if value == "all" => options.types = all_types(),
                "--types" => options.types = items.map(known).collect::<Result<_, _>>()?,
                "--tiers" => {
                    options.tiers = items
                        .map(|name| {
                            Isa::available()
                                .into_iter()
                                .find(|isa| isa.name() == name)
                                .ok_or_else(|| format!("this CPU has no tier {name}"))
                        })
                        .collect::<Result<_, _>>()?;
                }
                "--shapes" => {
                    options.shapes = items
                        .map(|shape| {
                            let (rows, cols) =
                                shape.split_once('x').ok_or("shapes are as 64x256")?;
                            Ok::<_, Failure>((positive(rows)?, positive(cols)?))
                        })
                        .collect::<Result<_, _>>()?;
                }
                "--tokens" => options.tokens = items.map(positive).collect::<Result<_, _>>()?,
                "--threads" => options.n_threads = positive(value)?,
                "--rounds" => options.rounds = positive(value)?,
                "--mb" => options.n_bytes = positive(value)? << 20,
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}

fn positive(text: &str) -> Result<usize, Failure> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("{text} is no number above zero").into()),
    }
}
