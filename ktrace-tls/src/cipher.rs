//! Cipher suites: what protects the records of a connection.

/// A cipher suite's number (IANA's "TLS Cipher Suites").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite(pub u16);

/// How records are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
    /// TLS 1.2, with the MAC before or behind the encryption (RFC 7366).
    Cbc {
        key_bytes: usize,
        mac: Hash,
    },
}

/// Hash functions of MACs, of HKDF and of the PRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha384,
}

impl Suite {
    /// How it protects records; `None` for what is not read.
    #[must_use]
    pub fn cipher(self) -> Option<Cipher> {
        None
    }

    /// The hash of its key derivation.
    #[must_use]
    pub fn hash(self) -> Option<Hash> {
        None
    }

    /// What users are told: `aes-gcm`, `chacha20`, `cbc`, `ccm`, `other`.
    #[must_use]
    pub fn name(self) -> &'static str {
        "other"
    }
}
