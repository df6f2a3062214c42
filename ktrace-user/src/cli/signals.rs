//! Ctrl-C, SIGTERM and SIGHUP (the terminal was closed): the first asks for an orderly end, one
//! after that ends at once.
#![expect(unsafe_code, reason = "sigaction(2), to ask how a signal is handled")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Failure;
use crate::export::top;
use crate::privilege;

/// Exit code of a shell's job that SIGINT has ended.
const AT_ONCE: i32 = 130;

/// A signal this soon after the first is the same request twice: `timeout`, supervisors and shells
/// signal a process and its group.
const ECHO: Duration = Duration::from_secs(1);

/// Set by the first signal.
pub fn stop() -> Result<Arc<AtomicBool>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format_args!("cannot handle signals: {error}"), "report this")
    };
    // `nohup` has SIGHUP ignored, and means it.
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup)).map_err(failed)?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let wait = move || {
        privilege::shed();
        let mut first = None;
        for _ in signals.forever() {
            asked.store(true, Ordering::Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() > ECHO {
                top::restore();
                std::process::exit(AT_ONCE);
            }
        }
    };
    std::thread::Builder::new().name("ktrace-signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(stop)
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros are a valid sigaction, which is a valid place for the answer; nothing is changed.
    let (asked, now) = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut now), now)
    };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}
