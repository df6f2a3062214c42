//! LZ4 frames, as batch v2 and message sets have them: their blocks one by one, straight into the
//! output. The library's own reader of frames has buffers of the largest block for each frame,
//! which would be overwritten for each small batch.
//!
//! Kafka's first LZ4 writers hashed the frame's magic into the header checksum, which the frame
//! format leaves out (KIP-57), and message sets of magic 0 keep that fault for the sake of old
//! readers: `Lz4BlockOutputStream` (`useBrokenFlagDescriptorChecksum`) and `rdkafka_lz4.c` write
//! it, `Lz4BlockInputStream` (`ignoreFlagDescriptorChecksum`) reads over it. So does this file, for
//! every magic and every checksum: like a CRC, they are the client's and the broker's business.
//!
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};

use super::error::CodecError;
use super::output::Output;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// How far a byte of a block may go.
const MAX_GROWTH: usize = 255;
/// How far back a block may refer to those before it.
const WINDOW_BYTES: usize = 64 << 10;
/// Of a block's size: its bytes are as they were.
const STORED: u32 = 1 << 31;

pub fn decompress(input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    let (frame, mut rest) = Frame::read(input).ok_or(CodecError::Damaged)?;
    loop {
        let (size, after) = rest.split_first_chunk().ok_or(CodecError::Damaged)?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            return if after.len() == frame.content_checksum { Ok(()) } else { Err(CodecError::Damaged) };
        }
        output.read = input.len().saturating_sub(rest.len());
        let len = usize::try_from(size & !STORED).unwrap_or(usize::MAX);
        let (block, after) = after.split_at_checked(len).ok_or(CodecError::Damaged)?;
        if size & STORED == 0 {
            frame.block(block, output)?;
        } else {
            output.room(len)?.copy_from_slice(block);
            output.wrote(len);
        }
        rest = after.get(frame.block_checksum..).ok_or(CodecError::Damaged)?;
    }
}

/// What a frame's header says of its blocks.
struct Frame {
    /// Bytes of the checksum behind each block, and behind the end mark.
    block_checksum: usize,
    content_checksum: usize,
    /// Blocks refer to those before them.
    linked: bool,
    /// The largest block.
    block_bytes: usize,
}

impl Frame {
    /// With the blocks behind it; `None` for what is no frame.
    fn read(input: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flags, descriptor], rest) = input.strip_prefix(&MAGIC)?.split_first_chunk()?;
        // Version 1 of the format is the only one.
        if flags >> 6 != 1 {
            return None;
        }
        let has = |bit: u8, bytes: usize| if flags & bit == 0 { 0 } else { bytes };
        let block_bytes = match descriptor >> 4 & 7 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return None,
        };
        let frame = Self {
            block_checksum: has(0x10, 4),
            content_checksum: has(0x04, 4),
            linked: flags & 0x20 == 0,
            block_bytes,
        };
        // The content's size, a dictionary's id, the header's checksum.
        let optional = has(0x08, 8).checked_add(has(0x01, 4))?.checked_add(1)?;
        Some((frame, rest.get(optional..)?))
    }

    fn block(&self, block: &[u8], output: &mut Output) -> Result<(), CodecError> {
        let most = self.block_bytes.min(block.len().saturating_mul(MAX_GROWTH));
        let (before, room) = output.within(most)?;
        let (len, is_cut) = (room.len(), room.len() < most);
        let done = if self.linked {
            let window = before.len().saturating_sub(WINDOW_BYTES);
            decompress_into_with_dict(block, room, before.get(window..).unwrap_or_default())
        } else {
            decompress_into(block, room)
        };
        // A block that fails at its end has been decompressed.
        output.wrote(*done.as_ref().unwrap_or(&len));
        match done {
            Ok(_) => Ok(()),
            Err(DecompressError::OutputTooSmall { .. }) if is_cut => Err(CodecError::TooLarge),
            Err(_) => Err(CodecError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Decompressor};
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write as _;

    fn encoded(info: FrameInfo, plain: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, vec![]);
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_wrong_header_checksum_is_read_over() {
        for content_size in [None, Some(5)] {
            let good = encoded(FrameInfo::new().content_size(content_size), b"hello");
            let at = if content_size.is_some() { 14 } else { 6 };
            for checksum in 0..=255 {
                let mut wire = good.clone();
                wire[at] = checksum;
                assert_eq!(Decompressor::new(5).decompress(Codec::Lz4, &wire), Ok(&b"hello"[..]));
            }
            for cut in 0..good.len() {
                let cut = &good[..cut];
                assert_eq!(Decompressor::new(5).decompress(Codec::Lz4, cut), Err(CodecError::Damaged));
            }
        }
    }

    /// Of all sizes of blocks, with and without checksums, referring to each other and not, and
    /// blocks that compress to nothing less.
    #[test]
    fn every_kind_of_frame() {
        let mut noise = 1_u32;
        let text = b"a text that says itself again, ".repeat(10_000);
        let random: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(200_000)
        .collect();
        for plain in [&text[..], &random, &[&text[..], &random, &text].concat(), b""] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for mode in [BlockMode::Independent, BlockMode::Linked] {
                    for checksums in [false, true] {
                        let info = FrameInfo::new().block_size(size).block_mode(mode);
                        let info = info.block_checksums(checksums).content_checksum(checksums);
                        let wire = encoded(info, plain);
                        let mut decompressor = Decompressor::new(plain.len());
                        assert_eq!(decompressor.decompress(Codec::Lz4, &wire), Ok(plain));
                    }
                }
            }
        }
    }
}
