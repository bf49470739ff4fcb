//! How much memory can be had, so that too much is refused before it is asked for.
//!
//! An allocation that fails aborts the process, Python with it; an estimate beforehand is an exception.

/// Bytes that can be allocated now without swapping, or `None` where the system does not tell.
///
/// On Linux the smallest of `MemAvailable`, what the cgroup (v2, then v1) leaves and what `ulimit -v`
/// leaves. Elsewhere nothing is known and nothing is refused.
pub fn available() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        [system(), cgroup(), address_space()]
            .into_iter()
            .flatten()
            .min()
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

#[cfg(target_os = "linux")]
fn system() -> Option<u64> {
    kib_field(
        &std::fs::read_to_string("/proc/meminfo").ok()?,
        "MemAvailable:",
    )
}

#[cfg(target_os = "linux")]
fn address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max address space"))?;
    let limit: u64 = line["Max address space".len()..]
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let used = kib_field(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmSize:",
    )?;
    Some(limit.saturating_sub(used))
}

#[cfg(target_os = "linux")]
fn cgroup() -> Option<u64> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let (limit, used, inactive) = if let Some(limit) = read("/sys/fs/cgroup/memory.max") {
        let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
        (
            limit,
            read("/sys/fs/cgroup/memory.current")?,
            field(&stat, "inactive_file"),
        )
    } else {
        let base = "/sys/fs/cgroup/memory";
        let stat = std::fs::read_to_string(format!("{base}/memory.stat")).ok()?;
        let limit = read(&format!("{base}/memory.limit_in_bytes"))?;
        (
            limit,
            read(&format!("{base}/memory.usage_in_bytes"))?,
            field(&stat, "total_inactive_file"),
        )
    };
    // Page cache that nobody uses is given back on demand.
    Some(limit.saturating_sub(used.saturating_sub(inactive.unwrap_or(0))))
}

#[cfg(target_os = "linux")]
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| {
        l.strip_prefix(name)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(target_os = "linux")]
fn kib_field(text: &str, name: &str) -> Option<u64> {
    field(text, name).map(|kib| kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn this_machine_has_some_memory() {
        let available = super::available().expect("Linux tells");
        assert!(available > 1 << 20, "{available}");
    }
}
