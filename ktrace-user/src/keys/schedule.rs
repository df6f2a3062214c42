//! Finds expanded AES keys in memory by their form.
//!
//! An implementation of AES keeps the round keys of a key for as long as it uses it: 44 words for
//! AES-128, 60 for AES-256, of which each follows from those before it (FIPS 197, 5.2). So an
//! expanded key proves itself, wherever it lies and whoever has put it there. (Halderman et al.,
//! "Lest We Remember: Cold Boot Attacks on Encryption Keys", 2008.)
//!
//! ```text
//!  AES-128   w4 = w0 ^ g(w3)   w5 = w1 ^ w4   w6 = w2 ^ w5    w7 = w3 ^ w6    …  w43
//!  AES-256   w8 = w0 ^ g(w7)   w9 = w1 ^ w8   w10 = w2 ^ w9   w11 = w3 ^ w10  …  w59
//! ```
//!
//! Words lie in memory as bytes, or as 32-bit integers of the processor (Java's `int[]`), which
//! here means that each is turned around. What is only added is so in both: it makes a filter that
//! needs no S-box, and that compilers turn into vector instructions.
#![expect(unsafe_code, reason = "a call of what is compiled for AVX2")]

use ktrace_tls::sample::AesKey;
use zeroize::Zeroizing;

/// Bytes of the longest schedule: who searches in pieces has them overlap by this length, less one
/// word.
pub const LONGEST: usize = 4 * AES256_WORDS;

const AES128_WORDS: usize = 44;
const AES256_WORDS: usize = 60;
/// Words that the filter looks at beyond the one at which a schedule may begin.
const LOOKAHEAD: usize = 9;
/// Beginnings that are filtered together.
const BLOCK: usize = 64;

/// A word as it lies in memory.
type Word = [u8; 4];

/// Gives every schedule that begins at a multiple of four bytes of `memory` and lies wholly in it:
/// where, and the key.
pub fn find(memory: &[u8], mut found: impl FnMut(usize, AesKey)) {
    let (words, _) = memory.as_chunks();
    let mut verify = |at: usize| {
        if let Some(key) = words.get(at..).and_then(key_at) {
            found(at * size_of::<Word>(), key);
        }
    };
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { filter_avx2(words, &mut verify) };
        return;
    }
    filter(words, &mut verify);
}

/// The same as [`filter`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn filter_avx2(words: &[Word], verify: &mut impl FnMut(usize)) {
    filter(words, verify);
}

/// Gives where a schedule may begin: one in 2³² places in random words, and hardly any in zeros and
/// patterns.
#[inline(always)]
fn filter(words: &[Word], verify: &mut impl FnMut(usize)) {
    let mut at = 0;
    while let Some(block) = words.get(at..).and_then(<[Word]>::first_chunk) {
        if may_begin_in(block) {
            (at..at + BLOCK).filter(|at| may_begin(&words[*at..])).for_each(&mut *verify);
        }
        at += BLOCK;
    }
    // Fewer than a block has: too few for another, but perhaps enough for a schedule.
    let end = words.len().saturating_sub(LOOKAHEAD);
    (at..end).filter(|at| may_begin(&words[*at..])).for_each(&mut *verify);
}

/// Whether one may begin at any word of the block but those at its end that are only looked at.
#[inline(always)]
fn may_begin_in(block: &[Word; BLOCK + LOOKAHEAD]) -> bool {
    let word = |at: usize| u32::from_ne_bytes(block[at]);
    let mut any = false;
    // No branch, so that it is done in vectors.
    for at in 0..BLOCK {
        let aes128 = (word(at + 1) ^ word(at + 4) ^ word(at + 5) == 0) & (word(at + 4) != 0);
        let aes256 = (word(at + 1) ^ word(at + 8) ^ word(at + 9) == 0) & (word(at + 8) != 0);
        any |= aes128 | aes256;
    }
    any
}

