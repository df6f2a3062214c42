//! A record's key, kept only where the user asks for keys: bounded, and shown as text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Bytes of a key that are shown and compared. Keys are most often ids; this bounds what a queue of
/// hops may take.
pub const MAX_KEY_BYTES: usize = 256;

/// Stands at the end of a key that was cut.
const CUT: char = '…';

/// A record's key, cut after `MAX_KEY_BYTES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Up to one byte more than is shown: it says that the key was cut.
    bytes: Box<[u8]>,
}

impl Key {
    /// The key, as much of it as is kept.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self { bytes: key.get(..=MAX_KEY_BYTES).unwrap_or(key).into() }
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// As it is shown: itself if it is text without control characters, else its bytes as `0x` and
    /// hex digits.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        let (shown, cut) = match self.bytes.get(..MAX_KEY_BYTES) {
            Some(shown) if self.bytes.len() > MAX_KEY_BYTES => (shown, true),
            _ => (&*self.bytes, false),
        };
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // The cut went through a character.
            Err(error) if cut && error.error_len().is_none() => {
                shown.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
            }
            Err(_) => None,
        };
        match text.filter(|text| !text.chars().any(char::is_control)) {
            Some(text) if cut => format!("{text}{CUT}").into(),
            Some(text) => text.into(),
            None => {
                let mut hex = String::with_capacity(shown.len().saturating_mul(2).saturating_add(5));
                hex.push_str("0x");
                for byte in shown {
                    // A String does not fail.
                    let _ = write!(hex, "{byte:02x}");
                }
                hex.extend(cut.then_some(CUT));
                hex.into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_all_else_in_hex() {
        for (key, shown) in [
            (&b"order-7"[..], "order-7"),
            (b"", ""),
            ("schlüssel 🦀".as_bytes(), "schlüssel 🦀"),
            (b"\0\0\0\x07", "0x00000007"),
            (b"a\nb", "0x610a62"),
            (b"\xff\xfe", "0xfffe"),
            (b"half \xf0\x9f", "0x68616c6620f09f"),
        ] {
            assert_eq!(Key::new(key).text(), shown);
        }
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(Key::new(&[b'k'; MAX_KEY_BYTES]).text().len(), MAX_KEY_BYTES);
        let cut = format!("{}…", "k".repeat(MAX_KEY_BYTES));
        assert_eq!(Key::new(&[b'k'; 100_000]).text(), cut);
        let wide = "é".repeat(1000);
        assert_eq!(Key::new(format!("x{wide}").as_bytes()).text(), format!("x{}…", "é".repeat(127)));
        assert_eq!(Key::new(&[0xff; 100_000]).text(), format!("0x{}…", "ff".repeat(MAX_KEY_BYTES)));
        assert_eq!(size_of_val(&*Key::new(&[0; 100_000]).bytes), MAX_KEY_BYTES + 1);
    }
}
