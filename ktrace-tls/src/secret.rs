//! From secrets to keys: HKDF of TLS 1.3 (RFC 8446, 7.1 and 7.3), the PRF of TLS 1.2 (RFC 5246, 5 and 6.3), KeyUpdate.

use zeroize::Zeroizing;

/// What a key log, or a probe, tells of one connection.
#[derive(Clone, Default)]
pub struct Secrets {
    /// TLS 1.2: `CLIENT_RANDOM`, 48 bytes.
    pub master: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `CLIENT_TRAFFIC_SECRET_0`.
    pub client_traffic: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `SERVER_TRAFFIC_SECRET_0`.
    pub server_traffic: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `CLIENT_HANDSHAKE_TRAFFIC_SECRET`; of use only to know where the handshake ends.
    pub client_handshake: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `SERVER_HANDSHAKE_TRAFFIC_SECRET`.
    pub server_handshake: Option<Zeroizing<Vec<u8>>>,
}
