//! What tests of the running kernel share: they need root, and look at the programs of the whole host.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// For the rest of a test, which runs alone; `None` where it cannot run, which it says.
///
/// # Panics
/// Under `CI=true`, where this process is not root's: there the test must run.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    is_root().then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn is_root() -> bool {
    // The owner of a process's directory is its effective user.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI must run this as root");
        println!("skipped: not root");
    }
    is_root
}
