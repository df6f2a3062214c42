//! What this process may do: its effective capabilities.

use std::fs;

/// Bits of `include/uapi/linux/capability.h`.
pub(super) const SYS_ADMIN: u32 = 21;
pub(super) const SYS_RESOURCE: u32 = 24;
pub(super) const PERFMON: u32 = 38;

/// All effective capabilities, a bit each; none where `/proc` does not tell.
pub(super) fn effective() -> u64 {
    of_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Whether one of them is held.
pub(super) fn holds(bit: u32) -> bool {
    effective() & 1 << bit != 0
}

/// The capabilities in the text of a status file.
fn of_status(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::of_status;

    #[test]
    fn of_the_status_file() {
        assert_eq!(of_status("Name:\tx\nCapEff:\t0000000000200000\n"), 1 << 21);
        assert_eq!(of_status("Name:\tx\n"), 0);
    }
}
