//! What `--top` shows, added up: bounded, and pure.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use super::latency::Latency;
use crate::hop::{HopRef, Hops, Kind};

/// Rows of a table. Over the limit, new names count as [`OTHERS`].
const MAX_ROWS: usize = 512;
/// The row of all names that have none of their own.
const OTHERS: &str = "(others)";
/// Requests that are refused as a whole.
const NO_TOPIC: &str = "(no topic)";
/// Consumers whose group is not known.
const NO_GROUP: &str = "(no group)";
/// A row is removed when nothing of it was seen for this many turns: a minute.
const IDLE_TURNS: u32 = 60;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Topics,
    /// Groups with each of their topics.
    Groups,
    Services,
}

impl Table {
    pub const ALL: [Self; 3] = [Self::Topics, Self::Groups, Self::Services];
}

/// What a row is of: a group has its topic beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name(Arc<str>, Option<Arc<str>>);

/// A row as it is shown. All but the latencies are of the last turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub name: String,
    /// Messages and errors a second.
    pub sent: f64,
    pub delivered: f64,
    pub errors: f64,
    /// Of sending: median and 99th percentile, microseconds.
    pub took_us: Option<[u64; 2]>,
    /// From records' timestamps to their delivery, likewise.
    pub queue_us: Option<[u64; 2]>,
    /// The largest.
    pub lag: Option<i64>,
}

#[derive(Default)]
struct Entry {
    sent: u64,
    delivered: u64,
    errors: u64,
    lag: Option<i64>,
    took: Latency,
    queue: Latency,
    idle: u32,
    row: Row,
}

/// The figures of all tables.
pub struct Figures {
    tables: [Entries; Table::ALL.len()],
    all: Entry,
    no_topic: Arc<str>,
}

impl Default for Figures {
    fn default() -> Self {
        Self { tables: Default::default(), all: Entry::default(), no_topic: NO_TOPIC.into() }
    }
}

#[derive(Default)]
struct Entries {
    places: HashMap<Name, usize>,
    entries: Vec<Entry>,
}

impl Figures {
    /// Adds what was seen.
    pub fn add(&mut self, hops: &Hops) {
        // Neighbouring hops mostly share topic, group and service.
        let mut last: Option<(HopRef<'_>, [Option<usize>; Table::ALL.len()])> = None;
        for hop in hops.iter() {
            let is_sent = matches!(hop.passage.kind, Kind::Produced { .. });
            let same = |of: &HopRef<'_>| {
                ptr::eq(&**of.parties, &**hop.parties)
                    && ptr::eq(&**of.topic, &**hop.topic)
                    && matches!(of.passage.kind, Kind::Produced { .. }) == is_sent
            };
            let places = match &last {
                Some((of, places)) if same(of) => *places,
                _ => self.places(hop, is_sent),
            };
            last = Some((hop, places));
            let seen = Seen::of(hop);
            self.all.add(&seen);
            for (table, place) in self.tables.iter_mut().zip(places) {
                if let Some(entry) = place.and_then(|place| table.entries.get_mut(place)) {
                    entry.add(&seen);
                }
            }
        }
    }

    fn places(&mut self, hop: HopRef<'_>, is_sent: bool) -> [Option<usize>; Table::ALL.len()] {
        let [topics, groups, services] = &mut self.tables;
        let topic = if hop.topic.name.is_empty() { &self.no_topic } else { &hop.topic.name };
        let group = || hop.parties.reader.group().cloned().unwrap_or_else(|| NO_GROUP.into());
        [
            Some(topics.place(Name(Arc::clone(topic), None))),
            (!is_sent).then(|| groups.place(Name(group(), Some(Arc::clone(topic))))),
            Some(services.place(Name(hop.parties.resource.service_name().into(), None))),
        ]
    }

    /// Ends a turn that lasted `seconds`: what was added in it is shown from now on.
    pub fn turn(&mut self, seconds: f64) {
        self.all.turn(seconds);
        self.tables.iter_mut().for_each(|table| table.turn(seconds));
    }

    /// In no order.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = &Row> {
        self.tables[table as usize].entries.iter().map(|entry| &entry.row)
    }

    /// All messages in one.
    pub fn all(&self) -> &Row {
        &self.all.row
    }
}