/// Whether the first three sums of AES-128 or AES-256 are right. Words that repeat themselves make
/// a sum zero only where words are zero: a schedule has such a word once in 2³² times, and is then
/// not found.
fn may_begin(words: &[Word]) -> bool {
    let word = |at: usize| words.get(at).map_or(0, |word| u32::from_ne_bytes(*word));
    let sums = |step: usize| {
        (1..4).all(|at| word(at) ^ word(at + step - 1) ^ word(at + step) == 0 && word(at + step - 1) != 0)
    };
    sums(4) || sums(8)
}

/// The key of the schedule that begins here, in whichever order.
fn key_at(words: &[Word]) -> Option<AesKey> {
    [u32::from_be_bytes, u32::from_le_bytes].into_iter().find_map(|order| {
        if is_schedule::<4, AES128_WORDS>(words, order) {
            let mut key = Zeroizing::new([0; 16]);
            take(words, order, &mut key[..]);
            Some(AesKey::Aes128(key))
        } else if is_schedule::<8, AES256_WORDS>(words, order) {
            let mut key = Zeroizing::new([0; 32]);
            take(words, order, &mut key[..]);
            Some(AesKey::Aes256(key))
        } else {
            None
        }
    })
}

fn take(words: &[Word], order: fn(Word) -> u32, key: &mut [u8]) {
    for (bytes, word) in key.chunks_mut(size_of::<Word>()).zip(words) {
        bytes.copy_from_slice(&order(*word).to_be_bytes());
    }
}

/// Whether `WORDS` words are the schedule of a key of `KEY` words (FIPS 197, algorithm 2).
fn is_schedule<const KEY: usize, const WORDS: usize>(words: &[Word], order: fn(Word) -> u32) -> bool {
    let Some(words) = words.first_chunk::<WORDS>() else { return false };
    let word = |at: usize| order(words[at]);
    let mut round_constant: u32 = 1;
    (KEY..WORDS).all(|at| {
        let before = word(at - 1);
        let added = match at % KEY {
            0 => {
                let constant = round_constant << 24;
                // Ten of them are used, and only the last two are reduced.
                round_constant = if round_constant == 0x80 { 0x1b } else { round_constant << 1 };
                substitute(before.rotate_left(8)) ^ constant
            }
            4 if KEY == 8 => substitute(before),
            _ => before,
        };
        word(at) == word(at - KEY) ^ added
    })
}

fn substitute(word: u32) -> u32 {
    u32::from_be_bytes(word.to_be_bytes().map(|byte| S_BOX[usize::from(byte)]))
}

static S_BOX: [u8; 256] = s_box();

