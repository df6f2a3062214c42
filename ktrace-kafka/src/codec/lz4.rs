//! LZ4 frames, as batch v2 has them.

use super::{CodecError, read_capped};

pub fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    read_capped(lz4_flex::frame::FrameDecoder::new(input), limit, output)?;
    // The decoder takes input that ends before the frame's end mark for its end; Kafka's encoders all write the mark,
    // a zero block size, with at most a content checksum behind it.
    let marked =
        |tail: usize| input.get(input.len().saturating_sub(tail)..).is_some_and(|t| t.starts_with(&[0; 4]));
    if input.len() >= 11 && (marked(4) || marked(8)) { Ok(()) } else { Err(CodecError::Damaged) }
}
