//! The nonce of an AES-GCM record, out of its tag and the key.
//!
//! ```text
//!  tag = E_K(J0) XOR GHASH_H(header, ciphertext)        H = E_K(0), J0 = nonce ‖ 00000001
//!  J0  = D_K(tag XOR GHASH_H(header, ciphertext))
//! ```
//!
//! So a key needs neither IV nor sequence number to be tried: of another key the last four bytes
//! are 00000001 once in 2³² records. NIST SP 800-38D has the parts.

use std::sync::LazyLock;

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use crate::aes_key::AesKey;

/// What the counter of the block that hides the tag begins at.
const FIRST: u32 = 1;
/// The counter of the first block of plaintext.
const FIRST_OF_TEXT: u32 = 2;

/// An AES key made ready for trials: both its schedules and its hash. Overwritten when it is
/// dropped.
pub struct GcmKey {
    cipher: Cipher,
    hash: Hash,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, made for each trial")]
enum Cipher {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl GcmKey {
    /// Expands the key.
    #[must_use]
    pub fn new(key: &AesKey) -> Self {
        let cipher = match key {
            AesKey::Aes128(key) => Cipher::Aes128(Aes128::new(GenericArray::from_slice(&key[..]))),
            AesKey::Aes256(key) => Cipher::Aes256(Aes256::new(GenericArray::from_slice(&key[..]))),
        };
        let mut subkey = Block::default();
        cipher.encrypt(&mut subkey);
        let hash = Hash::new(&subkey);
        overwrite(&mut subkey);
        Self { cipher, hash }
    }

    /// The nonce of the record that has these additional data, ciphertext and tag, if this key
    /// seals it. Proves 32 bits: of other keys one in 2³² has a nonce, too.
    #[must_use]
    pub fn out_of_tag(&self, aad: &[u8], ciphertext: &[u8], tag: &[u8; 16]) -> Option<[u8; 12]> {
        let mut block = self.mask(aad, ciphertext, tag);
        self.cipher.decrypt(std::slice::from_mut(&mut block));
        nonce_of(&block)
    }

    /// tag XOR GHASH(aad, ciphertext): E_K(J0), if the key is the right one.
    pub(crate) fn mask(&self, aad: &[u8], ciphertext: &[u8], tag: &[u8; 16]) -> Block {
        let mut hash = self.hash.0.clone();
        hash.update_padded(aad);
        hash.update_padded(ciphertext);
        hash.update(&[lengths(aad.len(), ciphertext.len())]);
        xor(hash.finalize(), &Block::from(*tag))
    }

    /// H to the power of `exponent`, as a hash that multiplies with it.
    pub(crate) fn power(&self, exponent: usize) -> Hash {
        self.hash.power(exponent)
    }

    /// 1/H.
    pub(crate) fn inverse(&self) -> Hash {
        self.hash.inverse()
    }

    /// D_K of each block.
    pub(crate) fn decrypt(&self, blocks: &mut [Block]) {
        self.cipher.decrypt(blocks);
    }

    /// E_K of the block that hides the tag.
    pub(crate) fn mask_of(&self, nonce: &[u8; 12]) -> Block {
        self.counter_block(nonce, FIRST)
    }

    /// The last byte of the plaintext that is not zero: in TLS 1.3 the content's type, behind which
    /// is padding.
    pub(crate) fn last_byte(&self, nonce: &[u8; 12], ciphertext: &[u8]) -> Option<u8> {
        let chunks = ciphertext.chunks(16);
        let end = FIRST_OF_TEXT.saturating_add(u32::try_from(chunks.len()).ok()?);
        chunks.rev().zip((FIRST_OF_TEXT..end).rev()).find_map(|(block, counter)| {
            let stream = self.counter_block(nonce, counter);
            block.iter().zip(&stream).map(|(byte, of_key)| byte ^ of_key).rfind(|byte| *byte != 0)
        })
    }

    fn counter_block(&self, nonce: &[u8; 12], counter: u32) -> Block {
        let mut block = Block::default();
        let (start, end) = block.split_at_mut(nonce.len());
        start.copy_from_slice(nonce);
        end.copy_from_slice(&counter.to_be_bytes());
        self.cipher.encrypt(&mut block);
        block
    }
}

impl Cipher {
    fn encrypt(&self, block: &mut Block) {
        match self {
            Self::Aes128(cipher) => cipher.encrypt_block(block),
            Self::Aes256(cipher) => cipher.encrypt_block(block),
        }
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Aes128(cipher) => cipher.decrypt_blocks(blocks),
            Self::Aes256(cipher) => cipher.decrypt_blocks(blocks),
        }
    }
}

/// Multiplies with an element of GF(2¹²⁸), as GHASH has it.
pub(crate) struct Hash(GHash);

/// What overwrites the hash of another key.
static BLANK: LazyLock<GHash> = LazyLock::new(|| GHash::new(&Block::default()));

/// The one of that field: its bits are written from the lowest power on.
const ONE: u128 = 1 << 127;

impl Hash {
    fn new(element: &Block) -> Self {
        Self(GHash::new(element))
    }

