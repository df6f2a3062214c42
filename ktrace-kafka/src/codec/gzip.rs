//! gzip (RFC 1952), perhaps of several members.

use super::{CodecError, read_capped};

pub fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    read_capped(flate2::bufread::MultiGzDecoder::new(input), limit, output)
}
