//! The numbers of records, as far as they are known, and the nonces that follow from them.

use crate::record::MIN_RECORD;

/// How many records were missed between the last that was opened and the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Missing {
    pub(crate) const NONE: Self = Self { min: 0, max: 0 };

    pub(crate) fn exact(self) -> Option<u64> {
        (self.min == self.max).then_some(self.min)
    }

    /// The same, when more is lost: exactly `records`, or as many as their bytes may be.
    pub(crate) fn and(self, bytes: u64, records: Option<u64>) -> Self {
        let most = records.unwrap_or_else(|| (bytes / MIN_RECORD).saturating_add(1));
        Self { min: self.min.saturating_add(records.unwrap_or(0)), max: self.max.saturating_add(most) }
    }

    fn contains(self, missed: u64) -> bool {
        (self.min..=self.max).contains(&missed)
    }
}

/// Nonces that are `iv XOR number`.
///
/// Where the iv is not known, one nonce and the next still say something: as the number goes from s
/// to s + 1, the lowest bits that are all ones turn to zero, and the one above them to one, so
/// `nonce XOR next` shows how s ended. While the known end of s is not all ones, the next nonce
/// follows from it; so it has to be found out of a tag only once for each bit of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The first four bytes of all nonces.
    fixed: [u8; 4],
    /// The rest of one nonce: of the last record that was opened, or of the one to come.
    nonce: u64,
    opened: bool,
    /// The lowest `bits` of that record's number are `low`.
    low: u64,
    bits: u32,
}

impl Counted {
    /// The iv is known, and the number of the record to come.
    pub(crate) fn known(iv: [u8; 12], number: u64) -> Self {
        let (fixed, nonce) = split(iv);
        Self { fixed, nonce: nonce ^ number, opened: false, low: number, bits: u64::BITS }
    }

    /// The nonce of the record to come is known, and nothing else.
    pub(crate) fn unknown(nonce: [u8; 12]) -> Self {
        let (fixed, nonce) = split(nonce);
        Self { fixed, nonce, opened: false, low: 0, bits: 0 }
    }

    pub(crate) fn nonce(&self) -> [u8; 12] {
        join(self.fixed, self.nonce)
    }

    pub(crate) fn number(&self) -> Option<u64> {
        (self.bits == u64::BITS).then_some(self.low)
    }

    /// The last record that was opened is the one to come.
    pub(crate) fn back(&self) -> Self {
        Self { opened: false, ..*self }
    }

    /// The record to come has this number; the iv has to be known.
    pub(crate) fn at(&self, number: u64) -> Self {
        Self { nonce: self.nonce ^ self.low ^ number, low: number, opened: false, ..*self }
    }

    /// The nonce stays, the number is no longer known.
    pub(crate) fn forgotten(&self) -> Self {
        Self { low: 0, bits: 0, ..*self }
    }

    /// How far the number has gone when `missed` records were missed.
    fn steps(&self, missed: u64) -> u64 {
        missed.saturating_add(self.opened.into())
    }

    /// The record behind `missed` others, if what is known gives its nonce.
    pub(crate) fn after(&self, missed: u64) -> Option<Self> {
        let low = self.low.checked_add(self.steps(missed))?;
        if self.bits < u64::BITS && low >> self.bits != 0 {
            return None;
        }
        Some(Self { nonce: self.nonce ^ self.low ^ low, low, opened: true, ..*self })
    }

    /// The record that has this nonce, if it may come when so much is missing; and how much was, if
    /// that is certain.
    ///
    /// With the unknown part u of the number and u' of the next, `nonce XOR next` has `u XOR u'` at
    /// its top. u' - u is a sum over the bits of that, each added or taken away; the highest is
    /// added. So the least is `2^(t+1) - (u XOR u')`, and others are larger by twice the lowest bit
    /// at least.
    pub(crate) fn seen(&self, nonce: [u8; 12], missing: Missing) -> Option<(Self, Option<u64>)> {
        let (fixed, nonce) = split(nonce);
        if fixed != self.fixed {
            return None;
        }
        let difference = self.nonce ^ nonce;
        let known = 1_u64.checked_shl(self.bits).map_or(u64::MAX, |bit| bit.wrapping_sub(1));
        let low = self.low ^ (difference & known);
        let unknown = difference.checked_shr(self.bits).unwrap_or(0);
        let next = Self { nonce, opened: true, low, ..*self };

        let steps = |unknown: u128| {
            let high = i128::try_from(unknown.checked_shl(self.bits)?).ok()?;
            let steps = high.checked_add(low.into())?.checked_sub(self.low.into())?;
            u64::try_from(steps).ok()?.checked_sub(self.opened.into())
        };
        let Some(top) = unknown.checked_ilog2() else {
            let missed = steps(0)?;
            return missing.contains(missed).then_some((next, Some(missed)));
        };
        let unknown = u128::from(unknown);
        let least = 2_u128.checked_shl(top)?.checked_sub(unknown)?;
        let missed = steps(least);
        // The next possible one.
        let more = if unknown.is_power_of_two() {
            None
        } else {
            let lowest = 2_u128.checked_shl(unknown.trailing_zeros())?;
            steps(least.checked_add(lowest)?)
        };
        match (missed, more) {
            (Some(missed), more)
                if missing.contains(missed) && more.is_none_or(|more| more > missing.max) =>
            {
                // The lowest bits of u' are zero where they have changed, but for the highest.
                let learnt = unknown.trailing_ones();
                let top_bit =
                    if top < learnt { 1_u64.checked_shl(top.saturating_add(self.bits))? } else { 0 };
                let bits = self.bits.saturating_add(learnt).min(u64::BITS);
                Some((Self { low: low | top_bit, bits, ..next }, Some(missed)))
            }
            // Too far away, or one of several.
            (missed, _) => {
                let fits = missed.is_some_and(|missed| missed <= missing.max);
                (fits && steps(unknown).is_none_or(|most| most >= missing.min)).then_some((next, None))
            }
        }
    }
}

