//! The binary `ktrace`.
#![deny(unsafe_code)]

mod allocator;

// Linked for the `memcpy` and `memmove` that it defines.
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
use ktrace_memcpy as _;

use std::process::ExitCode;

use crate::allocator::Overwriting;

/// A hop is allocated by a worker and freed by a sink. musl's own allocator takes one lock for all
/// threads, so these would wait for each other; mimalloc frees across threads without a lock.
#[global_allocator]
static ALLOCATOR: Overwriting<mimalloc::MiMalloc> = Overwriting(mimalloc::MiMalloc);

/// Where the agent's own log goes: to standard error, unless a full screen is shown.
fn log() -> Box<dyn std::io::Write> {
    if ktrace_user::export::top::is_taken() { Box::new(std::io::sink()) } else { Box::new(std::io::stderr()) }
}

fn main() -> ExitCode {
    // The agent's own log: warnings, or what KTRACE_LOG says.
    let filter = match ktrace_user::cli::environment::log_filter() {
        Ok(filter) => filter,
        Err(failure) => return failure.report(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log)
        .with_ansi(
            std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none(),
        )
        .init();
    ktrace_user::cli::main()
}
