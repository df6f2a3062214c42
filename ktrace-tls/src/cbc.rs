//! Opens AES-CBC records of TLS 1.2: the MAC over the plaintext (RFC 5246, 6.2.3.2), or over the
//! ciphertext (RFC 7366).
//!
//! ```text
//!  MAC first:      IV ║ encrypted (plaintext ║ MAC ║ padding)
//!  encrypt first:  IV ║ encrypted (plaintext ║ padding) ║ MAC
//! ```
//!
//! The MAC covers the record's number, type, version and length, so it proves all of them. It and
//! the padding are compared as fast as may be: who could measure the time has no way to offer
//! records and to learn what became of them.

use std::ops::Range;

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecrypt, KeyInit};
use aes::{Aes128Dec, Aes256Dec};
use ring::hmac;

use crate::cipher::Cipher;
use crate::secret::{Keys, hash_bytes, hmac_of};

/// AES's block, and the IV in front of each record.
const BLOCK: usize = 16;

/// The key of one direction.
pub struct CbcKey {
    aes: Aes,
    mac: hmac::Key,
    mac_bytes: usize,
    /// RFC 7366.
    encrypt_then_mac: bool,
}

enum Aes {
    // Boxed, as 240 bytes of round keys that are moved would stay behind where they were.
    Bits128(Box<Aes128Dec>),
    Bits256(Box<Aes256Dec>),
}

impl CbcKey {
    /// `None` for keys of another cipher. `encrypt_then_mac` is what both sides have agreed on in
    /// their hellos.
    #[must_use]
    pub fn new(keys: &Keys, encrypt_then_mac: bool) -> Option<Self> {
        let Cipher::Cbc { key_bytes, mac } = keys.cipher else { return None };
        let mac_bytes = hash_bytes(mac);
        if keys.key.len() != key_bytes || keys.mac.len() != mac_bytes {
            return None;
        }
        let aes = match key_bytes {
            16 => Aes::Bits128(Box::new(Aes128Dec::new_from_slice(&keys.key).ok()?)),
            32 => Aes::Bits256(Box::new(Aes256Dec::new_from_slice(&keys.key).ok()?)),
            _ => return None,
        };
        Some(Self { aes, mac: hmac::Key::new(hmac_of(mac), &keys.mac), mac_bytes, encrypt_then_mac })
    }

    /// Opens the record with this number. Returns where in `body` its plaintext lies, or `None`
    /// where the MAC does not prove it: then what is left in `body` is of no use.
    pub fn open(&self, number: u64, header: [u8; 5], body: &mut [u8]) -> Option<Range<usize>> {
        self.open_among(number..number.saturating_add(1), header, body).map(|(_, plain)| plain)
    }

    /// The same for a record of which only a range of numbers is known, as behind a gap. Returns
    /// its number, too. Each number costs a MAC over the record, and it is decrypted once.
    pub fn open_among(
        &self,
        numbers: Range<u64>,
        header: [u8; 5],
        body: &mut [u8],
    ) -> Option<(u64, Range<usize>)> {
        if self.encrypt_then_mac {
            let (sealed, mac) = body.split_at_mut_checked(body.len().checked_sub(self.mac_bytes)?)?;
            let number = self.prove(numbers, header, sealed, mac)?;
            let padded = self.decrypt(sealed)?;
            let end = padded.end.checked_sub(padding(sealed.get(padded.clone())?)?)?;
            return Some((number, padded.start..end));
        }
        let padded = self.decrypt(body)?;
        let padding = padding(body.get(padded.clone())?)?;
        let end = padded.end.checked_sub(padding)?.checked_sub(self.mac_bytes)?;
        let (plain, rest) = body.get(padded.start..)?.split_at_checked(end.checked_sub(padded.start)?)?;
        let number = self.prove(numbers, header, plain, rest.get(..self.mac_bytes)?)?;
        Some((number, padded.start..end))
    }

    /// Decrypts what is behind the IV. Returns where that lies: at least one block.
    fn decrypt(&self, sealed: &mut [u8]) -> Option<Range<usize>> {
        let len = sealed.len();
        if len < 2 * BLOCK || !len.is_multiple_of(BLOCK) {
            return None;
        }
        // Each block is XORed with the ciphertext in front of it, which is overwritten: so that is
        // kept.
        let before = sealed.get(..len.checked_sub(BLOCK)?)?.to_vec();
        let plain = sealed.get_mut(BLOCK..)?;
        match &self.aes {
            Aes::Bits128(aes) => aes.decrypt_blocks_inout(InOutBuf::from(&mut *plain).into_chunks().0),
            Aes::Bits256(aes) => aes.decrypt_blocks_inout(InOutBuf::from(&mut *plain).into_chunks().0),
        }
        for (byte, before) in plain.iter_mut().zip(before) {
            *byte ^= before;
        }
        Some(BLOCK..len)
    }

    /// The first of the numbers with which the MAC is that of the bytes.
    fn prove(&self, mut numbers: Range<u64>, header: [u8; 5], bytes: &[u8], mac: &[u8]) -> Option<u64> {
        let [kind, major, minor, _, _] = header;
        let [high, low] = u16::try_from(bytes.len()).ok()?.to_be_bytes();
        numbers.find(|number| {
            let mut context = hmac::Context::with_key(&self.mac);
            context.update(&number.to_be_bytes());
            context.update(&[kind, major, minor, high, low]);
            context.update(bytes);
            context.sign().as_ref() == mac
        })
    }
}

/// How long the padding is, with the byte that says so. `None` where it is none.
fn padding(padded: &[u8]) -> Option<usize> {
    let last = *padded.last()?;
    let len = usize::from(last).saturating_add(1);
    let padding = padded.get(padded.len().checked_sub(len)?..)?;
    padding.iter().all(|byte| *byte == last).then_some(len)
}

