//! The key of one direction, and the numbers of its records: opens one record after the other.
//!
//! A record's nonce is `iv XOR number` (TLS 1.3, and ChaCha20 of TLS 1.2), or
//! `salt ‖ explicit nonce` with the number in the additional data (AES-GCM of TLS 1.2). Where the
//! iv is not known, as with a key from memory, a record's own tag gives its nonce, and the next
//! ones follow from it.

use std::hint::black_box;
use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use zeroize::Zeroizing;

use crate::Version;
use crate::aes_key::AesKey;
use crate::cbc::CbcKey;
use crate::cipher::{Cipher, Suite};
use crate::nonce::GcmKey;
use crate::number::{Counted, Explicit, Missing};
use crate::record::{ALERT, APPLICATION_DATA, Bytes, Header};
use crate::secret::{self, Keys};

/// Numbers that are tried for one record behind a gap where nothing says them.
pub(crate) const MAX_TRIES: u64 = 4096;

/// Bytes that such tries may read: a long record has fewer of them.
const TRIED_BYTES: u64 = 16 << 20;

/// Opens records of one direction.
pub(crate) struct Opener {
    version: Version,
    key: Key,
    numbers: Numbers,
    /// TLS 1.3: what the keys are made of, where that is known.
    secret: Option<(Zeroizing<Vec<u8>>, Suite)>,
}

enum Key {
    Gcm { aead: Aead, aes: AesKey, tags: Option<Box<GcmKey>> },
    ChaCha20(Aead),
    Cbc(Box<CbcKey>),
}

#[derive(Clone, Copy)]
enum Numbers {
    /// The nonce is made of the number.
    Counted(Counted),
    /// The record has a part of its nonce in front.
    Explicit(Explicit),
}

/// A record that was opened.
pub(crate) struct Opened {
    /// What it holds: in TLS 1.3 the type is inside.
    pub(crate) kind: u8,
    /// Where its plaintext lies in the buffer.
    pub(crate) plain: Range<usize>,
    /// How many records were missed before it, where its number says so.
    pub(crate) missed: Option<u64>,
}

impl Opener {
    /// TLS 1.3, from a traffic secret. `number` is of the next record.
    pub(crate) fn tls13(secret: &[u8], suite: Suite, number: u64) -> Option<Self> {
        let keys = secret::traffic_keys(secret, suite)?;
        let key = Key::new(&keys, false)?;
        let numbers = Numbers::Counted(Counted::known(keys.iv, number));
        Some(Self {
            version: Version::Tls13,
            key,
            numbers,
            secret: Some((Zeroizing::new(secret.to_vec()), suite)),
        })
    }

    /// TLS 1.2. `number` is of the next record.
    pub(crate) fn tls12(keys: &Keys, encrypt_then_mac: bool, number: u64) -> Option<Self> {
        let key = Key::new(keys, encrypt_then_mac)?;
        let [a, b, c, d, ..] = keys.iv;
        let numbers = match key {
            Key::Gcm { .. } => Numbers::Explicit(Explicit::known([a, b, c, d], number)),
            _ => Numbers::Counted(Counted::known(keys.iv, number)),
        };
        Some(Self { version: Version::Tls12, key, numbers, secret: None })
    }

    /// A key from memory; the next record has this nonce, and in TLS 1.2 this number.
    pub(crate) fn found(key: AesKey, version: Version, nonce: [u8; 12], number: Option<u64>) -> Option<Self> {
        let numbers = match version {
            Version::Tls13 => Numbers::Counted(Counted::unknown(nonce)),
            Version::Tls12 => Numbers::Explicit(Explicit::seen(nonce, number?)),
        };
        Some(Self { version, key: Key::aes(key)?, numbers, secret: None })
    }

    /// The same key: the next record has this nonce, and is the first, with number 0.
    pub(crate) fn begins(&mut self, nonce: [u8; 12]) {
        self.numbers = Numbers::Counted(Counted::known(nonce, 0));
    }

    /// The same key: the next record has this nonce. Its number is not known but in TLS 1.2.
    pub(crate) fn goes_on(&mut self, nonce: [u8; 12], number: Option<u64>) {
        self.numbers = match (self.version, number) {
            (Version::Tls12, Some(number)) => Numbers::Explicit(Explicit::seen(nonce, number)),
            _ => Numbers::Counted(Counted::unknown(nonce)),
        };
    }

    /// The record that was opened last is the next one.
    pub(crate) fn step_back(&mut self) {
        self.numbers = match self.numbers {
            Numbers::Counted(counted) => Numbers::Counted(counted.back()),
            Numbers::Explicit(explicit) => Numbers::Explicit(explicit.back()),
        };
    }

    /// The number of the last record that was opened, where it is known.
    pub(crate) fn number(&self) -> Option<u64> {
        match self.numbers {
            Numbers::Counted(counted) => counted.number(),
            Numbers::Explicit(explicit) => Some(explicit.number()),
        }
    }

