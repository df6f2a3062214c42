//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::Failure;

/// Exit code of a shell's job that SIGINT has ended.
const AT_ONCE: i32 = 130;

/// Set by the first signal.
pub fn stop() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the exit must see the flag as it was before this signal.
        flag::register_conditional_shutdown(signal, AT_ONCE, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| {
                Failure::failed(format_args!("cannot handle signals: {error}"), "report this")
            })?;
    }
    Ok(stop)
}
