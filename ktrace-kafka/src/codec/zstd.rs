//! Zstandard frames, written by streaming encoders: the content size is often not told.

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective};

use super::{CodecError, Output};

/// A larger context is given back after use: one keeps the largest window that it has seen. Java's encoder has windows of
/// 2 MiB at its default level and 8 MiB at level 19, but 128 MiB at level 22.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// A decompression context, kept because making one costs more than a small batch.
#[derive(Default)]
pub struct Context(Option<DCtx<'static>>);

impl Context {
    pub fn decompress(&mut self, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
        let decoder = match &mut self.0 {
            Some(decoder) => {
                decoder.reset(ResetDirective::SessionOnly).map_err(|_| CodecError::Damaged)?;
                decoder
            }
            None => self.0.insert(DCtx::try_create().ok_or(CodecError::Damaged)?),
        };
        let done = decompress(decoder, input, output);
        if self.held_bytes() > MAX_KEPT_BYTES {
            self.0 = None;
        }
        done
    }

    /// Bytes of the context with its window.
    fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, DCtx::sizeof)
    }
}

fn decompress(decoder: &mut DCtx<'_>, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    let mut source = InBuffer::around(input);
    loop {
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
        let mut context = Context::default();
        for (cut, expected) in [(false, Ok(())), (true, Err(CodecError::Damaged))] {
            let mut output = Output { bytes: vec![], len: 0, limit: 100 };
            assert_eq!(context.decompress(&with_large_window(cut), &mut output), expected);
            assert!(context.held_bytes() <= MAX_KEPT_BYTES, "{} bytes", context.held_bytes());
        }
        let small = zstd::encode_all(&b"hello"[..], 3).unwrap();
        let mut output = Output { bytes: vec![], len: 0, limit: 100 };
        assert_eq!(context.decompress(&small, &mut output), Ok(()));
        assert!(context.held_bytes() > 0, "a small one is kept");
    }
}
