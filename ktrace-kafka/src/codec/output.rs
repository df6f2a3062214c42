//! What a codec writes into: capped, and looked at while it grows.

use std::sync::Arc;

use super::error::CodecError;
use super::watch::{Shape, Watch};
use crate::room::{Room, Taken};

/// The output grows by at least this much at a time: four times the batch that producers make by
/// default (`batch.size`, 16 KiB), so that most batches take one step.
pub const STEP_BYTES: usize = 64 << 10;

/// What a codec writes: a buffer that is used again and again, and so is zeroed only where it
/// grows.
pub struct Output {
    /// Those behind `len` are of batches before.
    pub bytes: Vec<u8>,
    pub len: usize,
    pub limit: usize,
    /// It holds what is not overwritten yet.
    pub used: bool,
    /// A larger buffer is given back after use.
    kept: usize,
    /// What the buffer, and what a codec holds aside, take.
    taken: Taken,
    pub watch: Watch,
    /// Bytes of the input that the codec had read when it was stopped.
    pub read: usize,
}

impl Output {
    pub fn new(limit: usize, kept: usize, room: Arc<dyn Room>) -> Self {
        let watch = Watch::new(Shape::Any, usize::MAX);
        let taken = Taken::nothing_of(room);
        Self { bytes: Vec::new(), len: 0, limit, used: false, kept, taken, watch, read: 0 }
    }

    pub fn clear(&mut self, watch: Watch) {
        (self.len, self.watch, self.read) = (0, watch, 0);
        self.trim();
    }

    /// Gives back a buffer that is too large to be kept.
    pub fn trim(&mut self) {
        if self.bytes.len() > self.kept {
            self.taken.give_back(self.bytes.len());
            (self.bytes, self.len) = (Vec::new(), 0);
        }
    }

    /// Overwrites what was written, all of it: decoders write beyond what they say, as copies in
    /// whole words are faster.
    pub fn wipe(&mut self) {
        if std::mem::take(&mut self.used) {
            self.len = 0;
            self.bytes.fill(0);
            // The last use of the bytes, or the compiler might leave the zeros out.
            std::hint::black_box(&mut self.bytes);
        }
    }

    /// Makes the buffer this long. The old one is there until it is copied.
    pub fn grow(&mut self, to: usize) -> Result<(), CodecError> {
        let before = self.bytes.len();
        if !self.taken.take(to) {
            return Err(CodecError::NoRoom);
        }
        self.bytes.reserve_exact(to.saturating_sub(before));
        self.bytes.resize(to, 0);
        self.taken.give_back(before);
        Ok(())
    }

    /// Looks at what has come, if it is time to.
    pub fn look(&mut self) -> Result<(), CodecError> {
        self.look_at(self.len)
    }

    /// Looks at the first bytes of the buffer, where a decoder does not say how many it has
    /// written.
    pub fn look_at(&mut self, len: usize) -> Result<(), CodecError> {
        if len < self.watch.next() {
            return Ok(());
        }
        let bytes = self.bytes.get(..len).unwrap_or_default();
        Ok(self.watch.look(bytes, self.limit)?)
    }

    /// Room for the next `wanted` bytes.
    pub fn room(&mut self, wanted: usize) -> Result<&mut [u8], CodecError> {
        let end = self.len.saturating_add(wanted);
        if end > self.limit {
            return Err(CodecError::TooLarge);
        }
        self.look()?;
        if end > self.bytes.len() {
            let doubled = self.bytes.len().saturating_mul(2).min(self.limit);
            self.grow(end.max(doubled))?;
        }
        self.bytes.get_mut(self.len..end).ok_or(CodecError::TooLarge)
    }

    /// All the room that there is until the next look, for who does not know how much it takes: at
    /// least a byte, up to one beyond the limit, which shows that the output is over it.
    pub fn rest(&mut self) -> Result<&mut [u8], CodecError> {
        if self.len > self.limit {
            return Err(CodecError::TooLarge);
        }
        self.look()?;
        if self.len >= self.bytes.len() {
            let more = self.len.max(STEP_BYTES);
            self.grow(self.len.saturating_add(more).min(self.limit.saturating_add(1)))?;
        }
        let end = self.bytes.len().min(self.limit.saturating_add(1)).min(self.watch.next());
        self.bytes.get_mut(self.len..end).filter(|rest| !rest.is_empty()).ok_or(CodecError::TooLarge)
    }

    /// Notes that this much of the room was written. After an error without a length: all of it.
    pub fn wrote(&mut self, len: usize) {
        self.len = self.len.saturating_add(len);
    }

    /// What was written, and room for at most `wanted` more, as far as the limit allows.
    pub fn within(&mut self, wanted: usize) -> Result<(&[u8], &mut [u8]), CodecError> {
        self.look()?;
        let end = self.len.saturating_add(wanted).min(self.limit);
        if end > self.bytes.len() {
            let doubled = self.bytes.len().saturating_mul(2).min(self.limit);
            self.grow(end.max(doubled))?;
        }
        let (before, room) = self.bytes.split_at_mut_checked(self.len).unwrap_or_default();
        Ok((before, room.get_mut(..end.saturating_sub(self.len)).unwrap_or_default()))
    }

    /// The first bytes of the buffer, where a decoder begins anew: at most the limit.
    pub fn anew(&mut self, wanted: usize) -> Result<&mut [u8], CodecError> {
        let len = wanted.min(self.limit);
        if len > self.bytes.len() {
            self.grow(len)?;
        }
        Ok(self.bytes.get_mut(..len).unwrap_or_default())
    }

    /// Takes a decoder's output to its end, but no further than the limit. `read` says how much of
    /// the input it has read.
    pub fn read_from<D: std::io::Read>(
        &mut self,
        mut decoder: D,
        read: impl Fn(&D) -> usize,
    ) -> Result<(), CodecError> {
        loop {
            let room = match self.rest() {
                Ok(room) => room,
                Err(error) => {
                    self.read = read(&decoder);
                    return Err(error);
                }
            };
            match decoder.read(room) {
                Ok(0) => return Ok(()),
                Ok(len) => self.wrote(len),
                Err(_) => {
                    let most = self.rest().map_or(0, |room| room.len());
                    self.wrote(most);
                    return Err(CodecError::Damaged);
                }
            }
        }
    }
}
