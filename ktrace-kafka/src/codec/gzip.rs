//! gzip (RFC 1952), perhaps of several members.

use super::error::CodecError;
use super::output::Output;

pub fn decompress(input: &[u8], output: &mut Output) -> Result<(), CodecError> {
    output.read_from(flate2::bufread::MultiGzDecoder::new(input), |decoder| {
        input.len().saturating_sub(decoder.get_ref().len())
    })
}
