//! Hexadecimal text, either case.

const INVALID: u8 = 0xff;

/// A digit's value, without a branch or a table, so that the compiler turns loops over it into
/// vectors.
#[inline]
fn value(digit: u8) -> u8 {
    let number = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    if number < 10 {
        number
    } else if letter < 6 {
        letter.wrapping_add(10)
    } else {
        INVALID
    }
}

/// `2 × N` digits as `N` bytes, at most 16; `None` for another length or another character.
#[must_use]
#[inline]
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let mut digits = [[b'0'; 2]; 16];
    *digits.first_chunk_mut()? = *pairs;
    sixteen(digits)?.first_chunk().copied()
}

/// First all digits, then all pairs: of this size, compilers make vectors of both loops.
#[inline]
fn sixteen(mut digits: [[u8; 2]; 16]) -> Option<[u8; 16]> {
    for digit in digits.as_flattened_mut() {
        *digit = value(*digit);
    }
    // Only an invalid digit has a high bit.
    if digits.as_flattened().iter().fold(0, |all, digit| all | digit) & 0xf0 != 0 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, &[high, low]) in bytes.iter_mut().zip(&digits) {
        *byte = high << 4 | low;
    }
    Some(bytes)
}

/// 1 to 32 digits as a number.
#[must_use]
pub fn number(text: &[u8]) -> Option<u128> {
    if !(1..=32).contains(&text.len()) {
        return None;
    }
    let mut number = 0;
    let mut wrong = 0;
    for &digit in text {
        let digit = value(digit);
        wrong |= digit;
        number = number << 4 | u128::from(digit & 0x0f);
    }
    (wrong & 0xf0 == 0).then_some(number)
}

/// A UUID with its dashes.
#[must_use]
pub fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut digits = [0; 32];
    let mut rest = digits.as_mut_slice();
    let mut parts = text.split(|&byte| byte == b'-');
    for len in [8, 4, 4, 4, 12] {
        let part = parts.next().filter(|part| part.len() == len)?;
        let (head, tail) = rest.split_at_mut_checked(len)?;
        head.copy_from_slice(part);
        rest = tail;
    }
    if parts.next().is_some() { None } else { decode(&digits) }
}

#[cfg(test)]
mod tests {
    use super::{decode, number};

    #[test]
    fn numbers_of_any_length_up_to_16_bytes() {
        assert_eq!(number(b"0aF"), Some(0xaf));
        assert_eq!(number(&[b'f'; 32]), Some(u128::MAX));
        assert_eq!((number(b""), number(&[b'0'; 33]), number(b"0x1")), (None, None, None));
    }

    #[test]
    fn digits_of_either_case_and_nothing_else() {
        assert_eq!(decode(b"00fFa5"), Some([0x00, 0xff, 0xa5]));
        assert_eq!(decode::<3>(b"00fFa"), None);
        assert_eq!(decode::<3>(b"00fFag"), None);
        assert_eq!(decode::<3>(b"00fFa5a5"), None);
    }
}
