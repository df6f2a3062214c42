//! LZ4 frames, as batch v2 and message sets have them.
//!
//! Kafka's first LZ4 writers hashed the frame's magic into the header checksum, which the frame format leaves out
//! (KIP-57), and message sets of magic 0 keep that fault for the sake of old readers: `Lz4BlockOutputStream`
//! (`useBrokenFlagDescriptorChecksum`) and `rdkafka_lz4.c` write it, `Lz4BlockInputStream`
//! (`ignoreFlagDescriptorChecksum`) reads over it. So does this file, for every magic: like a CRC, that checksum is the
//! client's and the broker's business.

use std::io::Read as _;

use super::{CodecError, Output};

/// Of a frame's first bytes: magic, flags, block descriptor.
const FIXED_BYTES: usize = 6;
/// The largest block that a frame may have, and how far a byte of it may go.
const MAX_BLOCK_BYTES: usize = 4 << 20;
const MAX_GROWTH: usize = 255;
/// How far back a block may look into those before.
const WINDOW_BYTES: usize = 64 << 10;
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// The longest header: the first bytes, an 8-byte content size, a 4-byte dictionary id, the checksum.
const HEADER_BYTES: usize = 19;

pub fn decompress(input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    let Header { bytes, len, rest } = Header::mended(input).ok_or(CodecError::Damaged)?;
    let head = bytes.get(..len).unwrap_or_default();
    // The decoder holds a block as it came, and two with a window as they are made.
    let block = block_bytes(input);
    let aside = block.saturating_mul(3).saturating_add(WINDOW_BYTES);
    if !output.taken.take(aside) {
        return Err(CodecError::NoRoom);
    }
    let decoder = lz4_flex::frame::FrameDecoder::new(head.chain(rest));
    let read = output.read_from(decoder, |decoder| {
        let (head, rest) = decoder.get_ref().get_ref();
        input.len().saturating_sub(head.len()).saturating_sub(rest.len())
    });
    output.taken.give_back(aside);
    if let Err(error) = read {
        // A block that fails at its end has been decompressed, aside.
        if error == CodecError::Damaged {
            output.wrote(input.len().saturating_mul(MAX_GROWTH).min(MAX_BLOCK_BYTES));
        }
        return Err(error);
    }
    // The decoder takes input that ends before the frame's end mark for its end; Kafka's encoders all write the mark,
    // a zero block size, with at most a content checksum behind it.
    let marked =
        |tail: usize| rest.get(rest.len().saturating_sub(tail)..).is_some_and(|t| t.starts_with(&[0; 4]));
    if marked(4) || marked(8) { Ok(()) } else { Err(CodecError::Damaged) }
}

/// The largest block of the frame: 64 KiB, 256 KiB, 1 MiB or 4 MiB, by bits 4 to 6 of its block descriptor.
fn block_bytes(input: &[u8]) -> usize {
    let size = input.get(MAGIC.len().saturating_add(1)).map_or(0, |descriptor| descriptor >> 4 & 7);
    (64_usize << 10)
        .checked_shl(u32::from(size.saturating_sub(4)) * 2)
        .unwrap_or(MAX_BLOCK_BYTES)
        .min(MAX_BLOCK_BYTES)
}

/// A frame's header with the checksum that its decoder wants, and the blocks behind it.
struct Header<'a> {
    bytes: [u8; HEADER_BYTES],
    len: usize,
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None` for what is no frame. Flags are those of the LZ4 frame format 1.6: bit 3 is a content size, bit 0 a
    /// dictionary id.
    fn mended(input: &'a [u8]) -> Option<Self> {
        let flags = *input.strip_prefix(&MAGIC)?.first()?;
        let optional = if flags & 0x08 != 0 { 8_usize } else { 0 };
        let dictionary = if flags & 0x01 != 0 { 4_usize } else { 0 };
        let hashed = FIXED_BYTES.saturating_add(optional).saturating_add(dictionary);
        let len = hashed.saturating_add(1);
        let (head, rest) = input.split_at_checked(len)?;
        let mut bytes = [0; HEADER_BYTES];
        bytes.get_mut(..len)?.copy_from_slice(head);
        let [_, second, ..] = xxh32(head.get(MAGIC.len()..hashed)?).to_le_bytes();
        *bytes.get_mut(hashed)? = second;
        Some(Self { bytes, len, rest })
    }
}

/// XXH32 with the seed 0, of fewer than 16 bytes: its specification's steps 3, 5, 6 and 7 alone.
fn xxh32(input: &[u8]) -> u32 {
    const PRIME_1: u32 = 0x9e37_79b1;
    const PRIME_2: u32 = 0x85eb_ca77;
    const PRIME_3: u32 = 0xc2b2_ae3d;
    const PRIME_4: u32 = 0x27d4_eb2f;
    const PRIME_5: u32 = 0x1656_67b1;
    debug_assert!(input.len() < 16, "longer inputs are hashed in stripes");
    let mut hash = PRIME_5.wrapping_add(u32::try_from(input.len()).unwrap_or(0));
    let (words, bytes) = input.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME_3));
        hash = hash.rotate_left(17).wrapping_mul(PRIME_4);
    }
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIME_5));
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Decompressor};
    use lz4_flex::frame::{FrameEncoder, FrameInfo};
    use std::io::Write as _;

    #[test]
    fn a_wrong_header_checksum_is_read_over() {
        for content_size in [None, Some(5)] {
            let mut encoder =
                FrameEncoder::with_frame_info(FrameInfo::new().content_size(content_size), vec![]);
            encoder.write_all(b"hello").unwrap();
            let good = encoder.finish().unwrap();
            let at = if content_size.is_some() { 14 } else { 6 };
            let [_, right, ..] = xxh32(&good[4..at]).to_le_bytes();
            assert_eq!(good[at], right, "the encoder's own");
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
}