#[cfg(test)]
mod tests {
    use aes::cipher::BlockEncrypt;
    use aes::{Aes128Enc, Aes256Enc};
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;
    use crate::cipher::Hash;

    const MACS: [Hash; 3] = [Hash::Sha1, Hash::Sha256, Hash::Sha384];

    fn keys(key_bytes: usize, mac: Hash) -> Keys {
        Keys {
            cipher: Cipher::Cbc { key_bytes, mac },
            key: Zeroizing::new((1..).take(key_bytes).collect()),
            iv: [0; 12],
            mac: Zeroizing::new((101..).take(hash_bytes(mac)).collect()),
        }
    }

    /// Seals as the sender does, block by block.
    fn seal(keys: &Keys, first: bool, number: u64, plain: &[u8], more_padding: usize) -> ([u8; 5], Vec<u8>) {
        let Cipher::Cbc { key_bytes, mac: hash } = keys.cipher else { panic!() };
        let mac = |bytes: &[u8]| {
            let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let text = [&number.to_be_bytes()[..], &[23, 3, 3], &len, bytes].concat();
            hmac::sign(&hmac::Key::new(hmac_of(hash), &keys.mac), &text).as_ref().to_vec()
        };
        let mut padded = plain.to_vec();
        if !first {
            padded.extend(mac(plain));
        }
        let padding = BLOCK - 1 - padded.len() % BLOCK + more_padding * BLOCK;
        padded.extend(vec![u8::try_from(padding).unwrap(); padding + 1]);
        let mut sealed = vec![0x5a; BLOCK];
        for block in padded.chunks(BLOCK) {
            let before = &sealed[sealed.len() - BLOCK..];
            let mut block: [u8; BLOCK] = std::array::from_fn(|at| block[at] ^ before[at]);
            match key_bytes {
                16 => Aes128Enc::new_from_slice(&keys.key).unwrap().encrypt_block((&mut block).into()),
                _ => Aes256Enc::new_from_slice(&keys.key).unwrap().encrypt_block((&mut block).into()),
            }
            sealed.extend(block);
        }
        if first {
            sealed.extend(mac(&sealed));
        }
        let [high, low] = u16::try_from(sealed.len()).unwrap().to_be_bytes();
        ([23, 3, 3, high, low], sealed)
    }

    #[test]
    fn what_was_sealed_is_opened() {
        for (mac, key_bytes) in MACS.into_iter().flat_map(|mac| [(mac, 16), (mac, 32)]) {
            for encrypt_first in [false, true] {
                let keys = keys(key_bytes, mac);
                let key = CbcKey::new(&keys, encrypt_first).unwrap();
                for (len, more_padding) in [(0, 0), (1, 3), (15, 0), (16, 14), (300, 0), (16_384, 1)] {
                    let plain: Vec<u8> = (0..=255).cycle().take(len).collect();
                    let (header, sealed) = seal(&keys, encrypt_first, 7, &plain, more_padding);
                    let mut body = sealed.clone();
                    let range = key.open(7, header, &mut body).unwrap();
                    assert_eq!(body[range], plain, "{mac:?} {key_bytes} {encrypt_first} {len}");
                    // Another number, another type, and the other order of MAC and encryption prove
                    // nothing.
                    assert!(key.open(8, header, &mut sealed.clone()).is_none());
                    let alert = [21, 3, 3, header[3], header[4]];
                    assert!(key.open(7, alert, &mut sealed.clone()).is_none());
                    let other = CbcKey::new(&keys, !encrypt_first).unwrap();
                    assert!(other.open(7, header, &mut sealed.clone()).is_none());
                    let (number, range) = key.open_among(3..9, header, &mut sealed.clone()).unwrap();
                    assert_eq!((number, range.len()), (7, len));
                    assert!(key.open_among(8..20, header, &mut sealed.clone()).is_none());
                }
            }
        }
    }

    #[test]
    fn keys_of_other_ciphers_or_lengths_make_none() {
        let mut keys = keys(16, Hash::Sha256);
        keys.mac.pop();
        assert!(CbcKey::new(&keys, false).is_none());
        keys.mac.push(1);
        keys.key.push(1);
        assert!(CbcKey::new(&keys, false).is_none());
        keys.cipher = Cipher::Cbc { key_bytes: 17, mac: Hash::Sha256 };
        assert!(CbcKey::new(&keys, false).is_none());
        keys.cipher = Cipher::Aes128Gcm;
        assert!(CbcKey::new(&keys, false).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_record(first: bool, mut body in prop::collection::vec(any::<u8>(), 0..400)) {
            let key = CbcKey::new(&keys(16, Hash::Sha1), first).unwrap();
            prop_assert!(key.open(0, [23, 3, 3, 0, 0], &mut body).is_none());
        }

        #[test]
        fn a_changed_or_cut_record_is_none(
            first: bool,
            len in 0_usize..100,
            at in 0_usize..200,
            flip in 1_u8..,
            cut in 0_usize..200,
        ) {
            let keys = keys(32, Hash::Sha384);
            let key = CbcKey::new(&keys, first).unwrap();
            let (header, sealed) = seal(&keys, first, 0, &vec![b'x'; len], 0);
            let mut changed = sealed.clone();
            let at = at % sealed.len();
            changed[at] ^= flip;
            prop_assert!(key.open(0, header, &mut changed).is_none());
            let cut = cut % sealed.len();
            prop_assert!(key.open(0, header, &mut sealed[..cut].to_vec()).is_none());
        }
    }
}
