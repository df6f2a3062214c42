//! Base64 with the standard alphabet (<https://www.rfc-editor.org/rfc/rfc4648#section-4>), padded
//! or not.

/// Decodes into `out`; the bytes that came out. `None` for another character, for a length that no
/// bytes give, and where `out` is too short. The unused bits of the last digit are not looked at.
#[must_use]
pub fn decode<'o>(text: &[u8], out: &'o mut [u8]) -> Option<&'o [u8]> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut places = out.iter_mut();
    let mut len = 0_usize;
    for group in digits.chunks(4) {
        let mut word = 0_u32;
        for &digit in group {
            word = word << 6 | value(digit)?;
        }
        let (word, bytes) = match group.len() {
            4 => (word, 3),
            3 => (word << 6, 2),
            2 => (word << 12, 1),
            _ => return None,
        };
        let [_, decoded @ ..] = word.to_be_bytes();
        for byte in decoded.into_iter().take(bytes) {
            *places.next()? = byte;
            len = len.saturating_add(1);
        }
    }
    out.get(..len)
}

fn value(digit: u8) -> Option<u32> {
    let (first, value) = match digit {
        b'A'..=b'Z' => (b'A', 0_u8),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(digit.saturating_sub(first).saturating_add(value)))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_vectors_of_the_rfc_with_and_without_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("Zm9vYmE=", b"fooba"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            let mut out = [0; 8];
            assert_eq!(decode(text.as_bytes(), &mut out), Some(bytes), "{text}");
            assert_eq!(decode(text.trim_end_matches('=').as_bytes(), &mut out), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_or_does_not_fit() {
        let mut out = [0; 3];
        for wrong in [&b"Z"[..], b"Zm9vY", b"Zm-v", b"Zm9vYg==", b"Z===", b"Zm 9", b"\xff\xff"] {
            assert_eq!(decode(wrong, &mut out), None, "{wrong:?}");
        }
    }
}
