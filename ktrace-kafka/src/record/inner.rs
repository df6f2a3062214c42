//! The messages inside a compressed message of a message set.

use super::message::{Extent, Message};
use super::set::{Batches, Next};
use crate::codec::Codec;
use crate::protocol::reader::{ParseError, Result};

/// The messages inside a wrapper, read to their end once before any is given.
#[derive(Clone, Debug)]
pub struct Inner<'a> {
    messages: Batches<'a>,
    /// What the inner offsets count from.
    base: i64,
    extent: Extent,
}

impl<'a> Inner<'a> {
    /// Reads the set inside a wrapper, decompressed; offsets are as written there.
    ///
    /// Refused: an empty set, one that is cut, and one with a wrapper or a batch inside.
    pub fn read(set: &'a [u8]) -> Result<Self> {
        let messages = Batches::new(set);
        let (mut first, mut last, mut count) = (None, 0, 0_usize);
        for next in messages.clone() {
            let Next::Message(message) = next else { return Err(ParseError::Malformed("inner message")) };
            if message.codec() != Some(Codec::None) {
                return Err(ParseError::Malformed("inner codec"));
            }
            first.get_or_insert(message.offset);
            last = message.offset;
            count = count.saturating_add(1);
        }
        let first = first.ok_or(ParseError::Truncated("inner message"))?;
        Ok(Self { messages, base: 0, extent: Extent { first, last, count } })
    }

    /// With the log's offsets: in magic 0 they are those inside; in magic 1 the wrapper has that of
    /// its last message, but for a wrapper offset of 0, which some versions of librdkafka sent,
    /// whatever is inside.
    ///
    /// Refused: a last offset past its wrapper's.
    pub fn in_log(mut self, wrapper: &Message<'_>) -> Result<Self> {
        if wrapper.magic > 0 && wrapper.offset != 0 {
            if wrapper.offset < self.extent.last {
                return Err(ParseError::Malformed("wrapper offset"));
            }
            self.base = wrapper.offset.saturating_sub(self.extent.last);
            self.extent.first = self.base.saturating_add(self.extent.first);
            self.extent.last = wrapper.offset;
        }
        Ok(self)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.extent.count
    }

    /// Their offsets.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + use<'a> {
        let base = self.base;
        self.messages.clone().filter_map(move |next| match next {
            Next::Message(message) => {
                Some(Message { offset: base.saturating_add(message.offset), ..message })
            }
            _ => None,
        })
    }
}
