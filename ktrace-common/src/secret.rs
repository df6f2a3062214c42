//! The records of the ring of secrets, and how their programs know what they look at: parameters of
//! OpenSSL's key derivation (`OSSL_PARAM` of `include/openssl/core.h`, names of `core_names.h`),
//! labels of TLS 1.3 (RFC 8446, 7.1), and those of key logs.

#[cfg(feature = "zerocopy")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record of the ring of secrets says; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SecretKind {
    /// Nothing: it only takes the place of what was read.
    Blank = 0,
    /// A process connects to a port that TLS is read on: what it has mapped is to be probed.
    Connecting = 1,
    /// The master secret of TLS 1.2.
    Master = 2,
    /// Of TLS 1.3: what the keys of application data come from.
    ClientTraffic = 3,
    ServerTraffic = 4,
}

impl SecretKind {
    /// The kind that `byte` stands for, if any.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Connecting),
            2 => Some(Self::Master),
            3 => Some(Self::ClientTraffic),
            4 => Some(Self::ServerTraffic),
            _ => None,
        }
    }

    /// Of a label of TLS 1.3 that has [`LABEL_BYTES`].
    #[inline(always)]
    #[must_use]
    pub const fn of_label(label: [u8; LABEL_BYTES]) -> Option<Self> {
        match &label {
            b"c ap traffic" => Some(Self::ClientTraffic),
            b"s ap traffic" => Some(Self::ServerTraffic),
            _ => None,
        }
    }

    /// Of a label of key logs, by its first 8 bytes and its length.
    #[inline(always)]
    #[must_use]
    pub const fn of_logged(start: [u8; 8], length: u64) -> Option<Self> {
        match (&start, length) {
            (b"CLIENT_R", 13) => Some(Self::Master),
            (b"CLIENT_T", 23) => Some(Self::ClientTraffic),
            (b"SERVER_T", 23) => Some(Self::ServerTraffic),
            _ => None,
        }
    }
}

/// Of the labels that name a secret: `c ap traffic`.
pub const LABEL_BYTES: usize = 12;

/// The longest secret: of SHA-384, and the master secret.
pub const SECRET_BYTES: usize = 48;

/// To the program that overwrites: the ring of secrets. The others have numbers below
/// [`MAX_RINGS`](crate::MAX_RINGS).
pub const SECRETS_RING: u8 = u8::MAX;

/// A secret of one connection, or a process that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Secret {
    /// [`SecretKind`].
    pub kind: u8,
    /// Bytes of the secret: 32 or 48.
    pub length: u8,
    /// Whether `client_random` is known: OpenSSL's key derivation of TLS 1.3 does not know it.
    pub has_random: u8,
    /// Zero.
    pub reserved: u8,
    /// Process (thread group) in the initial pid namespace.
    pub pid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    pub client_random: [u8; 32],
    /// Zeros behind `length`.
    pub secret: [u8; SECRET_BYTES],
}

impl Secret {
    /// One that says nothing.
    pub const BLANK: Self = Self {
        kind: SecretKind::Blank as u8,
        length: 0,
        has_random: 0,
        reserved: 0,
        pid: 0,
        time_ns: 0,
        client_random: [0; 32],
        secret: [0; SECRET_BYTES],
    };
}

const _: () = {
    assert!(size_of::<Secret>() == 96);
};

/// A parameter of OpenSSL's key derivation, known by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The secret that keys, or further secrets, are derived from: TLS 1.3.
    Key,
    /// What is derived: TLS 1.3.
    Label,
    /// The secret of TLS 1.2's PRF.
    Secret,
    /// What TLS 1.2's PRF is given besides: a label, randoms. There are several.
    Seed,
    Other,
}

impl Parameter {
    /// Of a name that begins so; what follows the zero byte that ends it does not matter.
    #[inline(always)]
    #[must_use]
    pub const fn of_name(start: [u8; 8]) -> Self {
        match start {
            [b'k', b'e', b'y', 0, ..] => Self::Key,
            [b'l', b'a', b'b', b'e', b'l', 0, ..] => Self::Label,
            [b's', b'e', b'c', b'r', b'e', b't', 0, _] => Self::Secret,
            [b's', b'e', b'e', b'd', 0, ..] => Self::Seed,
            _ => Self::Other,
        }
    }
}

/// The label of TLS 1.2's PRF behind which keys come.
pub const KEY_EXPANSION: [u8; 13] = *b"key expansion";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        for (name, parameter) in [
            (b"key\0xxxx", Parameter::Key),
            (b"label\0xx", Parameter::Label),
            (b"secret\0x", Parameter::Secret),
            (b"seed\0lab", Parameter::Seed),
            (b"keylen\0x", Parameter::Other),
            (b"mode\0key", Parameter::Other),
            (b"digest\0\0", Parameter::Other),
            (b"secretx\0", Parameter::Other),
            (b"seeds\0\0\0", Parameter::Other),
            (b"\0\0\0\0\0\0\0\0", Parameter::Other),
        ] {
            assert_eq!(Parameter::of_name(*name), parameter, "{name:?}");
        }
    }

    #[test]
    fn labels_of_tls_1_3() {
        for (label, kind) in [
            (b"c ap traffic", Some(SecretKind::ClientTraffic)),
            (b"s ap traffic", Some(SecretKind::ServerTraffic)),
            (b"c hs traffic", None),
            (b"s hs traffic", None),
            (b"c e traffic\0", None),
            (b"x ap traffic", None),
            (b"c ap traffix", None),
        ] {
            assert_eq!(SecretKind::of_label(*label), kind, "{label:?}");
        }
    }

    #[test]
    fn labels_of_key_logs() {
        for (label, kind) in [
            ("CLIENT_RANDOM", Some(SecretKind::Master)),
            ("CLIENT_TRAFFIC_SECRET_0", Some(SecretKind::ClientTraffic)),
            ("SERVER_TRAFFIC_SECRET_0", Some(SecretKind::ServerTraffic)),
            ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", None),
            ("SERVER_HANDSHAKE_TRAFFIC_SECRET", None),
            ("CLIENT_EARLY_TRAFFIC_SECRET", None),
            ("EXPORTER_SECRET", None),
        ] {
            let start = *label.as_bytes().first_chunk().unwrap();
            assert_eq!(SecretKind::of_logged(start, label.len() as u64), kind, "{label}");
        }
    }

    #[test]
    fn kinds_are_their_bytes() {
        for byte in 0..=u8::MAX {
            assert!(SecretKind::from_byte(byte).is_none_or(|kind| kind as u8 == byte), "{byte}");
        }
    }
}
