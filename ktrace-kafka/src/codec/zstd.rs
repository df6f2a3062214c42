//! Zstandard frames, written by streaming encoders: the content size is often not told.

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use super::CodecError;

/// A decompression context, kept because making one costs more than a small batch.
pub type Context = Decoder<'static>;

/// The output grows by this much at a time.
const STEP_BYTES: usize = 128 * 1024;

pub fn decompress(
    context: &mut Option<Context>,
    input: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let decoder = match context {
        Some(decoder) => {
            decoder.reinit().map_err(|_| CodecError::Damaged)?;
            decoder
        }
        None => context.insert(Decoder::new().map_err(|_| CodecError::Damaged)?),
    };
    let mut source = InBuffer::around(input);
    loop {
        let start = output.len();
        if start > limit {
            return Err(CodecError::TooLarge);
        }
        output.resize(start.saturating_add(STEP_BYTES), 0);
        let mut sink = OutBuffer::around_pos(output.as_mut_slice(), start);
        let hint = decoder.run(&mut source, &mut sink).map_err(|_| CodecError::Damaged)?;
        let end = sink.pos();
        let progress = end > start;
        let full = end == output.len();
        output.truncate(end);
        // A hint of 0 says that a frame has just ended; only without it may a full buffer mean that there is more.
        if source.pos() >= input.len() && (!full || hint == 0) {
            return if hint == 0 && end <= limit {
                Ok(())
            } else if end > limit {
                Err(CodecError::TooLarge)
            } else {
                Err(CodecError::Damaged)
            };
        }
        if !progress && source.pos() >= input.len() {
            return Err(CodecError::Damaged);
        }
    }
}
