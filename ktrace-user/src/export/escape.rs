//! Names from the network must not control a terminal, nor look like something else than they are.
//!
//! Control characters move the cursor; bidirectional controls show text in another order than it
//! has; characters without width make two names look alike
//! (<https://www.unicode.org/reports/tr36/>). Text shows a replacement for each, JSON an escape.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

/// Whether a character is a control, or invisible.
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
pub fn printable(text: &str) -> Cow<'_, str> {
    // The fast path: nearly all names are plain ASCII, and each line has several.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Appends JSON on one line, in which hidden characters are escapes.
///
/// # Errors
/// Values that JSON lacks.
pub fn to_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
    let begin = out.len();
    serde_json::to_writer(&mut *out, value)?;
    // The serializer escapes ASCII itself. One scan of the whole text costs less than one of each
    // string.
    if !out.get(begin..).unwrap_or_default().is_ascii() {
        let plain = out.split_off(begin);
        out.extend(escaped(&String::from_utf8_lossy(&plain)).into_bytes());
    }
    Ok(())
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

/// Escapes hidden characters in JSON, where they can be in strings only.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A String does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
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
            assert_eq!((&*printable(seen), json(seen).unwrap()), (seen, format!("\"{seen}\"")));
        }
        assert_eq!(json("x\u{e0041}\"é\u{85}").unwrap(), r#""x\udb40\udc41\"é\u0085""#);
    }
}