    /// The next record has this number; the numbers of all have to be known.
    pub(crate) fn expect(&mut self, number: u64) {
        self.numbers = match self.numbers {
            Numbers::Counted(counted) => Numbers::Counted(counted.at(number)),
            Numbers::Explicit(explicit) => Numbers::Explicit(explicit.at(number)),
        };
    }

    /// The key behind a KeyUpdate.
    pub(crate) fn update(&self) -> Option<Self> {
        let (secret, suite) = self.secret.as_ref()?;
        Self::tls13(&secret::next_traffic_secret(secret, suite.hash()?)?, *suite, 0)
    }

    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Whether a record's tag proves that it is one.
    pub(crate) fn proves(&self) -> bool {
        matches!(self.key, Key::Gcm { .. })
    }

    /// What a record has beyond its plaintext, where that is always the same.
    pub(crate) fn overhead(&self) -> Option<u64> {
        match (&self.key, self.version) {
            (Key::Cbc(_), _) => None,
            // Header, type, tag.
            (_, Version::Tls13) => Some(5 + 1 + 16),
            (Key::Gcm { .. }, Version::Tls12) => Some(5 + 8 + 16),
            (Key::ChaCha20(_), Version::Tls12) => Some(5 + 16),
        }
    }

    /// Opens a record into `out`, whose content is of no use where it fails. What is learnt of
    /// numbers is kept.
    pub(crate) fn open(
        &mut self,
        header: Header,
        body: &[u8],
        missing: Missing,
        max_tries: u64,
        out: &mut Bytes,
    ) -> Option<Opened> {
        let (numbers, plain, missed) = match self.numbers {
            Numbers::Counted(counted) => {
                let (counted, plain, missed) =
                    self.counted(counted, Sealed { header, body }, missing, max_tries, out)?;
                (Numbers::Counted(counted), plain, missed)
            }
            Numbers::Explicit(explicit) => {
                let (explicit, plain, missed) =
                    self.explicit(explicit, Sealed { header, body }, missing, max_tries, out)?;
                (Numbers::Explicit(explicit), plain, missed)
            }
        };
        let opened = match self.version {
            Version::Tls12 => Opened { kind: header.kind(), plain, missed },
            Version::Tls13 => {
                // Padding is zero, and the type stands before it (RFC 8446, 5.2).
                let inner = out.0.get(plain.clone())?;
                let end = inner.iter().rposition(|byte| *byte != 0)?;
                let kind = *inner.get(end)?;
                if !(ALERT..=APPLICATION_DATA).contains(&kind) {
                    return None;
                }
                Opened { kind, plain: plain.start..plain.start.saturating_add(end), missed }
            }
        };
        self.numbers = numbers;
        Some(opened)
    }

    /// Whether the record is one of this key, that may come when so much is missing. Nothing is
    /// learnt.
    pub(crate) fn fits(&mut self, header: Header, body: &[u8], missing: Missing, out: &mut Bytes) -> bool {
        let numbers = self.numbers;
        let fits = self.open(header, body, missing, 1, out).is_some();
        self.numbers = numbers;
        fits
    }

    /// The nonce that the record's tag gives.
    pub(crate) fn out_of_tag(&mut self, header: Header, body: &[u8]) -> Option<[u8; 12]> {
        let Key::Gcm { aes, tags, .. } = &mut self.key else { return None };
        let (ciphertext, tag) = body.split_last_chunk()?;
        tags.get_or_insert_with(|| Box::new(GcmKey::new(aes))).out_of_tag(&header.0, ciphertext, tag)
    }

    fn counted(
        &mut self,
        counted: Counted,
        record: Sealed<'_>,
        missing: Missing,
        max_tries: u64,
        out: &mut Bytes,
    ) -> Option<(Counted, Range<usize>, Option<u64>)> {
        let version = self.version;
        if let Some(next) = missing.exact().and_then(|missed| counted.after(missed))
            && let Some(plain) = self.key.open(version, record, next.nonce(), next.number(), out)
        {
            return Some((next, plain, missing.exact()));
        }
        if version == Version::Tls13 && self.proves() {
            let nonce = self.out_of_tag(record.header, record.body)?;
            // What was taken for known may not be: then the number is learnt anew, if the nonce may
            // be the next one.
            let (next, missed) =
                counted.seen(nonce, missing).or_else(|| counted.forgotten().seen(nonce, missing))?;
            let plain = self.key.open(version, record, nonce, next.number(), out)?;
            return Some((next, plain, missed));
        }
        if missing.exact().is_some() {
            return None;
        }
        let tries =
            tries(record.body, max_tries).min(missing.max.saturating_sub(missing.min).saturating_add(1));
        (missing.min..missing.min.saturating_add(tries)).find_map(|missed| {
            let next = counted.after(missed)?;
            let plain = self.key.open(version, record, next.nonce(), next.number(), out)?;
            Some((next, plain, Some(missed)))
        })
    }

