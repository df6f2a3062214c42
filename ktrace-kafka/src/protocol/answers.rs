//! What a response says of each thing that its request asked for.

use std::collections::HashMap;
use std::hash::Hash;

/// Things of one response that are looked up, should it be in another order than its request. More
/// than any client asks for at once; a map of them takes some megabytes for as long as the response
/// is read, whatever count it claims.
const MAX_LOOKED_UP: usize = 64 << 10;

/// The answers of a response. Brokers answer in the order of the request, so each is looked for at
/// its place first.
pub struct Answers<I, K, T> {
    all: I,
    next: I,
    by_key: Option<HashMap<K, T>>,
}

impl<I, K, T> Answers<I, K, T>
where
    I: Iterator<Item = (K, T)> + Clone,
    K: Copy + Eq + Hash,
    T: Copy,
{
    /// Of what the response lists.
    pub fn new(all: I) -> Self {
        Self { next: all.clone(), all, by_key: None }
    }

    /// The answer to what the request asks for next.
    pub fn of(&mut self, key: K) -> Option<T> {
        match self.next.next() {
            Some((at, answer)) if at == key => Some(answer),
            _ => self
                .by_key
                .get_or_insert_with(|| self.all.clone().take(MAX_LOOKED_UP).collect())
                .get(&key)
                .copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_any_order() {
        let mut answers = Answers::new([("a", 1), ("b", 2), ("c", 3)].into_iter());
        assert_eq!(
            ["a", "c", "b", "x", "c"].map(|key| answers.of(key)),
            [Some(1), Some(3), Some(2), None, Some(3)]
        );
    }
}
