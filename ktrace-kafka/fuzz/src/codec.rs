//! Compressed bytes: the first byte picks the codec. Whatever the bytes claim, the output stays
//! under its cap.

use std::cell::RefCell;

use ktrace_kafka::internal::{CodecError, Decompressor};
use ktrace_kafka::record::Codec;

use super::input::Input;

const CAP: usize = 64 << 10;

/// Runs one input.
pub fn run(data: &[u8]) {
    thread_local! {
        static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new(CAP));
    }
    let mut input = Input(data);
    let first = input.u8();
    let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(first & 3)];
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let reported = decompressor.decompress(codec, input.0).map(<[u8]>::to_vec);
        assert!(reported.as_ref().is_ok_and(|output| output.len() <= CAP) || reported.is_err());
        // What is kept from one batch to the next must not show in the next.
        if first & 4 != 0 {
            assert_eq!(decompressor.decompress(codec, input.0), reported.as_deref().map_err(|error| *error));
        }
        // With a smaller cap the same comes out, or an error that names the cap.
        if first & 8 != 0
            && let Ok(reported) = reported
        {
            let smaller = usize::from(first) << 4;
            let mut decompressor = Decompressor::new(smaller);
            match decompressor.decompress(codec, input.0) {
                Ok(output) => assert_eq!(output, reported),
                Err(error) => assert!(error == CodecError::TooLarge && reported.len() > smaller, "{error:?}"),
            }
        }
    });
}