    fn explicit(
        &self,
        explicit: Explicit,
        record: Sealed<'_>,
        missing: Missing,
        max_tries: u64,
        out: &mut Bytes,
    ) -> Option<(Explicit, Range<usize>, Option<u64>)> {
        let sent = u64::from_be_bytes(*record.body.first_chunk()?);
        let likely = explicit.likely(sent, missing);
        let others = missing.exact().is_none().then(|| {
            let tries = tries(record.body, max_tries).min(missing.max.saturating_sub(missing.min));
            missing.min..=missing.min.saturating_add(tries)
        });
        likely.into_iter().flatten().chain(others.into_iter().flatten()).find_map(|missed| {
            let next = explicit.after(missed, sent);
            let plain = self.key.open(self.version, record, next.nonce(), Some(next.number()), out)?;
            Some((next, plain, Some(missed)))
        })
    }
}

/// A record that is to be opened.
#[derive(Clone, Copy)]
struct Sealed<'a> {
    header: Header,
    body: &'a [u8],
}

fn tries(body: &[u8], max: u64) -> u64 {
    let len = u64::try_from(body.len()).unwrap_or(u64::MAX).max(64);
    max.min(TRIED_BYTES.checked_div(len).unwrap_or(1)).max(1)
}

impl Key {
    fn new(keys: &Keys, encrypt_then_mac: bool) -> Option<Self> {
        match keys.cipher {
            Cipher::Aes128Gcm => {
                let mut key = Zeroizing::new([0; 16]);
                key.copy_from_slice(keys.key.get(..16)?);
                Self::aes(AesKey::Aes128(key))
            }
            Cipher::Aes256Gcm => {
                let mut key = Zeroizing::new([0; 32]);
                key.copy_from_slice(keys.key.get(..32)?);
                Self::aes(AesKey::Aes256(key))
            }
            Cipher::ChaCha20Poly1305 => Some(Self::ChaCha20(Aead::new(&CHACHA20_POLY1305, &keys.key)?)),
            Cipher::Cbc { .. } => Some(Self::Cbc(Box::new(CbcKey::new(keys, encrypt_then_mac)?))),
        }
    }

    fn aes(aes: AesKey) -> Option<Self> {
        let aead = match &aes {
            AesKey::Aes128(key) => Aead::new(&AES_128_GCM, &key[..])?,
            AesKey::Aes256(key) => Aead::new(&AES_256_GCM, &key[..])?,
        };
        Some(Self::Gcm { aead, aes, tags: None })
    }

    /// Opens a record with a nonce and, in TLS 1.2, a number. Returns where its plaintext lies in
    /// `out`.
    fn open(
        &self,
        version: Version,
        record: Sealed<'_>,
        nonce: [u8; 12],
        number: Option<u64>,
        out: &mut Bytes,
    ) -> Option<Range<usize>> {
        let Sealed { header, body } = record;
        out.0.clear();
        out.0.extend_from_slice(body);
        let (aead, start) = match self {
            Self::Cbc(key) => return key.open(number?, header.0, &mut out.0),
            Self::Gcm { aead, .. } if version == Version::Tls12 => (aead, 8),
            Self::Gcm { aead, .. } | Self::ChaCha20(aead) => (aead, 0),
        };
        let sealed = out.0.get_mut(start..)?;
        let plain = match version {
            Version::Tls13 => aead.open(nonce, &header.0, sealed)?,
            Version::Tls12 => {
                let plain_bytes = u16::try_from(sealed.len().checked_sub(16)?).ok()?;
                let [kind, major, minor, ..] = header.0;
                let [a, b, c, d, e, f, g, h] = number?.to_be_bytes();
                let [high, low] = plain_bytes.to_be_bytes();
                aead.open(nonce, &[a, b, c, d, e, f, g, h, kind, major, minor, high, low], sealed)?
            }
        };
        Some(start..start.saturating_add(plain))
    }
}

/// A key as ring has it, in one place for as long as it lives, and overwritten then.
struct Aead(Box<LessSafeKey>, &'static Algorithm);

impl Aead {
    fn new(algorithm: &'static Algorithm, key: &[u8]) -> Option<Self> {
        let expanded = expand(algorithm, key)?;
        // What the first call has left on the stack lies where that of the second is written.
        black_box(expand(algorithm, BLANK.get(..key.len())?)?);
        Some(Self(expanded, algorithm))
    }

    /// Opens in place. Returns how long the plaintext is.
    fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), sealed).ok().map(|plain| plain.len())
    }
}

const BLANK: [u8; 32] = [0; 32];

#[inline(never)]
fn expand(algorithm: &'static Algorithm, key: &[u8]) -> Option<Box<LessSafeKey>> {
    Some(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?)))
}

impl Drop for Aead {
    fn drop(&mut self) {
        // ring does not overwrite keys, and a key schedule is found in memory by its form: that of
        // another key takes its place.
        if let Some(blank) = BLANK.get(..self.1.key_len()).and_then(|key| UnboundKey::new(self.1, key).ok()) {
            *self.0 = LessSafeKey::new(blank);
            black_box(&self.0);
        }
    }
}
