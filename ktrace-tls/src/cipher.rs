//! Cipher suites: what protects the records of a connection.

/// A cipher suite's number (IANA's "TLS Cipher Suites").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite(pub u16);

/// How records are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// TLS 1.2, with the MAC before or behind the encryption (RFC 7366).
    Cbc {
        /// The length of the AES key: 16 or 32.
        key_bytes: usize,
        /// The hash of the MAC.
        mac: Hash,
    },
}

/// Hash functions of MACs, of HKDF and of the PRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

impl Suite {
    /// How it protects records; `None` for what is not read.
    #[must_use]
    pub fn cipher(self) -> Option<Cipher> {
        Some(match self.kind() {
            Kind::Gcm(16, _) => Cipher::Aes128Gcm,
            Kind::Gcm(..) => Cipher::Aes256Gcm,
            Kind::ChaCha20 => Cipher::ChaCha20Poly1305,
            Kind::Cbc(key_bytes, mac) => Cipher::Cbc { key_bytes, mac },
            Kind::Ccm | Kind::Other => return None,
        })
    }

    /// The hash of its key derivation. Suites that are older than TLS 1.2 have SHA-256 there,
    /// whatever their MAC.
    #[must_use]
    pub fn hash(self) -> Option<Hash> {
        match self.kind() {
            Kind::Gcm(_, hash) => Some(hash),
            Kind::Cbc(_, Hash::Sha384) => Some(Hash::Sha384),
            Kind::ChaCha20 | Kind::Ccm | Kind::Cbc(..) => Some(Hash::Sha256),
            Kind::Other => None,
        }
    }

    /// As users read it: `aes-gcm`, `chacha20`, `cbc`, `ccm`, `other`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.kind() {
            Kind::Gcm(..) => "aes-gcm",
            Kind::ChaCha20 => "chacha20",
            Kind::Cbc(..) => "cbc",
            Kind::Ccm => "ccm",
            Kind::Other => "other",
        }
    }

    /// IANA's "TLS Cipher Suites", of those with AES or ChaCha20. How keys are exchanged makes no
    /// difference here.
    fn kind(self) -> Kind {
        match self.0 {
            // RFC 8446, B.4
            0x1301 => Kind::Gcm(16, Hash::Sha256),
            0x1302 => Kind::Gcm(32, Hash::Sha384),
            0x1303 => Kind::ChaCha20,
            0x1304 | 0x1305 => Kind::Ccm,
            // RFC 5288 and 5487: RSA, DHE_RSA, DH_RSA, DHE_DSS, DH_DSS, DH_anon, PSK, DHE_PSK,
            // RSA_PSK
            0x009c | 0x009e | 0x00a0 | 0x00a2 | 0x00a4 | 0x00a6 | 0x00a8 | 0x00aa | 0x00ac => {
                Kind::Gcm(16, Hash::Sha256)
            }
            0x009d | 0x009f | 0x00a1 | 0x00a3 | 0x00a5 | 0x00a7 | 0x00a9 | 0x00ab | 0x00ad => {
                Kind::Gcm(32, Hash::Sha384)
            }
            // RFC 5289: ECDHE_ECDSA, ECDH_ECDSA, ECDHE_RSA, ECDH_RSA; RFC 8442: ECDHE_PSK
            0xc02b | 0xc02d | 0xc02f | 0xc031 | 0xd001 => Kind::Gcm(16, Hash::Sha256),
            0xc02c | 0xc02e | 0xc030 | 0xc032 | 0xd002 => Kind::Gcm(32, Hash::Sha384),
            // RFC 7905: ECDHE_RSA, ECDHE_ECDSA, DHE_RSA, PSK, ECDHE_PSK, DHE_PSK, RSA_PSK
            0xcca8..=0xccae => Kind::ChaCha20,
            // RFC 5246, A.5: RSA, DH_DSS, DH_RSA, DHE_DSS, DHE_RSA, DH_anon
            0x002f..=0x0034 => Kind::Cbc(16, Hash::Sha1),
            0x0035..=0x003a => Kind::Cbc(32, Hash::Sha1),
            0x003c | 0x003e..=0x0040 | 0x0067 | 0x006c => Kind::Cbc(16, Hash::Sha256),
            0x003d | 0x0068..=0x006b | 0x006d => Kind::Cbc(32, Hash::Sha256),
            // RFC 4279 and 5487: PSK, DHE_PSK, RSA_PSK
            0x008c | 0x0090 | 0x0094 => Kind::Cbc(16, Hash::Sha1),
            0x008d | 0x0091 | 0x0095 => Kind::Cbc(32, Hash::Sha1),
            0x00ae | 0x00b2 | 0x00b6 => Kind::Cbc(16, Hash::Sha256),
            0x00af | 0x00b3 | 0x00b7 => Kind::Cbc(32, Hash::Sha384),
            // RFC 8422: ECDH_ECDSA, ECDHE_ECDSA, ECDH_RSA, ECDHE_RSA, ECDH_anon; RFC 5489:
            // ECDHE_PSK
            0xc004 | 0xc009 | 0xc00e | 0xc013 | 0xc018 | 0xc035 => Kind::Cbc(16, Hash::Sha1),
            0xc005 | 0xc00a | 0xc00f | 0xc014 | 0xc019 | 0xc036 => Kind::Cbc(32, Hash::Sha1),
            // RFC 5289 and 5489
            0xc023 | 0xc025 | 0xc027 | 0xc029 | 0xc037 => Kind::Cbc(16, Hash::Sha256),
            0xc024 | 0xc026 | 0xc028 | 0xc02a | 0xc038 => Kind::Cbc(32, Hash::Sha384),
            // RFC 6655, 7251 and 8442
            0xc09c..=0xc0af | 0xd003 | 0xd005 => Kind::Ccm,
            _ => Kind::Other,
        }
    }
}

