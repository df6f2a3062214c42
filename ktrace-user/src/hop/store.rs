//! Bounded knowledge: the map behind each store, and what all stores have in common.
//!
//! A store keeps what was seen and may be needed later: names of topics, members of groups,
//! offsets. It is never needed for a message to be shown, so a store that is full evicts what was
//! used least recently, and counts that.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash, RandomState};

use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;

use super::versioned::Versioned;

/// A map with a bound on its entries and on the bytes that they take. When either would be
/// exceeded, the entries that were used least recently are evicted first.
///
/// **What counts as a use**: [`get`](Self::get) and [`get_or_insert`](Self::get_or_insert).
/// [`peek`](Self::peek) and [`peek_mut`](Self::peek_mut) do not, for look-ups that say nothing of
/// the entry's future.
///
/// **Cost**: a use unlinks and links one node of a list beside the hash look-up, some 20
/// instructions. That is why every use counts, and not one in a generation (second chance): stores
/// are looked up once for a partition of an exchange or once for an event of a group, never for
/// each record.
///
/// **Order**: iteration goes from the entry used least recently to the newest, whatever the
/// hasher's seed. So what a run over a capture file evicts is the same each time.
///
/// The hasher is the standard library's (SipHash with a random seed), since keys come from the
/// network. The crate's own default, foldhash, is faster and does not promise to withstand keys
/// that are chosen to collide.
#[derive(Debug)]
pub struct Bounded<K, V> {
    entries: LinkedHashMap<K, Weighed<V>, RandomState>,
    /// Bounds before [`Self::hold_at_most`].
    nominal: Bound,
    bound: Bound,
    /// The sum of what the entries weigh.
    bytes: usize,
    evicted: u64,
}

/// How much a [`Bounded`] holds: at least one entry, whatever it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub entries: usize,
    /// Of what the owner says that an entry weighs; the map's own nodes are not counted.
    pub bytes: usize,
}

impl Bound {
    /// Bounded by the number of entries alone, for entries of one size.
    #[must_use]
    pub const fn entries(entries: usize) -> Self {
        Self { entries, bytes: usize::MAX }
    }

    /// Bounded by bytes alone, for entries that grow.
    #[must_use]
    pub const fn bytes(bytes: usize) -> Self {
        Self { entries: usize::MAX, bytes }
    }
}

/// This part of a bound, and no less than one. `part` is from 0 to 1.
#[must_use]
pub fn part_of(bound: usize, part: f64) -> usize {
    if part >= 1.0 { bound } else { ((bound as f64 * part) as usize).max(1) }
}