impl Entries {
    fn place(&mut self, name: Name) -> usize {
        if let Some(place) = self.places.get(&name) {
            return *place;
        }
        let name = if self.entries.len() < MAX_ROWS { name } else { Name(OTHERS.into(), None) };
        *self.places.entry(name).or_insert_with_key(|Name(name, topic)| {
            let name = match topic {
                Some(topic) => format!("{name} · {topic}"),
                None => name.to_string(),
            };
            self.entries.push(Entry { row: Row { name, ..Row::default() }, ..Entry::default() });
            self.entries.len() - 1
        })
    }

    fn turn(&mut self, seconds: f64) {
        self.entries.iter_mut().for_each(|entry| entry.turn(seconds));
        if self.entries.iter().all(|entry| entry.idle < IDLE_TURNS) {
            return;
        }
        let old = std::mem::take(&mut self.entries);
        let mut old: Vec<_> = old.into_iter().map(Some).collect();
        self.places.retain(|_, place| {
            let Some(entry) = old[*place].take_if(|entry| entry.idle < IDLE_TURNS) else { return false };
            *place = self.entries.len();
            self.entries.push(entry);
            true
        });
    }
}

/// What a hop adds to each of its rows: found out once, as it has four.
struct Seen {
    has_failed: bool,
    what: What,
}

enum What {
    Sent { took_us: u64 },
    Delivered { lag: Option<i64>, queue_us: Option<u64> },
    Other,
}

impl Seen {
    fn of(hop: HopRef<'_>) -> Self {
        let passage = hop.passage;
        let what = match passage.kind {
            Kind::Produced { .. } => What::Sent { took_us: passage.took_ns() / 1000 },
            Kind::Delivered { lag, .. } => {
                // What a consumer catches up with is old, and not late.
                let queue_ns = passage.queue_ns().filter(|_| !passage.is_catching_up());
                What::Delivered { lag, queue_us: queue_ns.map(|queue_ns| queue_ns / 1000) }
            }
            Kind::Committed(_) | Kind::Acknowledged(_) | Kind::Refused(_) => What::Other,
        };
        Self { has_failed: passage.has_failed(), what }
    }
}

impl Entry {
    fn add(&mut self, seen: &Seen) {
        self.idle = 0;
        self.errors += u64::from(seen.has_failed);
        match seen.what {
            What::Sent { took_us } => {
                self.sent += 1;
                self.took.add(took_us);
            }
            What::Delivered { lag, queue_us } => {
                self.delivered += 1;
                self.lag = self.lag.max(lag);
                if let Some(queue_us) = queue_us {
                    self.queue.add(queue_us);
                }
            }
            What::Other => {}
        }
    }

