//! What goes through a chain: messages that are easy to follow, and those that are hard on purpose,
//! each case with topics of its own and one in which several are mixed.

/// Why a message is easy or hard to follow without headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// Each with a key of its own, which goes on.
    Unique,
    /// The same, and the second service keeps the timestamp.
    Kept,
    /// Four with one key, close together.
    Repeated,
    Keyless,
    /// The second service sends on with another key.
    Changed,
    /// The same where the other key is that of other messages, as from account to account.
    Transfers,
    /// One makes two.
    Forked,
    /// Two of one key make one.
    Joined,
    /// Two of different keys make one with the key of one of them.
    Merged,
    /// Two of one key, of which one makes none.
    Dropped,
    /// The same messages at the same time in two topics, of which the second service sends on those
    /// of one.
    Twins,
    Echoes,
    /// The second service sends messages of its own accord between.
    Timed,
    Mixed,
}

impl Case {
    pub const ALL: [Self; 14] = [
        Self::Unique,
        Self::Kept,
        Self::Repeated,
        Self::Keyless,
        Self::Changed,
        Self::Transfers,
        Self::Forked,
        Self::Joined,
        Self::Merged,
        Self::Dropped,
        Self::Twins,
        Self::Echoes,
        Self::Timed,
        Self::Mixed,
    ];

    /// Also the first part of its topics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Kept => "kept",
            Self::Repeated => "repeated",
            Self::Keyless => "keyless",
            Self::Changed => "changed",
            Self::Transfers => "transfers",
            Self::Forked => "forked",
            Self::Joined => "joined",
            Self::Merged => "merged",
            Self::Dropped => "dropped",
            Self::Twins => "twins",
            Self::Echoes => "echoes",
            Self::Timed => "timed",
            Self::Mixed => "mixed",
        }
    }

    /// `unique-a` is what the first service writes, `unique-b` what the second makes of it.
    #[must_use]
    pub fn topic(self, stage: &str) -> String {
        format!("{}-{stage}", self.name())
    }

    fn messages(self, scale: usize) -> Vec<Message> {
        let count = match self {
            Self::Unique => 120,
            Self::Transfers => 160,
            _ => 40,
        };
        if self == Self::Mixed {
            let part = |of: Self| {
                let prefix = format!("mixed-{}", of.name());
                (0..16 * scale).map(move |number| of.message(&prefix, number))
            };
            let mut all: Vec<(u64, Message)> = MIXED
                .into_iter()
                .flat_map(part)
                .zip(0..)
                .map(|(message, number)| (scattered(number), Message { case: self, ..message }))
                .collect();
            all.sort_by_key(|(at, _)| *at);
            return all.into_iter().map(|(_, message)| message).collect();
        }
        (0..count * scale).map(|number| self.message(self.name(), number)).collect()
    }

    fn message(self, prefix: &str, number: usize) -> Message {
        let (half, side) = (number / 2, number % 2);
        let (key, value) = match self {
            Self::Unique | Self::Timed | Self::Mixed => (format!("{prefix}-{number}"), "pass".into()),
            Self::Kept => (format!("{prefix}-{number}"), "keep".into()),
            Self::Repeated => (format!("{prefix}-{}", number / 4), "pass".into()),
            Self::Keyless => (String::new(), "pass".into()),
            Self::Changed => (format!("{prefix}-{number}"), format!("rename new-{prefix}-{number}")),
            Self::Transfers => {
                let account = |side| format!("{prefix}-{}", scattered(2 * number as u64 + side) % ACCOUNTS);
                (account(0), format!("rename {}", account(1)))
            }
            Self::Forked => (format!("{prefix}-{number}"), "fork".into()),
            Self::Joined => (format!("{prefix}-{half}"), format!("pair {prefix}-{half}")),
            Self::Merged => (format!("{prefix}-{half}-{side}"), format!("pair {prefix}-{half}")),
            Self::Dropped => {
                let is_dropped = side == half % 2;
                (format!("{prefix}-{half}"), if is_dropped { "drop" } else { "pass" }.into())
            }
            // of the same length
            Self::Twins => (format!("twins-{number}"), "pass".into()),
            Self::Echoes => (format!("twins-{number}"), "drop".into()),
        };
        Message { case: self, key, value }
    }
}

const MIXED: [Case; 6] =
    [Case::Unique, Case::Repeated, Case::Keyless, Case::Changed, Case::Forked, Case::Joined];

const ACCOUNTS: u64 = 40;

/// What the first service sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub case: Case,
    /// Empty where it has none.
    pub key: String,
    /// What the second service is to do with it (`tests/clients/python/forward.py`).
    pub value: String,
}

/// The messages of all cases, `scale` times as many as it takes, with the cases side by side.
#[must_use]
pub fn messages(scale: usize) -> Vec<Message> {
    let mut all: Vec<(f64, Message)> = Vec::new();
    for case in Case::ALL {
        let messages = case.messages(scale);
        let count = messages.len() as f64;
        all.extend(messages.into_iter().zip(0_u32..).map(|(message, at)| (f64::from(at) / count, message)));
    }
    all.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    all.into_iter().map(|(_, message)| message).collect()
}

/// How many messages the second service makes of these.
#[must_use]
pub fn made_of(messages: &[Message]) -> usize {
    let halves = |message: &Message| match message.value.split(' ').next() {
        Some("fork") => 4,
        Some("pair") => 1,
        Some("drop") => 0,
        _ => 2,
    };
    messages.iter().map(halves).sum::<usize>() / 2
}

/// Numbers without an order, the same ones each time (splitmix64).
const fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Case, made_of, messages};

    #[test]
    fn keys_are_unique_where_they_should_be() {
        let all = messages(3);
        for case in [Case::Unique, Case::Kept, Case::Forked, Case::Merged, Case::Timed] {
            let of_case: Vec<_> = all.iter().filter(|message| message.case == case).collect();
            assert!(!of_case.is_empty());
            for message in of_case {
                assert_eq!(all.iter().filter(|other| other.key == message.key).count(), 1, "{message:?}");
            }
        }
    }

    #[test]
    fn every_pair_is_whole() {
        let all = messages(2);
        let pairs: Vec<_> = all.iter().filter(|message| message.value.starts_with("pair")).collect();
        let ids: HashSet<_> = pairs.iter().map(|message| &message.value).collect();
        assert_eq!(pairs.len(), 2 * ids.len());
    }

    #[test]
    fn what_is_made_of_one() {
        for (case, share) in
            [(Case::Unique, 2), (Case::Forked, 4), (Case::Joined, 1), (Case::Merged, 1), (Case::Dropped, 1)]
        {
            let messages = case.messages(1);
            assert_eq!(2 * made_of(&messages), share * messages.len(), "{case:?}");
        }
    }
}
