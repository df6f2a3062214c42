//! The values of the header keys that are looked for, of one record.

use super::found::TraceContext;
use super::read::SLOTS;

/// What a record's headers hold of the keys that are looked for; used again for the next record.
pub struct Slots<'a> {
    pub(super) values: [&'a [u8]; SLOTS],
    pub(super) present: u64,
    /// Those whose key came more than once, or not as its tracer writes it.
    pub(super) odd: u64,
    /// Of those: the key of the value is not as its tracer writes it.
    inexact: u64,
    /// Of those: another value had to make room for it, or could not take its place.
    pub(super) repeated: u64,
    /// That value; `None` until there is one, as each batch has slots of its own.
    pub(super) displaced: Option<[&'a [u8]; SLOTS]>,
    pub(super) others: Vec<TraceContext<'a>>,
}

impl Slots<'_> {
    /// Without any value.
    #[must_use]
    pub fn new() -> Self {
        Self {
            values: [&[]; SLOTS],
            present: 0,
            odd: 0,
            inexact: 0,
            repeated: 0,
            displaced: None,
            others: Vec::new(),
        }
    }

    /// Forgets the record before.
    #[inline]
    pub fn clear(&mut self) {
        (self.present, self.odd) = (0, 0);
    }
}

impl<'a> Slots<'a> {
    #[inline]
    pub(super) fn note(&mut self, slot: u8, value: &'a [u8], is_exact: bool) {
        let bit = 1_u64.wrapping_shl(u32::from(slot));
        if self.present & bit != 0 || !is_exact {
            return self.note_odd(slot, value, is_exact);
        }
        if let Some(place) = self.values.get_mut(usize::from(slot)) {
            *place = value;
            self.present |= bit;
        }
    }

    /// A key that comes again, or in another case of letters.
    #[cold]
    fn note_odd(&mut self, slot: u8, value: &'a [u8], is_exact: bool) {
        let bit = 1_u64.wrapping_shl(u32::from(slot));
        let place = usize::from(slot);
        let displaced = self.displaced.get_or_insert([&[]; SLOTS]);
        let (Some(known), Some(displaced)) = (self.values.get_mut(place), displaced.get_mut(place)) else {
            return;
        };
        if self.odd & bit == 0 {
            self.odd |= bit;
            (self.repeated, self.inexact) = (self.repeated & !bit, self.inexact & !bit);
        }
        if self.present & bit == 0 {
            *known = value;
            self.present |= bit;
            self.inexact |= bit;
            return;
        }
        if *known != value {
            self.repeated |= bit;
            *displaced = value;
            if is_exact || self.inexact & bit != 0 {
                std::mem::swap(known, displaced);
            }
        }
        if is_exact {
            self.inexact &= !bit;
        }
    }
}

impl Default for Slots<'_> {
    fn default() -> Self {
        Self::new()
    }
}
