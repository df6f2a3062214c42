//! What a handshake says in the clear: randoms, version, cipher suite, extensions that change how
//! records are read.

use zeroize::Zeroize;

use crate::Version;
use crate::cipher::Suite;

/// What is known of a connection's handshake; empty for one that is older than the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The ClientHello's random.
    pub client_random: Option<[u8; 32]>,
    /// The ServerHello's random.
    pub server_random: Option<[u8; 32]>,
    /// The version that was agreed on.
    pub version: Option<Version>,
    /// The cipher suite that was agreed on.
    pub suite: Option<Suite>,
    /// Both sides have agreed to encrypt first (RFC 7366).
    pub encrypt_then_mac: bool,
    /// The name of the server that the client has asked for; not kept beyond 255 bytes.
    pub server_name: Option<Box<str>>,
    /// The client has offered protocols to be spoken inside (ALPN, RFC 7301), as HTTPS does and no
    /// client of Kafka's.
    pub alpn: bool,
}

/// Types of handshake messages (RFC 8446, 4).
pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const FINISHED: u8 = 20;
pub(crate) const KEY_UPDATE: u8 = 24;

/// Extensions.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPT_THEN_MAC: u16 = 22;
const SUPPORTED_VERSIONS: u16 = 43;

/// A DNS name is no longer (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// SHA-256 of "HelloRetryRequest": a ServerHello with this random asks for another ClientHello (RFC
/// 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

impl Hello {
    /// Takes a ClientHello: all of the message but its header. Behind a HelloRetryRequest the
    /// second has the random of the first.
    pub(crate) fn client(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader(body);
        reader.take(2)?;
        self.client_random = Some(*reader.array()?);
        let _session = reader.short()?;
        let _suites = reader.long()?;
        let _compression = reader.short()?;
        reader.extensions(|kind, mut value| {
            self.alpn |= kind == ALPN;
            if kind == SERVER_NAME
                && let Some(mut names) = value.long()
                // Of type 0, a DNS name: there are no others.
                && names.take(1) == Some(&[0])
                && let Some(Reader(name)) = names.long()
                && name.len() <= MAX_NAME_BYTES
                && let Ok(name) = std::str::from_utf8(name)
            {
                self.server_name = Some(name.into());
            }
        })
    }

    /// Takes a ServerHello. Returns whether it settles version and cipher: a HelloRetryRequest does
    /// not.
    pub(crate) fn server(&mut self, body: &[u8]) -> Option<bool> {
        let mut reader = Reader(body);
        let mut version = *reader.array()?;
        let random = *reader.array()?;
        let _session = reader.short()?;
        let suite = Suite(u16::from_be_bytes(*reader.array()?));
        let _compression = reader.take(1)?;
        let mut encrypt_then_mac = false;
        // Without extensions before TLS 1.3.
        if !reader.0.is_empty() {
            reader.extensions(|kind, Reader(value)| match kind {
                SUPPORTED_VERSIONS => {
                    if let Ok(selected) = value.try_into() {
                        version = selected;
                    }
                }
                ENCRYPT_THEN_MAC => encrypt_then_mac = true,
                _ => (),
            })?;
        }
        self.version = match version {
            [3, 3] => Some(Version::Tls12),
            [3, 4] => Some(Version::Tls13),
            _ => None,
        };
        if random == RETRY {
            return Some(false);
        }
        self.server_random = Some(random);
        self.suite = Some(suite);
        self.encrypt_then_mac = encrypt_then_mac;
        Some(true)
    }
}

/// Bytes that are read from their front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    /// A vector with one byte of length.
    fn short(&mut self) -> Option<Reader<'a>> {
        let [len] = *self.array()?;
        self.take(len.into()).map(Reader)
    }

    /// A vector with two bytes of length.
    fn long(&mut self) -> Option<Reader<'a>> {
        let len = u16::from_be_bytes(*self.array()?);
        self.take(len.into()).map(Reader)
    }

    fn extensions(&mut self, mut see: impl FnMut(u16, Reader<'a>)) -> Option<()> {
        if self.0.is_empty() {
            return Some(());
        }
        let mut extensions = self.long()?;
        while !extensions.0.is_empty() {
            let kind = u16::from_be_bytes(*extensions.array()?);
            see(kind, extensions.long()?);
        }
        Some(())
    }
}

/// Handshake messages of one direction, which records may cut anywhere.
///
/// A message is `type ‖ length (3 bytes) ‖ body`.
#[derive(Default)]
pub(crate) struct Messages {
    /// Of the current message, as far as it has come: all of its header, and its body where that is
    /// kept.
    bytes: Vec<u8>,
    /// What is still to come of a body that is not kept.
    skip: usize,
    /// The type of that message.
    skipped: u8,
}

/// Hellos are kept up to here: a ClientHello with a key share of post-quantum cryptography has 2
/// KiB.
const MAX_HELLO_BYTES: usize = 16 << 10;

const HEADER: usize = 4;

