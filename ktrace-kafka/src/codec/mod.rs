//! Compression codecs of record batches: one file each. Output is capped, so a bomb is refused; it
//! is looked at while it comes, so that most bombs are known by their first bytes; and its memory
//! is asked for before it is taken.

mod error;
mod gzip;
mod lz4;
mod output;
mod snappy;
mod watch;
mod zstd;

use std::sync::Arc;

use crate::room::{Boundless, Room};

pub use error::CodecError;
use output::Output;
pub use watch::{Shape, USEFUL_BYTES, Watch};

/// How a batch's records are compressed (the lowest three bits of its attributes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// `None` for a codec that no release has.
    #[must_use]
    pub fn of(attributes: i16) -> Option<Self> {
        Some(match attributes & 7 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }
}

/// Decompresses into a buffer of its own, used again and again.
pub struct Decompressor {
    output: Output,
    zstd: zstd::Context,
}

impl Decompressor {
    /// Refuses outputs of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::within(limit, limit, Arc::new(Boundless))
    }

    /// The same, with memory from `room`, of which no more than `kept` bytes are kept for the next
    /// batch.
    #[must_use]
    pub fn within(limit: usize, kept: usize, room: Arc<dyn Room>) -> Self {
        let zstd = zstd::Context::new(Arc::clone(&room));
        Self { output: Output::new(limit, kept, room), zstd }
    }

    /// What a codec makes of bytes, whatever it is.
    pub fn decompress<'a>(&'a mut self, codec: Codec, input: &'a [u8]) -> Result<&'a [u8], CodecError> {
        self.decompress_watched(codec, input, Watch::new(Shape::Any, usize::MAX))
    }

    /// The records of a batch, decompressed where they have to be, as long as `watch` finds them to
    /// be some.
    pub fn decompress_watched<'a>(
        &'a mut self,
        codec: Codec,
        input: &'a [u8],
        watch: Watch,
    ) -> Result<&'a [u8], CodecError> {
        let Self { output, zstd } = self;
        output.clear(watch);
        output.used |= codec != Codec::None;
        match codec {
            Codec::None => return Ok(input),
            Codec::Gzip => gzip::decompress(input, output)?,
            Codec::Snappy => snappy::decompress(input, output)?,
            Codec::Lz4 => lz4::decompress(input, output)?,
            Codec::Zstd => zstd.decompress(input, output)?,
        }
        self.output().ok_or(CodecError::TooLarge)
    }

    /// What the last call wrote.
    pub(crate) fn output(&self) -> Option<&[u8]> {
        self.output.bytes.get(..self.output.len)
    }

    /// Overwrites what was decompressed so far; buffers stay. For when it is no longer read, and
    /// not after each batch: that would cost as much as a tenth of decompressing it.
    pub fn wipe(&mut self) {
        self.output.wipe();
        self.zstd.wipe();
    }

    /// Bytes that the last call wrote, or may have written before it failed.
    #[must_use]
    pub fn written(&self) -> usize {
        self.output.len
    }

    /// How much the last call would have written of `input` bytes, had it not been stopped and gone
    /// on as it began.
    pub(crate) fn extrapolated(&self, input: usize) -> usize {
        self.output.len.saturating_mul(input).checked_div(self.output.read).unwrap_or(0)
    }

    /// Bytes that a batch may have.
    pub(crate) fn limit(&self) -> usize {
        self.output.limit
    }

    /// Records that were counted before the last call was stopped.
    pub(crate) fn counted(&self) -> usize {
        self.output.watch.records()
    }

    /// Releases a buffer that is too large to be kept. What the last call wrote may be gone.
    pub(crate) fn trim(&mut self) {
        self.output.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn sample() -> Vec<u8> {
        (0..200_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    fn compressed(codec: Codec, plain: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => plain.to_vec(),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            Codec::Lz4 => {
                // As Java's blocks are.
                let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, vec![]);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => ::zstd::encode_all(plain, 1).unwrap(),
        }
    }

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_gives_back_what_went_in() {
        let plain = sample();
        let mut decompressor = Decompressor::new(plain.len());
        for _ in 0..2 {
            for codec in ALL {
                let wire = compressed(codec, &plain);
                assert_eq!(decompressor.decompress(codec, &wire), Ok(&plain[..]), "{codec:?}");
            }
        }
    }

    /// Where the values of messages have been, once they are no longer read.
    #[test]
    fn nothing_is_left_of_what_was_decompressed() {
        let mut decompressor = Decompressor::new(1 << 20);
        for codec in &ALL[1..] {
            let plain = b"a value ".repeat(1000);
            assert_eq!(decompressor.decompress(*codec, &compressed(*codec, &plain)), Ok(&plain[..]));
            decompressor.decompress(*codec, &compressed(*codec, b"short")).unwrap();
            decompressor.wipe();
            assert!(decompressor.output.bytes.iter().all(|byte| *byte == 0), "{codec:?}");
            // It works on.
            assert_eq!(decompressor.decompress(*codec, &compressed(*codec, &plain)), Ok(&plain[..]));
        }
    }

    /// The output then ends where a step of the buffer ends.
    #[test]
    fn zstd_of_whole_steps() {
        for len in [128 * 1024, 256 * 1024, 128 * 1024 - 1, 128 * 1024 + 1] {
            let plain: Vec<u8> = sample().into_iter().take(len).collect();
            let wire = compressed(Codec::Zstd, &plain);
            assert_eq!(Decompressor::new(len).decompress(Codec::Zstd, &wire), Ok(&plain[..]), "{len}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let plain = sample();
        let mut decompressor = Decompressor::new(plain.len() - 1);
        for codec in &ALL[1..] {
            let wire = compressed(*codec, &plain);
            assert_eq!(decompressor.decompress(*codec, &wire), Err(CodecError::TooLarge), "{codec:?}");
        }
    }

    /// Where nothing more may be inflated in vain, a codec that does not stream stops as early as
    /// the others do.
    #[test]
    fn without_allowance_little_is_inflated() {
        fn varint(mut zigzag: u32) -> Vec<u8> {
            let mut bytes = vec![];
            while zigzag >= 0x80 {
                bytes.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            bytes.push(zigzag as u8);
            bytes
        }
        // One record with a value of 8 MiB: attributes, two deltas, no key; no headers.
        let value = 8_u32 << 20;
        let body = [&[0, 0, 0, 1][..], &varint(value * 2), &vec![0; value as usize], &[0]].concat();
        let plain = [varint(body.len() as u32 * 2), body].concat();
        let mut decompressor = Decompressor::new(16 << 20);
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let wire = compressed(codec, &plain);
            let all = Watch::new(Shape::Records(1), usize::MAX);
            assert_eq!(decompressor.decompress_watched(codec, &wire, all), Ok(&plain[..]), "{codec:?}");
            let none = Watch::new(Shape::Records(1), 0);
            let refused = decompressor.decompress_watched(codec, &wire, none);
            assert_eq!(refused, Err(CodecError::Useless), "{codec:?}");
            assert!(decompressor.written() <= 256 << 10, "{codec:?}: {}", decompressor.written());
        }
    }

    #[test]
    fn cut_or_damaged_input_is_refused() {
        let plain = sample();
        let mut decompressor = Decompressor::new(plain.len());
        for codec in &ALL[1..] {
            let mut wire = compressed(*codec, &plain);
            wire.truncate(wire.len() / 2);
            assert_eq!(decompressor.decompress(*codec, &wire), Err(CodecError::Damaged), "{codec:?} cut");
            assert_eq!(
                decompressor.decompress(*codec, b"nonsense, and more of it"),
                Err(CodecError::Damaged)
            );
        }
    }

    /// What fails has cost all the same.
    #[test]
    fn what_fails_tells_what_it_has_cost() {
        let plain = sample();
        for codec in &ALL[1..] {
            let mut wire = compressed(*codec, &plain);
            let mut small = Decompressor::new(plain.len() - 1);
            assert_eq!(small.decompress(*codec, &wire), Err(CodecError::TooLarge));
            // The size of a snappy block is known before.
            let least = if *codec == Codec::Snappy { 0 } else { plain.len() - 1 };
            assert!(small.written() >= least, "{codec:?} {}", small.written());
            // The last bytes are gone: those before have been decompressed.
            wire.truncate(wire.len() - 5);
            let mut large = Decompressor::new(2 * plain.len());
            assert_eq!(large.decompress(*codec, &wire), Err(CodecError::Damaged));
            assert!(large.written() >= plain.len() / 2, "{codec:?} {}", large.written());
            assert_eq!(large.decompress(Codec::None, &wire), Ok(&wire[..]));
            assert_eq!(large.written(), 0);
        }
    }

    #[test]
    fn snappy_in_java_blocks() {
        let plain = sample();
        let mut wire = vec![];
        for (part, head) in plain.chunks(32 * 1024).zip(std::iter::once(true).chain(std::iter::repeat(false)))
        {
            if head {
                wire.extend(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
            }
            let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
            wire.extend((block.len() as u32).to_be_bytes());
            wire.extend(block);
        }
        assert_eq!(Decompressor::new(plain.len()).decompress(Codec::Snappy, &wire), Ok(&plain[..]));
        let twice = [wire.clone(), wire].concat();
        let both = [plain.clone(), plain].concat();
        assert_eq!(Decompressor::new(both.len()).decompress(Codec::Snappy, &twice), Ok(&both[..]));
    }

    #[test]
    fn a_snappy_block_that_claims_too_much_allocates_nothing() {
        // 2 GiB claimed in five bytes.
        let wire = [0xff, 0xff, 0xff, 0xff, 0x07, 0, 0];
        assert_eq!(
            Decompressor::new(usize::MAX >> 1).decompress(Codec::Snappy, &wire),
            Err(CodecError::Damaged)
        );
    }
}
