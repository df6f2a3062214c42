//! TLS as brokers and clients have it: an authority of the test's own, the listeners of a broker,
//! and what a client needs to speak to one.

mod authority;
mod listener;
mod sasl;
mod security;
mod server;

pub use authority::Authority;
pub use listener::{Listener, Listeners};
pub use sasl::{Mechanism, PASSWORD, USER};
pub use security::Security;
pub use server::{Party, Server};

/// What tests of TLS run, whichever clients they have.
pub const PROGRAMS: [&str; 3] = ["java", "kcat", "openssl"];
