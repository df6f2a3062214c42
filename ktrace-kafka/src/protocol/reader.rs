//! A cursor over wire bytes that cannot run past them.
//!
//! Primitive encodings: Kafka's protocol guide and KIP-482 (flexible versions). A length-prefixed
//! field becomes a sub-slice or a sub-reader; nothing here allocates.

/// Why bytes could not be read as what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes end inside this field.
    #[error("{0} is cut off")]
    Truncated(&'static str),
    /// The field holds what Kafka never writes.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The API's version is not read (yet).
    #[error("this version of {0} is not read")]
    Unsupported(&'static str),
}

/// The longest string (`MessageUtil`, and `readString` of Kafka's generated messages).
const MAX_STRING_BYTES: usize = 0x7fff;

/// The result of reading a field.
pub type Result<T> = std::result::Result<T, ParseError>;

/// The bytes that are left, and how strings and arrays are encoded in them.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
    /// Flexible versions (KIP-482): compact lengths and tagged fields.
    flexible: bool,
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        #[doc = concat!("A big-endian `", stringify!($type), "`.")]
        #[inline]
        pub fn $name(&mut self, what: &'static str) -> Result<$type> {
            let (head, rest) = self.left.split_first_chunk().ok_or(ParseError::Truncated(what))?;
            self.left = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    };
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, with compact lengths where `flexible`.
    #[must_use]
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { left: bytes, flexible }
    }

    integer!(i8, i8);
    integer!(i16, i16);
    integer!(i32, i32);
    integer!(u32, u32);
    integer!(i64, i64);
    integer!(uuid, u128);

    /// A byte that is 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Result<bool> {
        Ok(self.i8(what)? != 0)
    }

    /// What is left to read.
    #[must_use]
    pub fn left(&self) -> &'a [u8] {
        self.left
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8]> {
        let (head, rest) = self.left.split_at_checked(len).ok_or(ParseError::Truncated(what))?;
        self.left = rest;
        Ok(head)
    }

    /// An unsigned varint of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32> {
        // One byte holds most of them, two nearly all others.
        match *self.left {
            [a, ref rest @ ..] if a < 0x80 => {
                self.left = rest;
                Ok(u32::from(a))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.left = rest;
                Ok(u32::from(a & 0x7f) | u32::from(b) << 7)
            }
            _ => self.long_uvarint(what),
        }
    }

    #[cold]
    fn long_uvarint(&mut self, what: &'static str) -> Result<u32> {
        let raw = self.long_uvarlong(5, what)?;
        u32::try_from(raw).map_err(|_| ParseError::Malformed(what))
    }

    /// An unsigned varint of at most this many bytes.
    fn long_uvarlong(&mut self, bytes: u32, what: &'static str) -> Result<u64> {
        let mut value = 0_u64;
        for place in 0..bytes {
            let (&byte, rest) = self.left.split_first().ok_or(ParseError::Truncated(what))?;
            self.left = rest;
            let shift = place.saturating_mul(7);
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                // Of a tenth byte only one bit has a place.
                return if shift == 63 && byte > 1 { Err(ParseError::Malformed(what)) } else { Ok(value) };
            }
        }
        Err(ParseError::Malformed(what))
    }

    /// A zigzag varint of 32 bits, as records use it.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Result<i32> {
        let raw = self.uvarint(what)?;
        Ok((raw >> 1).cast_signed() ^ (raw & 1).cast_signed().wrapping_neg())
    }

    /// A zigzag varint of 64 bits, as records use it for timestamps.
    #[inline]
    pub fn varlong(&mut self, what: &'static str) -> Result<i64> {
        let raw = match *self.left {
            [a, ref rest @ ..] if a < 0x80 => {
                self.left = rest;
                u64::from(a)
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.left = rest;
                u64::from(a & 0x7f) | u64::from(b) << 7
            }
            _ => self.long_uvarlong(10, what)?,
        };
        Ok((raw >> 1).cast_signed() ^ (raw & 1).cast_signed().wrapping_neg())
    }

    /// A length, `None` for null: int16 or int32 with −1, or an unsigned varint of length + 1 with
    /// 0.
    fn length(&mut self, wide: bool, what: &'static str) -> Result<Option<usize>> {
        let length = if self.flexible {
            i64::from(self.uvarint(what)?).saturating_sub(1)
        } else if wide {
            i64::from(self.i32(what)?)
        } else {
            i64::from(self.i16(what)?)
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| ParseError::Malformed(what)),
        }
    }

    /// A nullable string. Kafka's strings are UTF-8, and no longer than an int16 can say, in
    /// compact encoding too.
    pub fn nullable_string(&mut self, what: &'static str) -> Result<Option<&'a str>> {
        let Some(bytes) = self.nullable_string_bytes(what)? else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| ParseError::Malformed(what))
    }

    /// The same, of any bytes.
    pub fn nullable_string_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>> {
        let Some(len) = self.length(false, what)? else { return Ok(None) };
        if len > MAX_STRING_BYTES {
            return Err(ParseError::Malformed(what));
        }
        self.take(len, what).map(Some)
    }

    /// A topic's name: at most 249 characters of ASCII (`org.apache.kafka.common.internals.Topic`).
    pub fn topic(&mut self, what: &'static str) -> Result<&'a str> {
        self.string(what)
            .and_then(|name| if name.len() > 249 { Err(ParseError::Malformed(what)) } else { Ok(name) })
    }

    /// A string that may not be null.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str> {
        self.nullable_string(what)?.ok_or(ParseError::Malformed(what))
    }

    /// Nullable bytes, or a nullable record set.
    pub fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>> {
        let Some(len) = self.length(true, what)? else { return Ok(None) };
        self.take(len, what).map(Some)
    }

    /// The number of elements of an array, null read as none.
    ///
    /// Only the bytes that are there bound a loop over it: an element is at least a byte, so a
    /// count of more elements than bytes is refused, and nothing is ever allocated from it.
    pub fn array(&mut self, what: &'static str) -> Result<usize> {
        Ok(self.nullable_array(what)?.unwrap_or(0))
    }

    /// The same, `None` for null.
    pub fn nullable_array(&mut self, what: &'static str) -> Result<Option<usize>> {
        match self.length(true, what)? {
            Some(count) if count > self.left.len() => Err(ParseError::Truncated(what)),
            count => Ok(count),
        }
    }

    /// Whether a nullable struct follows: its first byte is negative for null.
    pub fn nullable_struct(&mut self, what: &'static str) -> Result<bool> {
        Ok(self.i8(what)? >= 0)
    }

    /// Skips an array of strings.
    pub fn skip_strings(&mut self, what: &'static str) -> Result<()> {
        for _ in 0..self.array(what)? {
            self.string(what)?;
        }
        Ok(())
    }

    /// Skips an array of elements of `size` bytes each.
    pub fn skip_array(&mut self, size: usize, what: &'static str) -> Result<()> {
        let count = self.array(what)?;
        self.take(count.saturating_mul(size), what).map(|_| ())
    }

    /// The tagged fields that end every struct of a flexible version, given to `each` as (tag,
    /// bytes).
    pub fn tagged_fields(&mut self, mut each: impl FnMut(u32, &'a [u8])) -> Result<()> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.uvarint("tagged fields")?;
        for _ in 0..count {
            let tag = self.uvarint("tagged field")?;
            let size = self.uvarint("tagged field")?;
            each(tag, self.take(usize::try_from(size).unwrap_or(usize::MAX), "tagged field")?);
        }
        Ok(())
    }

    /// Skips the tagged fields.
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, _| ())
    }

    /// An error if anything is left over.
    pub fn end(&self, what: &'static str) -> Result<()> {
        if self.left.is_empty() { Ok(()) } else { Err(ParseError::Malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x01], -1),
            (&[0x02], 1),
            (&[0x80, 0x01], 64),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], i32::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], i32::MIN),
        ] {
            assert_eq!(Reader::new(bytes, false).varint("v"), Ok(value), "{bytes:x?}");
            assert_eq!(Reader::new(bytes, false).varlong("v"), Ok(i64::from(value)), "{bytes:x?}");
        }
    }

    #[test]
    fn varints_that_run_on_or_are_cut_are_errors() {
        assert_eq!(Reader::new(&[0xff; 6], false).uvarint("v"), Err(ParseError::Malformed("v")));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], false).uvarint("v"),
            Err(ParseError::Malformed("v"))
        );
        assert_eq!(Reader::new(&[0xff; 11], false).varlong("v"), Err(ParseError::Malformed("v")));
        assert_eq!(Reader::new(&[0x80], false).uvarint("v"), Err(ParseError::Truncated("v")));
    }

    #[test]
    fn lengths_are_held_against_the_bytes_that_are_there() {
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff], false).array("a"), Err(ParseError::Truncated("a")));
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string("s"), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xfe], false).nullable_string("s"), Err(ParseError::Malformed("s")));
        assert_eq!(Reader::new(&[0x00], true).nullable_bytes("b"), Ok(None));
        assert_eq!(Reader::new(&[0x03, b'a', b'b'], true).string("s"), Ok("ab"));
        assert_eq!(Reader::new(&[0x00, 0x02, b'a'], false).string("s"), Err(ParseError::Truncated("s")));
        let long = [&[0x81, 0x80, 0x02][..], &[b'a'; 0x8000]].concat();
        assert_eq!(Reader::new(&long, true).string("s"), Err(ParseError::Malformed("s")));
    }

    #[test]
    fn tagged_fields_are_skipped_by_size() {
        let mut reader = Reader::new(&[2, 0, 1, 0xaa, 9, 2, 1, 2, 0x55], true);
        let mut seen = vec![];
        reader.tagged_fields(|tag, bytes| seen.push((tag, bytes.len()))).unwrap();
        assert_eq!((seen, reader.left()), (vec![(0, 1), (9, 2)], &[0x55][..]));
    }
}
