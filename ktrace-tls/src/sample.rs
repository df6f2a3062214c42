//! Records that a search for keys is given, and the proof that a key opens one of them.

use aes::Block;

use crate::nonce::{GcmKey, xor};
use crate::{Sender, Version};

pub use crate::aes_key::AesKey;

const APPLICATION_DATA: u8 = 23;
/// What a record holds: alert, handshake, application data.
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 21..=23;

/// A protected record as it passed the socket.
#[derive(Clone, Debug)]
pub struct Sample {
    /// TCP sequence number of its header's first byte: names the record within its direction.
    pub seq: u32,
    /// The record's header.
    pub header: [u8; 5],
    /// What follows the header: ciphertext and tag.
    pub body: Box<[u8]>,
    /// `None` where the handshake was not seen: both are tried.
    pub version: Option<Version>,
    /// TLS 1.2: the record's number, where its direction was seen from the beginning.
    pub number: Option<u64>,
}

/// Some records of each direction, the first ones first.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Of the client's direction.
    pub client: Vec<Sample>,
    /// Of the server's direction.
    pub server: Vec<Sample>,
}

/// A key that opens a record of a direction.
pub struct FoundKey {
    /// Whose records it opens.
    pub sender: Sender,
    /// Of the record that it opens: [`Sample::seq`].
    pub seq: u32,
    /// The version of the record.
    pub version: Version,
    /// The key.
    pub key: AesKey,
    /// The record's nonce.
    pub nonce: [u8; 12],
    /// TLS 1.2: the record's number.
    pub number: Option<u64>,
}

/// What a key has to do with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The version of the record.
    pub version: Version,
    /// The record's nonce.
    pub nonce: [u8; 12],
    /// TLS 1.2: the record's number.
    pub number: Option<u64>,
}

/// Of the nonce: TLS 1.2 sends the last eight bytes, and takes the others from the handshake.
const EXPLICIT: usize = 8;
const SALT: usize = 4;
/// Numbers that are tried with one call of the cipher, which takes eight blocks at a time.
const BATCH: u32 = 64;
/// A record has this many bytes of ciphertext and tag at most (RFC 5246, 6.2.3; RFC 8446, 5.2).
const LONGEST: usize = (1 << 14) + 2048;

impl AesKey {
    /// Whether this key opens the record. TLS 1.3 and TLS 1.2 with a known number cost one GHASH
    /// and one block; TLS 1.2 of which the number is not known tries numbers up to `tries`.
    #[must_use]
    pub fn opens(&self, sample: &Sample, tries: u64) -> Option<Proof> {
        GcmKey::new(self).opens(sample, tries)
    }
}

impl GcmKey {
    /// As [`AesKey::opens`], with a key that was expanded before.
    ///
    /// TLS 1.3 proves 38 bits: the counter behind the nonce, and that the plaintext ends in a
    /// content type. Nonces of more records of the same direction prove the rest
    /// ([`Proof::continues`]). TLS 1.2 proves 96 bits.
    #[must_use]
    pub fn opens(&self, sample: &Sample, tries: u64) -> Option<Proof> {
        self.opens_tls13(sample).or_else(|| self.opens_tls12(&Explicit::of(sample)?, tries))
    }

    fn opens_tls13(&self, sample: &Sample) -> Option<Proof> {
        let content_type = *sample.header.first()?;
        if sample.version == Some(Version::Tls12) || content_type != APPLICATION_DATA {
            return None;
        }
        let (ciphertext, tag) = sample.body.split_last_chunk::<16>()?;
        if sample.body.len() > LONGEST {
            return None;
        }
        let nonce = self.out_of_tag(&sample.header, ciphertext, tag)?;
        let inner = self.last_byte(&nonce, ciphertext)?;
        CONTENT_TYPES.contains(&inner).then_some(Proof { version: Version::Tls13, nonce, number: None })
    }

    fn opens_tls12(&self, record: &Explicit<'_>, tries: u64) -> Option<Proof> {
        let at = |number| {
            let nonce = self.out_of_tag(&record.aad(number), record.ciphertext, record.tag)?;
            nonce.ends_with(record.nonce).then(|| record.proof(nonce, number))
        };
        match record.number {
            Some(number) => at(number),
            // Go and Java send the number itself.
            None => at(u64::from_be_bytes(*record.nonce)).or_else(|| self.count(record, tries)),
        }
    }

