//! See `src/tls.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ktrace_kafka_fuzz::tls::run(data));
