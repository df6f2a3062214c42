//! What a handshake says in the clear: randoms, version, cipher suite, extensions that change how records are read.

use crate::Version;
use crate::cipher::Suite;

/// What is known of a connection's handshake; empty for one that is older than the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    pub client_random: Option<[u8; 32]>,
    pub server_random: Option<[u8; 32]>,
    pub version: Option<Version>,
    pub suite: Option<Suite>,
    /// Both sides have agreed to encrypt first (RFC 7366).
    pub encrypt_then_mac: bool,
    /// The name of the server that the client has asked for; not kept beyond 255 bytes.
    pub server_name: Option<Box<str>>,
}
