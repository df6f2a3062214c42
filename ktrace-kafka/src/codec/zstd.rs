//! Zstandard frames, written by streaming encoders: the content size is often not told.

use std::sync::Arc;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{CodecError, Output};
use crate::room::{Room, Taken};

/// A decoder's own, beside its window: its tables, a block as it came and one as it is made.
const DECODER_BYTES: usize = 512 << 10;

/// The smallest window that every frame may have, as small frames come beside each other, and the largest (what decoders
/// take unless they are asked for more): level 22 of the encoders asks for it.
const LEAST_WINDOW_BYTES: u64 = 1 << 20;
const LARGEST_WINDOW_BYTES: usize = 128 << 20;

/// A decompression context, kept because making one costs more than a small batch.
///
/// One keeps the largest window that it has seen. Java's encoder has windows of 2 MiB at its default level and 8 MiB at level
/// 19, but 128 MiB at level 22.
pub struct Context {
    decoder: Option<DCtx<'static>>,
    taken: Taken,
    /// A larger one is given back after use.
    kept: usize,
}

impl Context {
    pub fn new(kept: usize, room: Arc<dyn Room>) -> Self {
        Self { decoder: None, taken: Taken::nothing_of(room), kept }
    }

    pub fn decompress(&mut self, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
        // Where no frame begins the decoder says so.
        let window = window_bytes(input).unwrap_or(0).max(LEAST_WINDOW_BYTES);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        if window > LARGEST_WINDOW_BYTES {
            return Err(if window > output.limit { CodecError::TooLarge } else { CodecError::Damaged });
        }
        let wanted = window.saturating_add(DECODER_BYTES);
        // A larger window takes the place of a smaller one.
        if wanted > self.taken.held() && !self.taken.hold(wanted) {
            return Err(CodecError::NoRoom);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.reset(ResetDirective::SessionOnly).map_err(|_| CodecError::Damaged)?;
                decoder
            }
            None => self.decoder.insert(DCtx::try_create().ok_or(CodecError::Damaged)?),
        };
        let log = window.checked_next_power_of_two().map_or(0, usize::ilog2);
        decoder.set_parameter(DParameter::WindowLogMax(log)).map_err(|_| CodecError::Damaged)?;
        let done = decompress(decoder, input, output);
        if self.held_bytes() > self.kept {
            self.decoder = None;
        }
        self.taken.hold(self.held_bytes());
        done
    }

    /// Bytes of the context with its window.
    fn held_bytes(&self) -> usize {
        self.decoder.as_ref().map_or(0, DCtx::sizeof)
    }
}

/// The window of the frame at the beginning (RFC 8878, section 3.1.1.1); `None` where there is none. A frame in one segment
/// has no window but its content.
fn window_bytes(input: &[u8]) -> Option<u64> {
    let rest = input.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = u32::from(*rest.first()?);
        let base = 1_u64.checked_shl((window >> 3).saturating_add(10))?;
        return Some(base.saturating_add((base >> 3).saturating_mul(u64::from(window & 7))));
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let len = [1, 2, 4, 8].get(usize::from(descriptor >> 6)).copied()?;
    let field = rest.get(dictionary..)?.get(..len)?;
    let size = field.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    // Two bytes count from 256 on.
    Some(if len == 2 { size.saturating_add(256) } else { size })
}

fn decompress(decoder: &mut DCtx<'_>, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    let mut source = InBuffer::around(input);
    loop {
        output.read = source.pos();
        let room = output.rest()?;
        let len = room.len();
        let mut sink = OutBuffer::around(room);
        let hint = decoder.decompress_stream(&mut sink, &mut source);
        let wrote = sink.pos();
        let Ok(hint) = hint else {
            output.wrote(len);
            return Err(CodecError::Damaged);
        };
        output.wrote(wrote);
        // A hint of 0 says that a frame has just ended; only without it may full room mean that there is more.
        if source.pos() >= input.len() && (wrote < len || hint == 0) {
            return if output.len > output.limit {
                Err(CodecError::TooLarge)
            } else if hint == 0 {
                Ok(())
            } else {
                Err(CodecError::Damaged)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Boundless;

    /// A frame that declares a window of 128 MiB, as level 22 does, and holds five bytes; cut in the middle if `cut`.
    fn with_large_window(cut: bool) -> Vec<u8> {
        let mut wire = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
        // A raw block, the last.
        wire.extend([5 << 3 | 1, 0, 0]);
        wire.extend(b"hello");
        wire.truncate(wire.len() - if cut { 2 } else { 0 });
        wire
    }

    #[test]
    fn a_large_window_is_not_kept() {
        let room: Arc<dyn Room> = Arc::new(Boundless);
        let output = || Output::new(100, 100, Arc::new(Boundless));
        let mut context = Context::new(16 << 20, room);
        for (cut, expected) in [(false, Ok(())), (true, Err(CodecError::Damaged))] {
            assert_eq!(context.decompress(&with_large_window(cut), &mut output()), expected);
            assert!(context.held_bytes() <= context.kept, "{} bytes", context.held_bytes());
        }
        let small = zstd::encode_all(&b"hello"[..], 3).unwrap();
        assert_eq!(context.decompress(&small, &mut output()), Ok(()));
        assert!(context.held_bytes() > 0, "a small one is kept");
    }
}
