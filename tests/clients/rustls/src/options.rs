//! The command line: `--name value` pairs, the same names as in the other clients.

use std::collections::HashMap;

pub struct Options(HashMap<String, String>);

impl Options {
    pub fn new(arguments: impl Iterator<Item = String>) -> Self {
        let all: Vec<String> = arguments.collect();
        let pairs = all.as_chunks::<2>().0.iter();
        Self(pairs.map(|[name, value]| (name.trim_start_matches("--").into(), value.clone())).collect())
    }

    /// Empty where it is not given.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.0.get(name).map_or(otherwise, |value| value.parse().expect("a number"))
    }
}