    fn turn(&mut self, seconds: f64) {
        // Exact far beyond what can pass in a second.
        let rate = |count: &mut u64| std::mem::take(count) as f64 / seconds.max(f64::EPSILON);
        self.row.sent = rate(&mut self.sent);
        self.row.delivered = rate(&mut self.delivered);
        self.row.errors = rate(&mut self.errors);
        self.row.lag = self.lag.take();
        self.row.took_us = self.took.turn();
        self.row.queue_us = self.queue.turn();
        self.idle = self.idle.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::groups::Reader;
    use crate::hop::topics::Topics;
    use crate::hop::{Hop, Parties, Topic, samples};
    use crate::span::{Resource, Value};

    fn hops(list: impl IntoIterator<Item = Hop>) -> Hops {
        let mut hops = Hops::default();
        list.into_iter().for_each(|hop| hops.push(hop));
        hops
    }

    fn row<'a>(figures: &'a Figures, table: Table, name: &str) -> &'a Row {
        figures.rows(table).find(|row| row.name == name).unwrap()
    }

    fn lagging(lag: i64) -> Hop {
        let mut hop = samples::delivered();
        if let Kind::Delivered { lag: of, .. } = &mut hop.passage.kind {
            *of = Some(lag);
        }
        hop
    }

    #[test]
    fn messages_count_for_their_topic_group_and_service() {
        let mut figures = Figures::default();
        let mut failed = samples::sent();
        failed.passage.error = 19;
        let sent = samples::sent();
        figures.add(&hops([sent.clone(), sent.clone(), sent, failed, lagging(3), lagging(9), lagging(4)]));
        figures.turn(0.5);
        let orders = row(&figures, Table::Topics, "orders");
        assert_eq!((orders.sent, orders.delivered, orders.errors, orders.lag), (8.0, 6.0, 2.0, Some(9)));
        let group = row(&figures, Table::Groups, "billing · orders");
        assert_eq!((group.sent, group.delivered, group.lag), (0.0, 6.0, Some(9)));
        assert_eq!(row(&figures, Table::Services, "orders-api").sent, 8.0);
        assert_eq!(row(&figures, Table::Services, "billing").delivered, 6.0);
        assert_eq!((figures.rows(Table::Groups).count(), figures.all().sent), (1, 8.0));
        // 3.1 ms to send, 34 ms from the record's timestamp on; two digits count.
        let near = |us: Option<[u64; 2]>, of: u64| us.unwrap().iter().all(|us| us.abs_diff(of) <= of / 100);
        assert!(near(orders.took_us, 3_100) && near(orders.queue_us, 34_000), "{orders:?}");
        let mut late = samples::acknowledged();
        late.passage.error = 121;
        figures.add(&hops([late]));
        figures.turn(1.0);
        let group = row(&figures, Table::Groups, "billing · orders");
        assert_eq!((group.delivered, group.errors), (0.0, 1.0), "what a member says is no message");
        let orders = row(&figures, Table::Topics, "orders");
        assert_eq!((orders.sent, orders.lag), (0.0, None));
        assert!(orders.took_us.is_some(), "latencies are of the last seconds");
    }

    #[test]
    fn what_is_old_is_no_latency_and_a_duplicate_no_error() {
        let (mut old, mut duplicate, mut wrong) = (lagging(9), samples::sent(), lagging(9));
        if let Kind::Delivered { is_catching_up, .. } = &mut old.passage.kind {
            *is_catching_up = true;
        }
        duplicate.passage.error = 46;
        wrong.passage.timestamp_ms = 1_767_355_201;
        let mut figures = Figures::default();
        figures.add(&hops([old, duplicate, wrong]));
        figures.turn(1.0);
        let orders = row(&figures, Table::Topics, "orders");
        assert_eq!((orders.delivered, orders.errors, orders.queue_us), (2.0, 0.0, None));
    }

    #[test]
    fn too_many_names_share_a_row_and_idle_ones_go() {
        let mut figures = Figures::default();
        let mut topics = Topics::default();
        let mut named = |name: &str| Hop { topic: Topic::Named(topics.named(name)), ..samples::sent() };
        let many: Vec<_> = (0..MAX_ROWS + 10).map(|at| named(&format!("t{at}"))).collect();
        figures.add(&hops(many));
        figures.turn(1.0);
        assert_eq!(figures.rows(Table::Topics).count(), MAX_ROWS + 1);
        assert_eq!(row(&figures, Table::Topics, OTHERS).sent, 10.0);
        for _ in 0..IDLE_TURNS {
            figures.add(&hops([named("t7"), named("t500")]));
            figures.turn(1.0);
        }
        let mut left: Vec<_> = figures.rows(Table::Topics).map(|row| (&*row.name, row.sent)).collect();
        left.sort_by_key(|(name, _)| name.len());
        assert_eq!(left, [("t7", 1.0), ("t500", 1.0)]);
        figures.add(&hops([named("t7"), named("new")]));
        figures.turn(1.0);
        assert_eq!(
            (row(&figures, Table::Topics, "t7").sent, row(&figures, Table::Topics, "new").sent),
            (1.0, 1.0)
        );
    }

    #[test]
    fn consumers_without_a_group_have_a_row() {
        let hop = lagging(0);
        let service = Value::from("someone".to_owned());
        let parties = Parties {
            reader: Reader::Unknown,
            resource: Arc::new(Resource::new(vec![("service.name".into(), service)])),
            ..(*hop.parties).clone()
        };
        let mut figures = Figures::default();
        figures.add(&hops([hop.clone(), Hop { parties: Arc::new(parties), ..hop }]));
        figures.turn(1.0);
        assert_eq!(row(&figures, Table::Groups, "(no group) · orders").delivered, 1.0);
        assert_eq!(row(&figures, Table::Services, "someone").delivered, 1.0);
    }
}
