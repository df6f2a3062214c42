//! A passive reader of the Kafka protocol: TCP bytes and their times in, exchanges and records out.
//!
//! Sans-IO: no clock, no socket, no file, no thread. Bytes are hostile: every length is checked against the
//! bytes that are there, nothing is allocated from a wire-supplied count, decompression is capped.
#![forbid(unsafe_code)]

pub mod context;
