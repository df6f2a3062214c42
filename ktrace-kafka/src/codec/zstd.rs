//! Zstandard frames, written by streaming encoders: the content size is often missing.
//!
//! Decompressed in one go, into a buffer that is doubled until all fits. Streaming would leave
//! parts of the content in windows of the library's own, which it frees as they are. Where it does
//! not fit, what has come is looked at before the next try.

use std::sync::Arc;

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as TOO_SMALL;
use zstd::zstd_safe::{DCtx, ErrorCode, get_frame_content_size};

use super::error::CodecError;
use super::output::{Output, STEP_BYTES};
use crate::room::{Room, Taken};

/// What a size in a frame's header is believed, as a multiple of the frame: no more than encoders
/// make of text.
const MAX_BELIEVED: usize = 64;
/// Without one: what most batches have at least.
const USUAL: usize = 4;
/// The most that comes out of a block: one that does not fit is the first that is not there.
const BLOCK_BYTES: usize = 128 << 10;
/// The smallest try: so that a look sees as much as with other codecs.
const LEAST_BYTES: usize = STEP_BYTES + BLOCK_BYTES;
/// A decoder's own: its tables and literals.
const DECODER_BYTES: usize = 256 << 10;

/// A decompression context, kept because making one costs more than a small batch. It holds no
/// window.
pub struct Context {
    decoder: Option<DCtx<'static>>,
    taken: Taken,
    /// Since it was overwritten.
    used: bool,
}

impl Context {
    pub fn new(room: Arc<dyn Room>) -> Self {
        Self { decoder: None, taken: Taken::nothing_of(room), used: false }
    }

    pub fn decompress(&mut self, input: &[u8], output: &mut Output) -> Result<(), CodecError> {
        // To the library, nothing is a row of no frames.
        if input.is_empty() {
            return Err(CodecError::Damaged);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None if self.taken.hold(DECODER_BYTES) => {
                self.decoder.insert(DCtx::try_create().ok_or(CodecError::Damaged)?)
            }
            None => return Err(CodecError::NoRoom),
        };
        self.used = true;
        // Where nothing may be inflated in vain, a first try is small, too.
        let is_strict = output.watch.next() < STEP_BYTES;
        let mut wanted = if is_strict { LEAST_BYTES } else { wanted(input, output.bytes.len()) };
        loop {
            let room = output.anew(wanted)?;
            let len = room.len();
            match decoder.decompress(room, input) {
                Ok(wrote) => {
                    output.wrote(wrote);
                    return Ok(());
                }
                Err(error) if is_too_small(error) && len < output.limit => {
                    // All blocks before the one that did not fit are there.
                    let there = len.saturating_sub(BLOCK_BYTES);
                    if let Err(fault) = output.look_at(there) {
                        output.wrote(there);
                        output.read = read_for(input, there);
                        return Err(fault);
                    }
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

/// Where to begin: in the buffer of `at_hand` bytes, or one that most likely suffices; what is far
/// larger than the input is not filled without a look.
fn wanted(input: &[u8], at_hand: usize) -> usize {
    let declared = get_frame_content_size(input).ok().flatten();
    let most = input.len().saturating_mul(MAX_BELIEVED);
    let declared = declared.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    declared.unwrap_or_else(|| input.len().saturating_mul(USUAL).max(at_hand)).min(most).max(LEAST_BYTES)
}

/// How much of the input the first `len` bytes of output take, at least: the frame's header and the
/// blocks that can hold them (RFC 8878, section 3.1.1).
fn read_for(input: &[u8], len: usize) -> usize {
    let Some(&descriptor) = input.get(4) else { return input.len() };
    let window = usize::from(descriptor & 0x20 == 0);
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
    let size =
        [1_usize.saturating_sub(window), 2, 4, 8].get(usize::from(descriptor >> 6)).copied().unwrap_or(0);
    let mut at = window.saturating_add(dictionary).saturating_add(size).saturating_add(5);
    let mut out = 0_usize;
    while out < len {
        let Some(&[a, b, c]) = input.get(at..).and_then(<[u8]>::first_chunk) else { return input.len() };
        let head = u32::from_le_bytes([a, b, c, 0]);
        let size = usize::try_from(head >> 3).unwrap_or(usize::MAX);
        // Raw, of one byte repeated, or compressed.
        let (taken, made) = match head >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            _ => (size, BLOCK_BYTES),
        };
        at = at.saturating_add(3).saturating_add(taken);
        out = out.saturating_add(made.max(1));
    }
    at.min(input.len())
}

/// Errors are negative numbers as a `size_t` (`ZSTD_getErrorCode`).
fn is_too_small(error: ErrorCode) -> bool {
    usize::try_from(TOO_SMALL as u32).is_ok_and(|code| error.wrapping_add(code) == 0)
}

/// As much as the library keeps of literals (`ZSTD_LITBUFFEREXTRASIZE` in
/// `lib/decompress/zstd_decompress_internal.h`). It keeps them aside if the room for the output has
/// no more than they need.
const LITERALS: usize = 64 << 10;

/// A frame (RFC 8878) of one block: [`LITERALS`] literals, all zero, and no sequences.
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
    use crate::room::Boundless;

    fn context() -> Context {
        Context::new(Arc::new(Boundless))
    }

    fn output(limit: usize) -> Output {
        Output::new(limit, limit, Arc::new(Boundless))
    }

    /// A frame that declares a window of 128 MiB, as level 22 does, and holds five bytes.
    #[test]
    fn a_large_window_takes_no_memory() {
        let mut wire = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
        // A raw block, the last.
        wire.extend([5 << 3 | 1, 0, 0]);
        wire.extend(b"hello");
        let mut context = context();
        let mut output = output(100);
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
        let mut output = output(1 << 30);
        assert_eq!(context().decompress(&wire, &mut output), Err(CodecError::Damaged));
        assert!(output.bytes.len() <= STEP_BYTES + BLOCK_BYTES, "{}", output.bytes.len());
    }

    #[test]
    fn frames_in_a_row_and_none() {
        let frame = zstd::encode_all(&b"hello"[..], 3).unwrap();
        let mut output = output(100);
        let mut context = context();
        assert_eq!(context.decompress(&[&frame[..], &frame].concat(), &mut output), Ok(()));
        assert_eq!(&output.bytes[..output.len], b"hellohello");
        assert_eq!(context.decompress(&[], &mut output), Err(CodecError::Damaged));
    }

    #[test]
    fn of_a_bomb_it_is_known_how_much_was_read() {
        let wire = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
        let half = read_for(&wire, 32 << 20);
        assert!((wire.len() * 2 / 5..wire.len() * 3 / 5).contains(&half), "{half} of {}", wire.len());
        assert_eq!(read_for(&wire, 65 << 20), wire.len());
        assert_eq!(read_for(&wire[..7], 1), 7);
    }

    #[test]
    fn the_blank_frame_is_one() {
        assert_eq!(zstd::decode_all(&BLANK[..]).unwrap(), vec![0; LITERALS]);
    }
}
