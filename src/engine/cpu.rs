//! What this CPU can do, as far as it matters to the products here.

/// Instruction sets that are there, from the plainest on.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        look!("sse4.2" "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! look {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        look!("neon" "fp16" "dotprod" "bf16" "i8mm" "sve");
    }
    found
}

/// The best of [`features`] that Candle's quantized products have code for (candle-core 0.11.1,
/// `quantized/repack_x86.rs` and `repack.rs`).
pub(super) fn candle_tier() -> &'static str {
    let found = features();
    ["avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon"]
        .into_iter()
        .find(|tier| found.contains(tier))
        .unwrap_or("scalar")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tier_is_one_of_the_features() {
        assert!(
            super::candle_tier() == "scalar" || super::features().contains(&super::candle_tier())
        );
    }
}
