//! What the connections of one worker share.

use std::sync::Arc;

use super::inflation::Inflating;
use super::limits::Limits;
use crate::codec::Decompressor;
use crate::context::Extractor;
use crate::counters::Counters;
use crate::room::{Boundless, Room};

/// What the connections of one worker share: bounds, buffers, and counters.
pub struct Scratch {
    /// Bounds of each connection.
    pub limits: Limits,
    /// The user has said that Kafka is spoken on these ports: TLS behind a proxy is Kafka's.
    pub ports_are_given: bool,
    /// What was read, and what was not.
    pub counters: Counters,
    pub(crate) extractor: Extractor,
    pub(crate) decompressor: Decompressor,
    /// A buffer for the next frame that comes in pieces.
    pub(crate) spare: Vec<u8>,
    /// What the current exchange may still decompress.
    pub(crate) inflating: Inflating,
    /// The correlation ids of the current connection, while a search asks for many.
    pub(crate) ids: Vec<i32>,
}

impl Scratch {
    /// With memory as it needs it.
    #[must_use]
    pub fn new(limits: Limits, extractor: Extractor) -> Self {
        Self::within(limits, extractor, Arc::new(Boundless))
    }

    /// The same, where what is large is asked for in `room`.
    #[must_use]
    pub fn within(limits: Limits, extractor: Extractor, room: Arc<dyn Room>) -> Self {
        let Limits { decompressed_bytes, kept_bytes, .. } = limits;
        Self {
            limits,
            ports_are_given: true,
            counters: Counters::default(),
            extractor,
            decompressor: Decompressor::within(decompressed_bytes, kept_bytes, room),
            spare: Vec::new(),
            inflating: Inflating::default(),
            ids: Vec::new(),
        }
    }

    /// Overwrites what the buffers hold of messages that were read. To be called now and then, also
    /// while nothing comes.
    pub fn wipe(&mut self) {
        self.decompressor.wipe();
        let mut spare = std::mem::take(&mut self.spare);
        spare.resize(spare.capacity(), 0);
        spare.fill(0);
        // The last use of the bytes, or the compiler might leave the zeros out.
        std::hint::black_box(&mut spare);
    }
}