    pub(crate) fn times(&self, element: &Block) -> Block {
        let mut hash = self.0.clone();
        hash.update(std::slice::from_ref(element));
        hash.finalize()
    }

    /// Its own element.
    fn element(&self) -> Block {
        self.times(&Block::from(ONE.to_be_bytes()))
    }

    /// A record's blocks are 1026 at most, so the exponent is small.
    pub(crate) fn power(&self, exponent: usize) -> Self {
        let mut hash = self.0.clone();
        let mut next = Block::from(ONE.to_be_bytes());
        for _ in 0..exponent {
            hash.update(std::slice::from_ref(&next));
            next = Block::default();
        }
        let mut power = hash.finalize();
        let power_hash = Self::new(&power);
        overwrite(&mut power);
        power_hash
    }

    /// The element to the power of 2¹²⁸ - 2: the product of its squares, 127 of them.
    fn inverse(&self) -> Self {
        let mut square = self.element();
        let mut product = Block::from(ONE.to_be_bytes());
        for _ in 0..127 {
            square = Self::new(&square).times(&square);
            product = Self::new(&square).times(&product);
        }
        let inverse = Self::new(&product);
        overwrite(&mut square);
        overwrite(&mut product);
        inverse
    }
}

impl Drop for Hash {
    /// The ciphers do so themselves. The hash does not where it chooses its implementation at run
    /// time (`polyval::backend::autodetect`).
    fn drop(&mut self) {
        self.0.clone_from(&BLANK);
        // A use behind the write, or the compiler would leave it out.
        std::hint::black_box(&mut self.0);
    }
}

fn overwrite(block: &mut Block) {
    block.fill(0);
    std::hint::black_box(block);
}

/// The nonce of J0, if it is one.
fn nonce_of(block: &Block) -> Option<[u8; 12]> {
    let (nonce, counter) = block.split_first_chunk::<12>()?;
    (*counter == FIRST.to_be_bytes()).then_some(*nonce)
}

/// The last block that is hashed: both lengths in bits.
fn lengths(aad: usize, ciphertext: usize) -> Block {
    let bits = |bytes: usize| u128::from((bytes as u64).saturating_mul(8));
    Block::from((bits(aad) << 64 | bits(ciphertext)).to_be_bytes())
}

/// Sum and difference in that field.
pub(crate) fn xor(mut one: Block, other: &Block) -> Block {
    for (byte, of_other) in one.iter_mut().zip(other) {
        *byte ^= of_other;
    }
    one
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use ring::aead;
    use zeroize::Zeroizing;

    use super::*;

    fn sealed(key: &[u8], nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> (Vec<u8>, [u8; 16]) {
        let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
        let sealing = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).unwrap());
        let mut bytes = plain.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let tag = sealing.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), &mut bytes).unwrap();
        (bytes, tag.as_ref().try_into().unwrap())
    }

    fn key(bytes: &[u8]) -> GcmKey {
        GcmKey::new(&match bytes.len() {
            16 => AesKey::Aes128(Zeroizing::new(bytes.try_into().unwrap())),
            _ => AesKey::Aes256(Zeroizing::new(bytes.try_into().unwrap())),
        })
    }

    proptest! {
        #[test]
        fn the_nonce_comes_out_of_what_ring_has_sealed(
            secret in prop_oneof![vec(any::<u8>(), 16), vec(any::<u8>(), 32)],
            nonce: [u8; 12],
            // 5 bytes in TLS 1.3, 13 in TLS 1.2.
            aad in prop_oneof![vec(any::<u8>(), 5), vec(any::<u8>(), 13)],
            plain in vec(any::<u8>(), 0..200),
            bit in 0_usize..128,
        ) {
            let (ciphertext, tag) = sealed(&secret, nonce, &aad, &plain);
            prop_assert_eq!(key(&secret).out_of_tag(&aad, &ciphertext, &tag), Some(nonce));

            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key(&secret).out_of_tag(&aad, &ciphertext, &other), None);
            let mut other = aad.clone();
            other[bit % aad.len()] ^= 1;
            prop_assert_eq!(key(&secret).out_of_tag(&other, &ciphertext, &tag), None);
            let mut other = secret.clone();
            other[bit % secret.len()] ^= 1;
            prop_assert_eq!(key(&other).out_of_tag(&aad, &ciphertext, &tag), None);
        }
    }

    /// The largest record, beyond what one batch of the hash takes.
    #[test]
    fn a_large_record() {
        let (ciphertext, tag) = sealed(&[7; 32], [9; 12], b"\x17\x03\x03\x40\x11", &[1; 16385]);
        assert_eq!(key(&[7; 32]).out_of_tag(b"\x17\x03\x03\x40\x11", &ciphertext, &tag), Some([9; 12]));
    }
}
