//! Snappy: a raw block (librdkafka, franz-go), or raw blocks framed as snappy-java frames them
//! (Java, sarama, …).

use super::error::CodecError;
use super::output::Output;
use crate::protocol::reader::Reader;

/// snappy-java's stream header: magic, version and compatible version (`SnappyCodec.java`).
const JAVA_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const JAVA_HEADER_BYTES: usize = 16;

/// No snappy block grows more than this on decompression: a copy of 3 bytes makes at most 64.
const MAX_GROWTH: usize = 24;

pub fn decompress(input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    if !input.starts_with(JAVA_MAGIC) {
        return block(input, output);
    }
    let mut reader = Reader::new(input, false);
    while !reader.left().is_empty() {
        // Concatenated streams repeat the header.
        if reader.left().starts_with(JAVA_MAGIC) {
            reader.take(JAVA_HEADER_BYTES, "snappy header").map_err(|_| CodecError::Damaged)?;
            continue;
        }
        let len = reader.u32("snappy block").map_err(|_| CodecError::Damaged)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        block(reader.take(len, "snappy block").map_err(|_| CodecError::Damaged)?, output)?;
    }
    Ok(())
}

fn block(input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    let len = snap::raw::decompress_len(input).map_err(|_| CodecError::Damaged)?;
    // The claimed length is believed only as far as the input can bear it.
    if len > input.len().saturating_mul(MAX_GROWTH).saturating_add(64) {
        return Err(CodecError::Damaged);
    }
    let done = snap::raw::Decoder::new().decompress(input, output.room(len)?);
    output.wrote(len);
    done.map(|_| ()).map_err(|_| CodecError::Damaged)
}