/// AES-GCM of TLS 1.2: a record has eight bytes of its nonce in front, and its number is in the
/// additional data. Most senders count both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Explicit {
    salt: [u8; 4],
    /// Of the last record that was opened, or of the one to come, where that is known.
    sent: Option<u64>,
    number: u64,
    opened: bool,
}

impl Explicit {
    /// The number of the record to come.
    pub(crate) fn known(salt: [u8; 4], number: u64) -> Self {
        Self { salt, sent: None, number, opened: false }
    }

    /// Nonce and number of the record to come.
    pub(crate) fn seen(nonce: [u8; 12], number: u64) -> Self {
        let (salt, sent) = split(nonce);
        Self { salt, sent: Some(sent), number, opened: false }
    }

    /// The last record that was opened is the one to come.
    pub(crate) fn back(&self) -> Self {
        Self { opened: false, ..*self }
    }

    pub(crate) fn nonce(&self) -> [u8; 12] {
        join(self.salt, self.sent.unwrap_or(0))
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The record to come has this number.
    pub(crate) fn at(&self, number: u64) -> Self {
        Self { sent: None, number, opened: false, ..*self }
    }

    /// The record behind `missed` others.
    pub(crate) fn after(&self, missed: u64, sent: u64) -> Self {
        let number = self.number.wrapping_add(missed).wrapping_add(self.opened.into());
        Self { sent: Some(sent), number, opened: true, ..*self }
    }

    /// How many were missed if the sender counts the part that it sends, or if that is the number
    /// itself; or what is known.
    pub(crate) fn likely(&self, sent: u64, missing: Missing) -> [Option<u64>; 3] {
        let missed =
            |steps: u64| steps.checked_sub(self.opened.into()).filter(|missed| missing.contains(*missed));
        let counts = self.sent.and_then(|last| missed(sent.wrapping_sub(last)));
        let same = missed(sent.wrapping_sub(self.number)).filter(|same| Some(*same) != counts);
        match missing.exact() {
            Some(exact) => [Some(exact), None, None],
            None => [counts, same, None],
        }
    }
}

fn split(nonce: [u8; 12]) -> ([u8; 4], u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = nonce;
    ([a, b, c, d], u64::from_be_bytes([e, f, g, h, i, j, k, l]))
}

fn join(fixed: [u8; 4], nonce: u64) -> [u8; 12] {
    let [a, b, c, d] = fixed;
    let [e, f, g, h, i, j, k, l] = nonce.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nonce(iv: [u8; 12], number: u64) -> [u8; 12] {
        let (fixed, rest) = split(iv);
        join(fixed, rest ^ number)
    }

    /// Nonces out of tags that it takes to follow records from one number on.
    fn follow(iv: [u8; 12], from: u64, records: u64) -> u32 {
        let mut counted = Counted::unknown(nonce(iv, from));
        let mut asked = 0;
        for number in from..from + records {
            counted = match counted.after(0) {
                Some(next) => next,
                None => {
                    asked += 1;
                    let (next, missed) =
                        counted.seen(nonce(iv, number), Missing::NONE).expect("it is the next");
                    assert_eq!(missed, Some(0));
                    next
                }
            };
            assert_eq!(counted.nonce(), nonce(iv, number), "{number}");
            let known = 1_u64.checked_shl(counted.bits).map_or(u64::MAX, |bit| bit - 1);
            assert_eq!(counted.low, number & known, "{number}");
        }
        asked
    }

    #[test]
    fn a_nonce_is_asked_for_once_for_each_bit() {
        for from in
            [0, 1, 2, 7, (1 << 8) - 1, (1 << 8) - 3, (1 << 16) - 1, (1 << 32) - 1, (1 << 32) - 2, 1 << 32]
        {
            let asked = follow([0x5a; 12], from, 5000);
            assert!(asked <= 14, "{asked} from {from}");
        }
        assert_eq!(Counted::known([7; 12], 3).after(0).unwrap().nonce(), nonce([7; 12], 3));
    }

    proptest! {
        /// The right number of missed records is never excluded, and what is called certain is
        /// right.
        #[test]
        fn gaps(
            iv: [u8; 12],
            from in 0_u64..1 << 40,
            steps in prop::collection::vec((0_u64..40, 0_u64..100), 1..40),
        ) {
            let mut number = from;
            let mut counted = Counted::unknown(nonce(iv, from)).after(0).unwrap();
            for (missed, more) in steps {
                number += 1 + missed;
                let missing = Missing { min: missed.saturating_sub(more / 2), max: missed + more };
                let (next, said) = counted.seen(nonce(iv, number), missing).expect("it may be");
                prop_assert!(said.is_none_or(|said| said == missed), "{said:?} {missed}");
                let known = 1_u64.checked_shl(next.bits).map_or(u64::MAX, |bit| bit - 1);
                prop_assert_eq!(next.low, number & known);
                counted = next;
            }
        }

        /// Another nonce is no later record of the same key.
        #[test]
        fn other_nonces(iv: [u8; 12], from in 0_u64..1 << 40, records in 0_u64..100, other: [u8; 12]) {
            let mut counted = Counted::unknown(nonce(iv, from)).after(0).unwrap();
            for number in from + 1..from + records {
                counted = counted.seen(nonce(iv, number), Missing::NONE).unwrap().0;
            }
            let missing = Missing { min: 0, max: 1000 };
            let of_same_salt = join(split(iv).0, split(other).1);
            for other in [other, of_same_salt] {
                prop_assert!(counted.seen(other, missing).is_none());
            }
        }
    }
}
