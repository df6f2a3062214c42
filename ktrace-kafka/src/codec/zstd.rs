//! Zstandard frames, written by streaming encoders: the content size is often not told.
//!
//! Decompressed in one go, into a buffer that is doubled until all fits. Streaming would leave parts of the content in windows of the
//! library's own, which it frees as they are.

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as TOO_SMALL;
use zstd::zstd_safe::{DCtx, ErrorCode, get_frame_content_size};

use super::{CodecError, Output, STEP_BYTES};

/// What a size in a frame's header is believed, as a multiple of the frame: no more than encoders make of text.
const MAX_BELIEVED: usize = 64;
/// Without one: what most batches have at least.
const USUAL: usize = 4;

/// A decompression context, kept because making one costs more than a small batch. It holds no window.
#[derive(Default)]
pub struct Context {
    decoder: Option<DCtx<'static>>,
    /// Since it was overwritten.
    used: bool,
}

impl Context {
    pub fn decompress(&mut self, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
        // To the library, nothing is a row of no frames.
        if input.is_empty() {
            return Err(CodecError::Damaged);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => self.decoder.insert(DCtx::try_create().ok_or(CodecError::Damaged)?),
        };
        self.used = true;
        let mut wanted = wanted(input);
        loop {
            let room = output.anew(wanted);
            let len = room.len();
            match decoder.decompress(room, input) {
                Ok(wrote) => {
                    output.wrote(wrote);
                    return Ok(());
                }
                Err(error) if is_too_small(error) && len < output.limit => {
                    wanted = len.saturating_mul(2);
                }
                Err(error) => {
                    output.wrote(len);
                    return Err(if is_too_small(error) { CodecError::TooLarge } else { CodecError::Damaged });
                }
            }
        }
    }

    /// The library keeps the literals of the last blocks: a frame of zeros takes their place.
    pub fn wipe(&mut self) {
        if let Some(decoder) = &mut self.decoder
            && std::mem::take(&mut self.used)
        {
            let mut room = vec![0; LITERALS];
            let wiped = decoder.decompress(&mut room[..], &BLANK);
            debug_assert_eq!(wiped, Ok(LITERALS));
        }
    }
}

/// Where to begin: in the buffer that is there, or one that most likely suffices.
fn wanted(input: &[u8]) -> usize {
    let told = get_frame_content_size(input).ok().flatten();
    let most = input.len().saturating_mul(MAX_BELIEVED);
    let told = told.map(|told| usize::try_from(told).unwrap_or(usize::MAX).min(most));
    told.unwrap_or_else(|| input.len().saturating_mul(USUAL)).max(STEP_BYTES)
}

/// Errors are negative numbers as a `size_t` (`ZSTD_getErrorCode`).
fn is_too_small(error: ErrorCode) -> bool {
    usize::try_from(TOO_SMALL as u32).is_ok_and(|code| error.wrapping_add(code) == 0)
}

/// As much as the library keeps of literals (`ZSTD_LITBUFFEREXTRASIZE` in `lib/decompress/zstd_decompress_internal.h`). It keeps them aside if
/// the room for the output has no more than they need.
const LITERALS: usize = 64 << 10;

/// A frame (RFC 8878) of one block, of so many literals, all of them the same zero, and no sequences.
const BLANK: [u8; 15] = [
    0x28, 0xb5, 0x2f, 0xfd, // magic
    0x60, 0x00, 0xff, // one segment; its size less 256 in two bytes
    0x2d, 0x00, 0x00, // the last block, compressed, of 5 bytes
    0x0d, 0x00, 0x10, 0x00, // literals: one byte repeated, their number in 20 bits; the byte
    0x00, // no sequences
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame that declares a window of 128 MiB, as level 22 does, and holds five bytes.
    #[test]
    fn a_large_window_takes_no_memory() {
        let mut wire = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
        // A raw block, the last.
        wire.extend([5 << 3 | 1, 0, 0]);
        wire.extend(b"hello");
        let mut context = Context::default();
        let mut output = Output::new(100);
        assert_eq!(context.decompress(&wire, &mut output), Ok(()));
        assert_eq!(&output.bytes[..output.len], b"hello");
        let held = context.decoder.as_ref().map_or(0, DCtx::sizeof);
        assert!((1..1 << 20).contains(&held), "{held} bytes");
    }

    /// A claim is no more than a claim.
    #[test]
    fn a_size_that_is_only_claimed_takes_no_memory() {
        // One segment, its size in eight bytes: 2^40; a raw block of five bytes.
        let mut wire = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0];
        wire.extend([5 << 3 | 1, 0, 0]);
        wire.extend(b"hello");
        let mut output = Output::new(1 << 30);
        assert_eq!(Context::default().decompress(&wire, &mut output), Err(CodecError::Damaged));
        assert!(output.bytes.len() <= STEP_BYTES, "{}", output.bytes.len());
    }

    #[test]
    fn frames_in_a_row_and_none() {
        let frame = zstd::encode_all(&b"hello"[..], 3).unwrap();
        let mut output = Output::new(100);
        let mut context = Context::default();
        assert_eq!(context.decompress(&[&frame[..], &frame].concat(), &mut output), Ok(()));
        assert_eq!(&output.bytes[..output.len], b"hellohello");
        assert_eq!(context.decompress(&[], &mut output), Err(CodecError::Damaged));
    }

    #[test]
    fn the_blank_frame_is_one() {
        assert_eq!(zstd::decode_all(&BLANK[..]).unwrap(), vec![0; LITERALS]);
    }
}
