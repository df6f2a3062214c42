//! What names from the network may not do: speak to a terminal, or look like something else than they are.
//!
//! Control characters move the cursor; bidirectional controls show text in another order than it has; characters without width
//! make two names look alike (<https://www.unicode.org/reports/tr36/>). Text shows a replacement for each, JSON an escape.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Whether a character is a control, or one that is not seen.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// As it may be shown on a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// JSON on one line, in which hidden characters are escapes.
///
/// # Errors
/// Those of writing, and of values that JSON lacks.
pub fn to_json(out: impl Write, value: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaped))
}

/// [`to_json`] as text.
///
/// # Errors
/// Values that JSON lacks.
pub fn json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    let mut out = Vec::new();
    to_json(&mut out, value)?;
    // JSON is UTF-8.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct Escaped;

impl Formatter for Escaped {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // The escapes of ASCII are the serializer's own.
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_hidden(*c)) {
            writer.write_all(fragment.as_bytes().get(written..at).unwrap_or_default())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = at + c.len_utf8();
        }
        writer.write_all(fragment.as_bytes().get(written..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_replaced_in_text_and_escaped_in_json() {
        for hidden in [
            '\0',
            '\u{1b}',
            '\u{7f}',
            '\u{80}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0001}',
            '\u{e007f}',
        ] {
            let text = format!("a{hidden}b");
            assert_eq!(printable(&text), "a\u{fffd}b", "{hidden:?}");
            let json = json(&text).unwrap();
            // DEL is as harmless in JSON as it is legal there.
            assert!(hidden == '\u{7f}' || json.is_ascii() && !json.contains(hidden), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        for seen in ["orders", "naïve", "заказы", "注文", "🦀", "a b"] {
            assert_eq!((printable(seen), json(seen).unwrap()), (seen.to_owned(), format!("\"{seen}\"")));
        }
        assert_eq!(json("x\u{e0041}\"é\u{85}").unwrap(), r#""x\udb40\udc41\"é\u0085""#);
    }
}
