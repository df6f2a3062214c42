//! The size of a memory page.
#![expect(
    unsafe_code,
    reason = "sysconf(3): rustix reads /proc for it before Linux 6.4, and panics where there is none"
)]

/// Bytes of a memory page.
pub(crate) fn page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
