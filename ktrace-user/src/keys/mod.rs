//! Keys of TLS connections: where they come from, and how a worker gets them.
//!
//! ```text
//!  worker ── Ask {connection, process, records} ──▶ asked ──▶ search ◀── budget
//!    ▲                                                          │
//!    │                      /proc/PID, process_vm_readv ──▶ memory ──▶ schedule ──▶ trial
//!    └──────────── Answer {connection, key | why not} ◀─────────────────────────────┘
//! ```
//!
//! A key counts only once a record of a connection that a worker asks for has proved it. All others
//! are overwritten: a process holds keys of much else.

mod asked;
mod audit;
mod budget;
pub mod log_file;
pub mod memory;
pub mod schedule;
mod search;
mod trial;
pub mod uprobes;

pub use asked::{Answer, Ask};
pub use log_file::SharedKeyLog;
pub use search::{Keys, Options, Stats};