    /// Tries numbers from 0 on. The number is a part of the hash's first block, and the hash is
    /// linear: so each of its bits adds the same, whatever the others are, and a number costs an
    /// addition and a block.
    fn count(&self, record: &Explicit<'_>, tries: u64) -> Option<Proof> {
        if tries == 0 {
            return None;
        }
        let power = self.power(record.exponent());
        let of_bit = |bit: u32| number(&power.times(&Block::from((1_u128 << 64 << bit).to_be_bytes())));
        let bits: Vec<u128> = (0..u64::BITS).map(of_bit).collect();
        let sum = |value: u64, bits: &[u128]| {
            let set = bits.iter().enumerate().filter(|(bit, _)| value >> bit & 1 == 1);
            set.fold(0, |sum, (_, of_bit)| sum ^ of_bit)
        };
        let (low, high) = bits.split_at_checked(BATCH.trailing_zeros() as usize)?;
        let low: Vec<u128> = (0..BATCH).map(|value| sum(value.into(), low)).collect();

        let mut base = number(&self.mask(&record.aad(0), record.ciphertext, record.tag));
        let wanted = u128::from(u64::from_be_bytes(*record.nonce)) << 32 | 1;
        let mut blocks = vec![Block::default(); low.len()];
        for batch in 0..tries.div_ceil(BATCH.into()) {
            // From one number to the next the bits up to the lowest that was not set change.
            base ^= sum(batch ^ batch.saturating_sub(1), high);
            for (block, of_low) in blocks.iter_mut().zip(&low) {
                *block = Block::from((base ^ of_low).to_be_bytes());
            }
            self.decrypt(&mut blocks);
            let found = blocks.iter().position(|block| number(block) << 32 == wanted << 32);
            if let Some((within, block)) = found.and_then(|at| Some((at, blocks.get(at)?))) {
                let (nonce, _) = block.split_first_chunk()?;
                let number = batch.saturating_mul(BATCH.into()).saturating_add(within as u64);
                return Some(record.proof(*nonce, number));
            }
        }
        None
    }

    /// As [`GcmKey::opens`] for a record of TLS 1.2 of any number, where the memory beside the key
    /// is available: OpenSSL and rustls keep the secret part of the nonce there. With a nonce the
    /// hash's first block can be solved for, which holds the number, and of which eight bytes are
    /// known.
    #[must_use]
    pub fn opens_beside(&self, sample: &Sample, beside: &[u8]) -> Option<Proof> {
        let record = Explicit::of(sample)?;
        let inverse = self.inverse().power(record.exponent());
        // The whole of the first block's part, and the nonce's mask.
        let rest = self.mask(&record.aad(0), record.ciphertext, record.tag);
        let known = Block::from(record.first_block(0));
        let salts = beside.windows(SALT).step_by(SALT).filter(|salt| salt.iter().any(|byte| *byte != 0));
        salts.filter_map(|salt| <&[u8; SALT]>::try_from(salt).ok()).find_map(|salt| {
            let nonce = record.with_salt(salt);
            let difference = inverse.times(&xor(rest, &self.mask_of(&nonce)));
            let block = xor(difference, &known);
            let (number, others) = block.split_first_chunk::<8>()?;
            known.ends_with(others).then(|| record.proof(nonce, u64::from_be_bytes(*number)))
        })
    }
}

/// A record of TLS 1.2, taken apart: `explicit nonce ‖ ciphertext ‖ tag`.
struct Explicit<'a> {
    header: [u8; 5],
    nonce: &'a [u8; EXPLICIT],
    ciphertext: &'a [u8],
    tag: &'a [u8; 16],
    number: Option<u64>,
}

impl<'a> Explicit<'a> {
    fn of(sample: &'a Sample) -> Option<Self> {
        if sample.version == Some(Version::Tls13) || sample.body.len() > LONGEST {
            return None;
        }
        let (nonce, rest) = sample.body.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        Some(Self { header: sample.header, nonce, ciphertext, tag, number: sample.number })
    }

