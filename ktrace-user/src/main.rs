//! The binary `ktrace`.
fn main() {}