#[derive(Debug)]
struct Weighed<V> {
    value: V,
    bytes: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty map; it allocates nothing before its first entry.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        let entries = LinkedHashMap::with_hasher(RandomState::new());
        Self { entries, nominal: bound, bound, bytes: 0, evicted: 0 }
    }

    /// Lowers the bounds to this part of those that it was made with. What is over them goes with
    /// the next insertion.
    pub fn hold_at_most(&mut self, part: f64) {
        let Bound { entries, bytes } = self.nominal;
        self.bound = Bound { entries: part_of(entries, part), bytes: part_of(bytes, part) };
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the entries weigh together, as their owner said.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries were evicted since the last call. Removals and replacements are no
    /// evictions.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// An entry's value, which is used by that.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self.entries.raw_entry_mut().from_key(key) {
            RawEntryMut::Occupied(mut entry) => {
                entry.to_back();
                Some(&mut entry.into_mut().value)
            }
            RawEntryMut::Vacant(_) => None,
        }
    }

    /// An entry's value; the order of eviction stays.
    #[must_use]
    pub fn peek<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// An entry's value, to be changed; the order of eviction stays.
    pub fn peek_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// The value of this key, made by `new` and weighing `bytes` where it is not there yet. It is
    /// used by that. `evict` gets each entry that is evicted for it.
    pub fn get_or_insert(
        &mut self,
        key: &K,
        bytes: usize,
        new: impl FnOnce() -> V,
        evict: impl FnMut(K, V),
    ) -> &mut V
    where
        K: Clone,
    {
        // One hash for both looks. The first one lets go of the map, so that an eviction may change
        // it.
        let hash = self.entries.hasher().hash_one(key);
        if self.entries.raw_entry().from_key_hashed_nocheck(hash, key).is_none() {
            self.evict_for(bytes, evict);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        match self.entries.raw_entry_mut().from_key_hashed_nocheck(hash, key) {
            RawEntryMut::Occupied(mut entry) => {
                entry.to_back();
                &mut entry.into_mut().value
            }
            RawEntryMut::Vacant(entry) => {
                let weighed = Weighed { value: new(), bytes };
                &mut entry.insert_hashed_nocheck(hash, key.clone(), weighed).1.value
            }
        }
    }

    /// Sets the value of a key, which is used by that. `evict` gets each entry that is evicted for
    /// it.
    pub fn insert(&mut self, key: K, value: V, bytes: usize, evict: impl FnMut(K, V)) {
        self.remove(&key);
        self.evict_for(bytes, evict);
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(key, Weighed { value, bytes });
    }

    /// Takes an entry out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let Weighed { value, bytes } = self.entries.remove(key)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(value)
    }

    /// An entry weighs more than it did. It stays, even if the bound is exceeded by that: see
    /// [`Self::is_over`].
    pub fn grow<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, by: usize)
    where
        K: Borrow<Q>,
    {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.bytes = entry.bytes.saturating_add(by);
            self.bytes = self.bytes.saturating_add(by);
        }
    }

    /// Whether entries have grown beyond the bound of bytes.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.bytes > self.bound.bytes
    }

    /// Weighs all entries anew, and evicts until no more than this part of the bound of bytes is
    /// held. For entries that grow: done only when [`Self::is_over`], and down to a part, so that
    /// its cost is shared by many insertions.
    pub fn shrink_to(&mut self, part: f64, weigh: impl Fn(&K, &V) -> usize, mut evict: impl FnMut(K, V)) {
        self.bytes = 0;
        for (key, entry) in &mut self.entries {
            entry.bytes = weigh(key, &entry.value);
            self.bytes = self.bytes.saturating_add(entry.bytes);
        }
        let most = part_of(self.bound.bytes, part);
        while self.bytes > most && self.evict_first(&mut evict) {}
    }

    /// Evicts the entry used least recently of those that `may_go`, if the map is full. Returns
    /// whether there is room now. Where most of many entries may not go, this looks at all of them.
    pub fn evict_unless(&mut self, may_go: impl Fn(&V) -> bool, mut evict: impl FnMut(K, V)) -> bool
    where
        K: Clone,
    {
        if self.len() < self.bound.entries {
            return true;
        }
        let first = self.entries.iter().find(|(_, entry)| may_go(&entry.value));
        let Some(key) = first.map(|(key, _)| key.clone()) else { return false };
        if let Some(value) = self.remove(&key) {
            self.evicted = self.evicted.saturating_add(1);
            evict(key, value);
        }
        true
    }

    /// All entries, the one used least recently first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// All values, to be changed, the one used least recently first.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|entry| &mut entry.value)
    }

    /// Makes room for one more entry that weighs this.
    fn evict_for(&mut self, bytes: usize, mut evict: impl FnMut(K, V)) {
        while (self.len() >= self.bound.entries || self.bytes.saturating_add(bytes) > self.bound.bytes)
            && self.evict_first(&mut evict)
        {}
    }

    /// Evicts the entry used least recently, if there is any.
    fn evict_first(&mut self, evict: &mut impl FnMut(K, V)) -> bool {
        let Some((key, Weighed { value, bytes })) = self.entries.pop_front() else { return false };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.evicted = self.evicted.saturating_add(1);
        evict(key, value);
        true
    }
}

/// Where nothing has to be done with what is evicted.
pub fn drop_evicted<K, V>(_: K, _: V) {}

/// One kind of knowledge that all workers share. Each stands in the table of stores
/// (`Shared::stores` of the worker): the budget of memory, expiry and the count of evictions are
/// loops over that table.
pub trait Store {
    /// How many things of each kind it holds, by the kind's name in the plural: for reports.
    fn rows(&self) -> Vec<(&'static str, usize)>;

    /// What it takes, in bytes, about: an upper bound rather than a lower one.
    fn bytes(&self) -> usize;

    /// Holds no more than this part (0 to 1) of what it may from now on. Stores of a few MB at most
    /// need not heed it.
    fn hold_at_most(&self, _part: f64) {}

    /// How many things were evicted since the last call while they may still have been needed.
    /// None, where a store that is full refuses what is new.
    fn take_evicted(&self) -> u64 {
        0
    }

    /// Forgets what is too old to be needed. `now_ns` is in nanoseconds since 1970, and may be less
    /// than the last time.
    fn expire(&self, _now_ns: u64) {}
}

/// A store behind one lock, whose changes are numbered. See the methods of [`Store`] by the same
/// names.
pub trait Knowledge {
    fn rows(&self) -> Vec<(&'static str, usize)>;
    fn bytes(&self) -> usize;
    fn hold_at_most(&mut self, part: f64);
    fn take_evicted(&mut self) -> u64;
}

impl<T: Knowledge> Store for Versioned<T> {
    fn rows(&self) -> Vec<(&'static str, usize)> {
        self.read(T::rows)
    }

    fn bytes(&self) -> usize {
        self.read(T::bytes)
    }

    fn hold_at_most(&self, part: f64) {
        self.write_quiet(|known| known.hold_at_most(part));
    }