    /// `number ‖ type ‖ version ‖ length of the plaintext` (RFC 5246, 6.2.3.3).
    fn aad(&self, number: u64) -> [u8; 13] {
        let [content_type, major, minor, ..] = self.header;
        let [.., high, low] = self.ciphertext.len().to_be_bytes();
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        [a, b, c, d, e, f, g, h, content_type, major, minor, high, low]
    }

    /// The same as the hash takes it.
    fn first_block(&self, number: u64) -> [u8; 16] {
        let mut block = [0; 16];
        for (byte, of_aad) in block.iter_mut().zip(self.aad(number)) {
            *byte = of_aad;
        }
        block
    }

    /// The power of H that the first block is multiplied with: it, the ciphertext, and the lengths.
    fn exponent(&self) -> usize {
        self.ciphertext.len().div_ceil(16).saturating_add(2)
    }

    fn with_salt(&self, salt: &[u8; SALT]) -> [u8; 12] {
        let [a, b, c, d] = *salt;
        let [e, f, g, h, i, j, k, l] = *self.nonce;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn proof(&self, nonce: [u8; 12], number: u64) -> Proof {
        Proof { version: Version::Tls12, nonce, number: Some(number) }
    }
}

impl Proof {
    /// Whether another record of the same direction and key has a nonce that goes with this one. In
    /// TLS 1.3 a nonce is a constant XOR the record's number (RFC 8446, 5.3): those of records that
    /// follow each other differ in their last bytes alone. That proves 64 bits.
    #[must_use]
    pub fn continues(&self, other: &Self) -> bool {
        let start = |proof: &Self| proof.nonce.first_chunk::<8>().copied();
        match self.version {
            _ if self.version != other.version || self.nonce == other.nonce => false,
            Version::Tls13 => start(self) == start(other),
            Version::Tls12 => self.nonce.first_chunk::<SALT>() == other.nonce.first_chunk::<SALT>(),
        }
    }
}

fn number(block: &Block) -> u128 {
    u128::from_be_bytes((*block).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::aead;

    use zeroize::Zeroizing;

    use super::*;

    fn seal(key: &AesKey, nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let (algorithm, bytes) = match key {
            AesKey::Aes128(key) => (&aead::AES_128_GCM, &key[..]),
            AesKey::Aes256(key) => (&aead::AES_256_GCM, &key[..]),
        };
        let sealing = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, bytes).unwrap());
        let mut sealed = plain.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        sealing.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut sealed).unwrap();
        sealed
    }

    fn header(content_type: u8, len: usize) -> [u8; 5] {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [content_type, 3, 3, high, low]
    }

    fn tls13(key: &AesKey, iv: [u8; 12], number: u64, inner: &[u8]) -> Sample {
        let mut nonce = iv;
        for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        let header = header(23, inner.len() + 16);
        let body = seal(key, nonce, &header, inner).into();
        Sample { seq: 1, header, body, version: None, number: None }
    }

    fn tls12(key: &AesKey, nonce: [u8; 12], number: u64, plain: &[u8]) -> Sample {
        let aad = [&number.to_be_bytes()[..], &header(23, plain.len())].concat();
        let body = [nonce[4..].to_vec(), seal(key, nonce, &aad, plain)].concat();
        Sample { seq: 1, header: header(23, body.len()), body: body.into(), version: None, number: None }
    }

    fn keys() -> impl Strategy<Value = AesKey> {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|key| AesKey::Aes128(Zeroizing::new(key))),
            any::<[u8; 32]>().prop_map(|key| AesKey::Aes256(Zeroizing::new(key))),
        ]
    }

    impl std::fmt::Debug for AesKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(if matches!(self, Self::Aes128(_)) { "Aes128" } else { "Aes256" })
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn tls13_is_proved_by_two_records(
            key in keys(),
            other in keys(),
            iv: [u8; 12],
            number in 0_u64..1 << 40,
            plain in proptest::collection::vec(any::<u8>(), 0..100),
            inner in CONTENT_TYPES,
            padding in 0_usize..40,
        ) {
            let inner = [plain, vec![inner], vec![0; padding]].concat();
            let first = key.opens(&tls13(&key, iv, number, &inner), 0).unwrap();
            let second = key.opens(&tls13(&key, iv, number + 1, &inner), 0).unwrap();
            prop_assert_eq!((first.version, first.number), (Version::Tls13, None));
            prop_assert!(first.continues(&second) && !first.continues(&first));
            let mut elsewhere = iv;
            elsewhere[3] ^= 1;
            prop_assert!(!first.continues(&key.opens(&tls13(&key, elsewhere, number, &inner), 0).unwrap()));
            prop_assert!(other.opens(&tls13(&key, iv, number, &inner), 0).is_none());
        }

        #[test]
        fn tls12_is_proved_with_its_number_known_sent_and_counted(
            key in keys(),
            other in keys(),
            nonce: [u8; 12],
            number in 0_u64..5000,
            plain in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let proof = Some(Proof { version: Version::Tls12, nonce, number: Some(number) });
            let counted = tls12(&key, nonce, number, &plain);
            prop_assert_eq!(key.opens(&counted, number + 1), proof);
            prop_assert_eq!(key.opens(&counted, number / 64 * 64), None);
            prop_assert_eq!(other.opens(&counted, 5000), None);
            let known = Sample { number: Some(number), ..counted.clone() };
            prop_assert_eq!(key.opens(&known, 0), proof);
            prop_assert_eq!(key.opens(&Sample { number: Some(number + 1), ..counted.clone() }, 5000), None);

            let mut sent = nonce;
            sent[4..].copy_from_slice(&number.to_be_bytes());
            let proof = Some(Proof { version: Version::Tls12, nonce: sent, number: Some(number) });
            prop_assert_eq!(key.opens(&tls12(&key, sent, number, &plain), 0), proof);
        }

        /// However many records went before.
        #[test]
        fn tls12_is_proved_by_the_memory_beside_the_key(
            key in keys(),
            nonce: [u8; 12],
            number: u64,
            plain in proptest::collection::vec(any::<u8>(), 0..100),
            before in 0_usize..20,
        ) {
            prop_assume!(nonce[..4] != [0; 4]);
            let sample = tls12(&key, nonce, number, &plain);
            let beside = [&vec![7; before * 4][..], &nonce, &[0; 64]].concat();
            let proof = Proof { version: Version::Tls12, nonce, number: Some(number) };
            let key = GcmKey::new(&key);
            prop_assert_eq!(key.opens_beside(&sample, &beside), Some(proof));
            prop_assert_eq!(key.opens_beside(&sample, &[1; 200]), None);
        }

        #[test]
        fn any_bytes_are_taken(
            key in keys(),
            header: [u8; 5],
            body in proptest::collection::vec(any::<u8>(), 0..60),
            number: Option<u64>,
        ) {
            let sample = Sample { seq: 0, header, body: body.into(), version: None, number };
            let key = GcmKey::new(&key);
            prop_assert_eq!(key.opens(&sample, 100), None);
            prop_assert_eq!(key.opens_beside(&sample, &[3; 33]), None);
        }
    }

    #[test]
    fn a_version_that_is_known_is_held_to() {
        let key = AesKey::Aes128(Zeroizing::new([1; 16]));
        let inner = [5, 5, 23];
        let tls13 = Sample { version: Some(Version::Tls12), ..tls13(&key, [2; 12], 3, &inner) };
        let tls12 = Sample { version: Some(Version::Tls13), ..tls12(&key, [2; 12], 3, &inner) };
        assert_eq!((key.opens(&tls13, 100), key.opens(&tls12, 100)), (None, None));
    }

    /// The largest record: the content type is sought in its last block alone.
    #[test]
    fn large_records() {
        let key = AesKey::Aes256(Zeroizing::new([1; 32]));
        let inner = [vec![9; 1 << 14], vec![23]].concat();
        assert!(key.opens(&tls13(&key, [2; 12], 3, &inner), 0).is_some());
        assert!(key.opens(&tls12(&key, [2; 12], 700, &inner[1..]), 1000).is_some());
    }
}