impl Messages {
    /// Takes the plaintext of a handshake record. `see` gets each message that it completes: its
    /// type, and the body of a hello.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut see: impl FnMut(u8, &[u8])) {
        loop {
            if self.skip > 0 {
                let skip = self.skip.min(bytes.len());
                bytes = bytes.get(skip..).unwrap_or_default();
                self.skip = self.skip.saturating_sub(skip);
                if self.skip > 0 {
                    return;
                }
                see(self.skipped, &[]);
            }
            let Some((kind, len)) = self.fill(&mut bytes, HEADER).and_then(|()| self.header()) else {
                return;
            };
            let hello = matches!(kind, CLIENT_HELLO | SERVER_HELLO) && len <= MAX_HELLO_BYTES;
            if hello {
                if self.fill(&mut bytes, HEADER.saturating_add(len)).is_none() {
                    return;
                }
                see(kind, self.bytes.get(HEADER..).unwrap_or_default());
                self.forget();
            } else {
                self.forget();
                (self.skip, self.skipped) = (len, kind);
                if len == 0 {
                    see(kind, &[]);
                }
            }
        }
    }

    /// What was missed may have been a part of a message.
    pub(crate) fn forget(&mut self) {
        self.bytes.zeroize();
        self.bytes = Vec::new();
        self.skip = 0;
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes from `bytes` what lacks to `len`; `None` where that is more than there is.
    fn fill(&mut self, bytes: &mut &[u8], len: usize) -> Option<()> {
        let wanted = len.saturating_sub(self.bytes.len());
        let (here, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
        self.bytes.extend(here);
        *bytes = rest;
        (here.len() == wanted).then_some(())
    }

    fn header(&self) -> Option<(u8, usize)> {
        let &[kind, a, b, c] = self.bytes.first_chunk()?;
        Some((kind, usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, a, b, c], body].concat()
    }

    fn server(version: [u8; 2], random: [u8; 32], suite: u16, extensions: &[u8]) -> Vec<u8> {
        let len = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        let end = if extensions.is_empty() { vec![] } else { [&len, extensions].concat() };
        [&version[..], &random, &[3, 1, 2, 3], &suite.to_be_bytes(), &[0], &end].concat()
    }

    #[test]
    fn versions_and_what_was_agreed() {
        let mut hello = Hello::default();
        let [selected, mac] = [[0, 43, 0, 2, 3, 4], [0, 22, 0, 0, 0, 0]];
        for (body, version, encrypt_then_mac) in [
            (server([3, 3], [1; 32], 0xc030, &[]), Some(Version::Tls12), false),
            (server([3, 3], [1; 32], 0xc014, &mac[..4]), Some(Version::Tls12), true),
            (server([3, 3], [1; 32], 0x1301, &selected), Some(Version::Tls13), false),
            (server([3, 2], [1; 32], 0xc014, &[]), None, false),
            (server([3, 1], [1; 32], 0xc014, &[]), None, false),
        ] {
            assert_eq!(hello.server(&body), Some(true));
            assert_eq!((hello.version, hello.encrypt_then_mac), (version, encrypt_then_mac));
        }
        assert_eq!((hello.server_random, hello.suite), (Some([1; 32]), Some(Suite(0xc014))));
    }

    #[test]
    fn whether_the_client_offers_protocols() {
        let body = |extensions: &[u8]| {
            let len = u16::try_from(extensions.len()).unwrap().to_be_bytes();
            [&[3, 3], &[7; 32][..], &[0, 0, 2, 0x13, 1, 1, 0], &len, extensions].concat()
        };
        let offers = |extensions: &[u8]| {
            let mut hello = Hello::default();
            hello.client(&body(extensions)).unwrap();
            hello.alpn
        };
        assert!(offers(&[0, 16, 0, 5, 0, 3, 2, b'h', b'2']));
        assert!(!offers(&[]) && !offers(&[0, 43, 0, 3, 2, 3, 4]));
    }

    #[test]
    fn a_hello_retry_request_settles_the_version_alone() {
        let mut hello = Hello::default();
        let body = server([3, 3], RETRY, 0x1302, &[0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23]);
        assert_eq!(hello.server(&body), Some(false));
        assert_eq!((hello.version, hello.server_random, hello.suite), (Some(Version::Tls13), None, None));
    }

    proptest! {
        /// Messages are the same however they are cut, and only hellos have bodies.
        #[test]
        fn messages_in_pieces(
            messages in prop::collection::vec((0_u8..25, prop::collection::vec(any::<u8>(), 0..600)), 0..8),
            cuts in prop::collection::vec(1_usize..300, 1..40),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            let (mut reader, mut seen, mut rest) = (Messages::default(), vec![], &bytes[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                reader.push(piece, |kind, body| seen.push((kind, body.to_vec())));
                rest = behind;
            }
            let is_hello = |kind| matches!(kind, CLIENT_HELLO | SERVER_HELLO);
            let wanted: Vec<_> = messages
                .into_iter()
                .map(|(kind, body)| (kind, if is_hello(kind) { body } else { vec![] }))
                .collect();
            prop_assert_eq!(seen, wanted);
            prop_assert_eq!(reader.held_bytes(), 0);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut hello = Hello::default();
            let _ = hello.client(&bytes);
            let _ = hello.server(&bytes);
            let mut reader = Messages::default();
            reader.push(&bytes, |_, _| ());
            prop_assert!(reader.held_bytes() <= 2 * bytes.len() + 8);
        }
    }
}
