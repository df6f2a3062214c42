//! Numbers of variable length.

/// A number as records have it: zigzag, then seven bits a byte.
pub fn varint(out: &mut Vec<u8>, number: i64) {
    unsigned_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// A number as flexible versions have it: seven bits a byte, the lowest first.
pub(crate) fn unsigned_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::varint;

    #[test]
    fn numbers_of_records_are_zigzag() {
        for (number, bytes) in [(0, &[0][..]), (-1, &[1]), (63, &[126]), (64, &[0x80, 1]), (-65, &[0x81, 1])]
        {
            let mut out = vec![];
            varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
        }
    }
}
