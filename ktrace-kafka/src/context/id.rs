//! Trace and span ids as W3C Trace Context defines them: 16 and 8 bytes, never all zero.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// A 16-byte trace id, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(NonZeroU128);

/// An 8-byte span id, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(NonZeroU64);

macro_rules! id {
    ($name:ident, $number:ty, $non_zero:ty, $len:literal) => {
        impl $name {
            /// `None` for all zeros, which the specification calls invalid.
            #[must_use]
            #[inline]
            pub fn new(bytes: [u8; $len]) -> Option<Self> {
                <$non_zero>::new(<$number>::from_be_bytes(bytes)).map(Self)
            }

            /// The bytes, most significant first.
            #[must_use]
            #[inline]
            pub fn to_bytes(self) -> [u8; $len] {
                self.0.get().to_be_bytes()
            }
        }

        /// Lower-case hex, the form of every text format.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.0, width = 2 * $len)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(TraceId, u128, NonZeroU128, 16);
id!(SpanId, u64, NonZeroU64, 8);

impl TraceId {
    /// Whether both may name one trace: they are the same, or one has only the other's low half, as
    /// formats of 64 bits pass it on.
    pub(super) fn may_be(self, other: Self) -> bool {
        let (mine, other) = (self.0.get(), other.0.get());
        mine == other || (mine ^ other) << 64 == 0 && (mine >> 64 == 0 || other >> 64 == 0)
    }
}
