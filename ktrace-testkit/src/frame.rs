//! Frames: a size, then a body.

/// A frame: its size in four bytes, then the body.
///
/// # Panics
/// If the body is 4 GiB or more.
#[must_use]
pub fn framed(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("a body below 4 GiB");
    [&size.to_be_bytes()[..], body].concat()
}

/// A frame whose body is these parts, one after the other.
///
/// # Panics
/// As [`framed`] does.
#[must_use]
pub fn framed_parts(parts: &[&[u8]]) -> Vec<u8> {
    framed(&parts.concat())
}

#[cfg(test)]
mod tests {
    use super::framed_parts;

    #[test]
    fn a_frame_begins_with_the_size_of_its_body() {
        assert_eq!(framed_parts(&[b"ab", b"c"]), b"\0\0\0\x03abc");
    }
}
