//! The threads that Candle computes with: one pool for the whole process, sized once.
//!
//! Candle reads `CANDLE_NUM_THREADS` when its pool is first used and knows no other way, and its default counts
//! the machine's cores and not what a container or `taskset` leaves. The Python package sets the variable for
//! the moment of [`start`]; Rust programs set it themselves.

use std::sync::OnceLock;

use crate::error::{Error, Result};

struct Pool {
    pid: u32,
    n_threads: usize,
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// Threads of the pools; 1 before [`start`].
pub(super) fn started() -> usize {
    POOL.get().map_or(1, |pool| pool.n_threads)
}

/// Starts the pools, once, and returns how many threads take part in a product.
///
/// # Errors
/// In a forked child of the process that started them: the threads stayed behind, and Candle would wait for them for ever.
pub fn start() -> Result<usize> {
    let pool = POOL.get_or_init(|| {
        let n_threads = candle_core::utils::barrier_pool().n_workers() + 1;
        // An error means that the program has sized rayon's global pool itself.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build_global();
        Pool {
            pid: std::process::id(),
            n_threads,
        }
    });
    if pool.pid != std::process::id() {
        return Err(Error::InvalidRequest(
            "this process was forked from one that had loaded a model, and the threads stayed there: use \
             multiprocessing's \"spawn\" start method, or load the first model after the fork"
                .into(),
        ));
    }
    Ok(pool.n_threads)
}
