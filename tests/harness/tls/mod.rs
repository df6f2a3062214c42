//! TLS as brokers and clients have it: an authority of the test's own, the listeners of a broker, and what a
//! client needs to speak to one.

mod authority;
mod listener;
mod security;
mod server;

pub use authority::Authority;
pub use listener::{Listener, Listeners};
pub use security::{Mechanism, PASSWORD, Security, USER};
pub use server::{Party, Server};
