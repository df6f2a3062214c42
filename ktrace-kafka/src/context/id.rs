//! Trace and span ids as W3C Trace Context defines them: 16 and 8 bytes, never all zero.

use std::fmt;

/// A 16-byte trace id, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// An 8-byte span id, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

macro_rules! id {
    ($name:ident, $len:literal) => {
        impl $name {
            /// `None` for all zeros, which the specification calls invalid.
            #[must_use]
            pub fn new(bytes: [u8; $len]) -> Option<Self> {
                (bytes != [0; $len]).then_some(Self(bytes))
            }

            /// The bytes, most significant first.
            #[must_use]
            pub fn to_bytes(self) -> [u8; $len] {
                self.0
            }
        }

        /// Lower-case hex, the form of every text format.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

impl TraceId {
    /// Whether both may name one trace: they are the same, or one has only the other's low half, as formats of 64 bits
    /// pass it on.
    pub(super) fn may_be(self, other: Self) -> bool {
        let (mine, other) = (u128::from_be_bytes(self.0), u128::from_be_bytes(other.0));
        mine == other || (mine ^ other) << 64 == 0 && (mine >> 64 == 0 || other >> 64 == 0)
    }
}
