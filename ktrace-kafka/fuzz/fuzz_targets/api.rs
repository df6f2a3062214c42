//! See `src/api.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ktrace_kafka_fuzz::api::run(data));
