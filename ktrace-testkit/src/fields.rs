//! Fields of a message, laid one after the other.

use crate::frame::framed;
use crate::varint::unsigned_varint;

/// What has been laid so far. Numbers are big-endian.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<u8>);

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        $(
            #[must_use]
            pub fn $name(self, number: $type) -> Self {
                self.raw(number.to_be_bytes())
            }
        )*
    };
}

impl Fields {
    numbers!(i8: i8, i16: i16, i32: i32, i64: i64, id: u128);

    /// The header of a request (version 1), which every API has before its flexible versions.
    #[must_use]
    pub fn request(api: i16, version: i16, correlation_id: i32, client: impl AsRef<[u8]>) -> Self {
        Self::default().i16(api).i16(version).i32(correlation_id).old(client)
    }

    #[must_use]
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    /// A string of a version before the flexible ones: its length in two bytes.
    #[must_use]
    pub fn old(self, text: impl AsRef<[u8]>) -> Self {
        self.i16(text.as_ref().len() as i16).raw(text)
    }

    /// Bytes or records of such a version: their length in four bytes.
    #[must_use]
    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.i32(bytes.as_ref().len() as i32).raw(bytes)
    }

    /// A string, bytes or records of a flexible version.
    #[must_use]
    pub fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.count(text.as_ref().len()).raw(text)
    }

    /// The length of an array of a flexible version.
    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        unsigned_varint(&mut self.0, count as u64 + 1);
        self
    }

    /// Null of anything in a flexible version, or no tagged fields.
    #[must_use]
    pub fn none(self) -> Self {
        self.i8(0)
    }

    #[must_use]
    pub fn then(self, part: impl FnOnce(Self) -> Self) -> Self {
        part(self)
    }

    /// All of it as a frame.
    #[must_use]
    pub fn framed(&self) -> Vec<u8> {
        framed(&self.0)
    }
}

/// A string as versions before the flexible ones have it (KIP-482): its length in two bytes.
#[must_use]
pub fn text(text: &str) -> Vec<u8> {
    Fields::default().old(text).0
}

impl AsRef<[u8]> for Fields {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;

    #[test]
    fn fields_are_as_the_protocol_guide_has_them() {
        let old = Fields::request(18, 0, 7, "me").bytes(b"x");
        assert_eq!(old.0, b"\0\x12\0\0\0\0\0\x07\0\x02me\0\0\0\x01x");
        let flexible = Fields::default().text("me").count(0).none().text([7; 200]);
        assert_eq!(flexible.0[..5], *b"\x03me\x01\0");
        assert_eq!(flexible.0[5..7], [0xc9, 1]);
        assert_eq!(Fields::default().i8(-1).framed(), b"\0\0\0\x01\xff");
    }
}