/// Key lengths in bytes, and the hash of the key derivation (GCM) or of the MAC (CBC).
enum Kind {
    Gcm(usize, Hash),
    ChaCha20,
    Cbc(usize, Hash),
    Ccm,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, by the name that IANA gives it.
    #[test]
    fn suites_are_what_their_names_say() {
        let gcm = |bits| Some(if bits == 128 { Cipher::Aes128Gcm } else { Cipher::Aes256Gcm });
        let cbc = |key_bytes, mac| Some(Cipher::Cbc { key_bytes, mac });
        let (sha1, sha256, sha384) = (Hash::Sha1, Hash::Sha256, Hash::Sha384);
        for (number, name, cipher, hash) in [
            (0x1301, "TLS_AES_128_GCM_SHA256", gcm(128), Some(sha256)),
            (0x1302, "TLS_AES_256_GCM_SHA384", gcm(256), Some(sha384)),
            (0x1303, "TLS_CHACHA20_POLY1305_SHA256", Some(Cipher::ChaCha20Poly1305), Some(sha256)),
            (0x1304, "TLS_AES_128_CCM_SHA256", None, Some(sha256)),
            (0x002f, "TLS_RSA_WITH_AES_128_CBC_SHA", cbc(16, sha1), Some(sha256)),
            (0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA", cbc(32, sha1), Some(sha256)),
            (0x003c, "TLS_RSA_WITH_AES_128_CBC_SHA256", cbc(16, sha256), Some(sha256)),
            (0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256", cbc(32, sha256), Some(sha256)),
            (0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256", cbc(16, sha256), Some(sha256)),
            (0x006b, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256", cbc(32, sha256), Some(sha256)),
            (0x00af, "TLS_PSK_WITH_AES_256_CBC_SHA384", cbc(32, sha384), Some(sha384)),
            (0x009c, "TLS_RSA_WITH_AES_128_GCM_SHA256", gcm(128), Some(sha256)),
            (0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", gcm(256), Some(sha384)),
            (0x00a8, "TLS_PSK_WITH_AES_128_GCM_SHA256", gcm(128), Some(sha256)),
            (0xc014, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", cbc(32, sha1), Some(sha256)),
            (0xc027, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", cbc(16, sha256), Some(sha256)),
            (0xc024, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", cbc(32, sha384), Some(sha384)),
            (0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", gcm(128), Some(sha256)),
            (0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", gcm(256), Some(sha384)),
            (
                0xcca8,
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                Some(Cipher::ChaCha20Poly1305),
                Some(sha256),
            ),
            (
                0xcca9,
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                Some(Cipher::ChaCha20Poly1305),
                Some(sha256),
            ),
            (
                0xccaa,
                "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                Some(Cipher::ChaCha20Poly1305),
                Some(sha256),
            ),
            (0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", None, Some(sha256)),
            (0xd002, "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", gcm(256), Some(sha384)),
            (0x000a, "TLS_RSA_WITH_3DES_EDE_CBC_SHA", None, None),
            (0x003b, "TLS_RSA_WITH_NULL_SHA256", None, None),
        ] {
            let suite = Suite(number);
            assert_eq!((suite.cipher(), suite.hash()), (cipher, hash), "{name}");
            let kind = match () {
                () if name.contains("CCM") => "ccm",
                () if cipher.is_none() => "other",
                () if name.contains("GCM") => "aes-gcm",
                () if name.contains("CHACHA20") => "chacha20",
                () => "cbc",
            };
            assert_eq!(suite.name(), kind, "{name}");
        }
    }
}