    fn take_evicted(&self) -> u64 {
        self.write_quiet(T::take_evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(map: &Bounded<u32, u32>) -> Vec<u32> {
        map.iter().map(|(key, _)| *key).collect()
    }

    fn put(map: &mut Bounded<u32, u32>, key: u32, bytes: usize) -> Vec<u32> {
        let mut evicted = vec![];
        map.insert(key, key, bytes, |key, _| evicted.push(key));
        evicted
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut map = Bounded::<u32, u32>::new(Bound::entries(3));
        for key in 1..=3 {
            assert!(put(&mut map, key, 0).is_empty());
        }
        assert!(map.get(&1).is_some() && map.get(&9).is_none());
        assert!(map.peek(&2).is_some() && map.peek_mut(&2).is_some(), "no use");
        assert_eq!(put(&mut map, 4, 0), [2]);
        assert_eq!(keys(&map), [3, 1, 4]);
        assert_eq!(*map.get_or_insert(&3, 0, || 7, drop_evicted), 3);
        assert_eq!(*map.get_or_insert(&5, 0, || 7, drop_evicted), 7);
        assert_eq!((keys(&map), map.take_evicted(), map.take_evicted()), (vec![4, 3, 5], 2, 0));
    }

    #[test]
    fn bytes_are_bounded_and_one_entry_is_always_held() {
        let mut map = Bounded::new(Bound { entries: 10, bytes: 100 });
        assert_eq!((put(&mut map, 1, 40), put(&mut map, 2, 60)), (vec![], vec![]));
        assert_eq!((put(&mut map, 3, 30), map.bytes()), (vec![1], 90));
        assert_eq!((put(&mut map, 3, 10), map.bytes()), (vec![], 70), "the former one is replaced");
        assert_eq!((put(&mut map, 4, 1000), keys(&map), map.bytes()), (vec![2, 3], vec![4], 1000));
        assert_eq!((map.remove(&4), map.bytes(), map.take_evicted()), (Some(4), 0, 3));
    }

    #[test]
    fn entries_that_grow_are_weighed_anew_before_any_is_evicted() {
        let mut map = Bounded::new(Bound::bytes(100));
        for key in 0..4 {
            put(&mut map, key, 20);
        }
        map.grow(&3, 50);
        map.grow(&9, 50);
        assert!(map.is_over() && map.bytes() == 130);
        map.shrink_to(0.75, |key, _| if *key == 0 { 5 } else { 20 }, drop_evicted);
        assert_eq!((map.len(), map.bytes(), map.take_evicted()), (4, 65, 0));
        map.shrink_to(0.75, |_, _| 30, drop_evicted);
        assert_eq!((keys(&map), map.bytes(), map.take_evicted()), (vec![2, 3], 60, 2));
    }

    #[test]
    fn a_part_of_the_bound_is_never_nothing() {
        let mut map = Bounded::new(Bound { entries: 8, bytes: 80 });
        (0..8).for_each(|key| drop(put(&mut map, key, 10)));
        map.hold_at_most(0.5);
        assert_eq!(map.len(), 8, "until the next");
        assert_eq!((put(&mut map, 8, 10), keys(&map)), (vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8]));
        map.hold_at_most(0.0);
        assert_eq!((put(&mut map, 9, 1).len(), keys(&map)), (4, vec![9]));
        map.hold_at_most(1.0);
        assert_eq!((put(&mut map, 10, 10), map.len()), (vec![], 2));
    }

    #[test]
    fn what_is_in_use_may_be_kept() {
        let mut map = Bounded::<u32, u32>::new(Bound::entries(3));
        assert!(map.evict_unless(|_: &u32| false, drop_evicted));
        (0..3).for_each(|key| drop(put(&mut map, key, 0)));
        assert!(map.evict_unless(|value| *value > 0, drop_evicted));
        assert_eq!(keys(&map), [0, 2]);
        put(&mut map, 3, 0);
        assert!(!map.evict_unless(|_| false, drop_evicted) && map.len() == 3);
        assert_eq!(map.take_evicted(), 1);
    }

    /// Against a list that is searched.
    #[test]
    fn it_agrees_with_a_list() {
        let (mut map, mut list) = (Bounded::new(Bound::entries(16)), Vec::<u32>::new());
        let mut random = 7_u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (random >> 33) as u32 % 40;
            let is_known = list.contains(&key);
            let is_kept = match random >> 62 {
                0 => {
                    assert_eq!(map.remove(&key).is_some(), is_known);
                    false
                }
                1 => {
                    assert_eq!(map.get(&key).is_some(), is_known);
                    is_known
                }
                _ => {
                    map.get_or_insert(&key, 1, || key, drop_evicted);
                    if !is_known && list.len() == 16 {
                        list.remove(0);
                    }
                    true
                }
            };
            list.retain(|known| *known != key);
            list.extend(is_kept.then_some(key));
            assert_eq!((keys(&map), map.bytes()), (list.clone(), list.len()));
        }
    }
}
