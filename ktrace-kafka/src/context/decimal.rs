//! Decimal text: ids that vendors write as integers.

/// An unsigned integer of 64 bits: digits alone, no sign, no blanks.
#[must_use]
pub fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A signed integer of 64 bits: `-` or nothing before the digits.
#[must_use]
pub fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => 0_i64.checked_sub_unsigned(unsigned(digits)?),
        None => unsigned(text)?.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{signed, unsigned};

    #[test]
    fn the_ends_of_the_range_and_nothing_beyond() {
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"00000000000000000000000000007"), Some(7));
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed(b"9223372036854775807"), Some(i64::MAX));
        for wrong in [&b""[..], b"+1", b"-", b"--1", b" 1", b"1a", b"18446744073709551616", b"\xff"] {
            assert_eq!((unsigned(wrong), signed(wrong)), (None, None), "{wrong:?}");
        }
        assert_eq!(unsigned(b"-1"), None);
        assert_eq!((signed(b"9223372036854775808"), signed(b"-9223372036854775809")), (None, None));
    }
}
