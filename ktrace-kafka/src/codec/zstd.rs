//! Zstandard frames, written by streaming encoders: the content size is often not told.

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use super::{CodecError, Output};

/// A decompression context, kept because making one costs more than a small batch.
pub type Context = Decoder<'static>;

pub fn decompress(
    context: &mut Option<Context>,
    input: &[u8],
    output: &mut Output,
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
        let room = output.rest()?;
        let len = room.len();
        let mut sink = OutBuffer::around(room);
        let hint = decoder.run(&mut source, &mut sink).map_err(|_| CodecError::Damaged)?;
        let wrote = sink.pos();
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