/// FIPS 197, 5.1.1: the inverse in GF(2⁸), and an affine map. 3 generates the field: its powers and
/// those of its inverse are walked together.
const fn s_box() -> [u8; 256] {
    let mut table = [0; 256];
    // Zero has no inverse.
    table[0] = 0x63;
    let (mut power, mut inverse) = (1_u8, 1_u8);
    loop {
        let affine = inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4);
        table[power as usize] = affine ^ 0x63;
        // Times 3.
        power ^= power << 1 ^ if power & 0x80 == 0 { 0 } else { 0x1b };
        // Divided by 3.
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        if inverse & 0x80 != 0 {
            inverse ^= 0x09;
        }
        if power == 1 {
            return table;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The schedule of a key, in the order of bytes.
    pub fn expand(key: &[u8]) -> Vec<u8> {
        let length = key.len() / 4;
        let mut words: Vec<u32> = key.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let mut constant = 1_u32;
        for at in length..(length + 7) * 4 {
            let before = words[at - 1];
            let added = if at % length == 0 {
                let added = substitute(before.rotate_left(8)) ^ constant << 24;
                constant = constant << 1 ^ if constant & 0x80 == 0 { 0 } else { 0x11b };
                added
            } else if length == 8 && at % 8 == 4 {
                substitute(before)
            } else {
                before
            };
            words.push(words[at - length] ^ added);
        }
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// As 32-bit integers.
    pub fn turned(schedule: &[u8]) -> Vec<u8> {
        schedule.as_chunks::<4>().0.iter().flat_map(|[a, b, c, d]| [*d, *c, *b, *a]).collect()
    }

    fn bytes(key: &AesKey) -> Vec<u8> {
        match key {
            AesKey::Aes128(key) => key.to_vec(),
            AesKey::Aes256(key) => key.to_vec(),
        }
    }

    fn found(memory: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut all = Vec::new();
        find(memory, |at, key| all.push((at, bytes(&key))));
        // What every processor does.
        let mut plain = Vec::new();
        let (words, _) = memory.as_chunks();
        filter(words, &mut |at| {
            plain.extend(key_at(&words[at..]).map(|key| (at * 4, bytes(&key))));
        });
        assert_eq!(all, plain);
        all
    }

    /// FIPS 197, appendix A.
    #[test]
    fn schedules_of_the_standard() {
        let key = *b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c";
        let schedule = expand(&key);
        assert_eq!(schedule.len(), 176);
        assert_eq!(schedule[172..], *b"\xb6\x63\x0c\xa6");
        assert_eq!(found(&schedule), [(0, key.to_vec())]);

        let key = *b"\x60\x3d\xeb\x10\x15\xca\x71\xbe\x2b\x73\xae\xf0\x85\x7d\x77\x81\
                     \x1f\x35\x2c\x07\x3b\x61\x08\xd7\x2d\x98\x10\xa3\x09\x14\xdf\xf4";
        let schedule = expand(&key);
        assert_eq!(schedule.len(), LONGEST);
        assert_eq!(schedule[236..], *b"\x70\x6c\x63\x1e");
        assert_eq!(found(&turned(&schedule)), [(0, key.to_vec())]);
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![proptest::collection::vec(any::<u8>(), 16), proptest::collection::vec(any::<u8>(), 32)]
    }

    proptest! {
        #[test]
        fn every_schedule_is_found(
            key in keys(),
            before in proptest::collection::vec(any::<u32>(), 0..200),
            behind in proptest::collection::vec(any::<u8>(), 0..300),
            turn: bool,
        ) {
            let schedule = if turn { turned(&expand(&key)) } else { expand(&key) };
            let before: Vec<u8> = before.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let memory = [&before[..], &schedule, &behind].concat();
            prop_assert_eq!(found(&memory), vec![(before.len(), key.clone())]);
            // One that is not there to its end is none.
            let cut = &memory[..before.len() + schedule.len() - 1];
            prop_assert_eq!(found(cut), vec![]);
        }

        #[test]
        fn a_schedule_with_a_wrong_bit_is_none(key in keys(), turn: bool, bit in 0_usize..176 * 8) {
            let mut schedule = if turn { turned(&expand(&key)) } else { expand(&key) };
            schedule[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(found(&schedule), vec![]);
        }

        #[test]
        fn random_memory_has_none(memory in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert_eq!(found(&memory), vec![]);
        }

        /// Nor does the filter let such through, as it would cost.
        #[test]
        fn patterns_have_none(
            pattern in proptest::collection::vec(any::<u32>(), 1..12),
            zeros: u16,
        ) {
            let is_zero = |at: usize| zeros >> at & 1 == 1;
            let pattern = pattern.iter().enumerate().map(|(at, word)| if is_zero(at) { 0 } else { *word });
            let memory: Vec<u8> = pattern.flat_map(u32::to_ne_bytes).collect();
            let memory: Vec<u8> = memory.iter().copied().cycle().take(4096).collect();
            let (words, _) = memory.as_chunks();
            let mut passed = 0;
            filter(words, &mut |_| passed += 1);
            prop_assert_eq!(passed, 0);
        }
    }
}
