//! Groups: whose a delivery is, how often it was delivered, and what a commit covers.

use std::time::Duration;

use super::*;
use crate::hop::uncommitted::Uncommitted;
use crate::worker::stage::Stage;
use crate::worker::stage::awaiting_group::MAX_HOPS;

pub fn request(key: u8, version: u8, id: i32, parts: &[&[u8]]) -> Vec<u8> {
    framed(&[&[0, key, 0, version], &id.to_be_bytes(), &text("me"), &parts.concat()])
}

/// SyncGroup v0: partition 0 of `orders`.
pub fn assigned(id: i32, group: &str, member: &str) -> (Vec<u8>, Vec<u8>) {
    let request = request(14, 0, id, &[&text(group), &[0, 0, 0, 5], &text(member), &[0; 4]]);
    let orders = text("orders");
    let assignment = [&[0, 0, 0, 0, 0, 1][..], &orders, &[0, 0, 0, 1, 0, 0, 0, 0], &[0xff; 4]].concat();
    (request, framed(&[&id.to_be_bytes(), &[0, 0], &(assignment.len() as u32).to_be_bytes(), &assignment]))
}

/// Fetch v4 from an offset on, and the messages that it brings, each in a batch of its own.
pub fn fetched(id: i32, from: i64, offsets: &[i64]) -> (Vec<u8>, Vec<u8>) {
    let batches = offsets.iter().map(|offset| logged(*offset, batch(&[])));
    fetched_batches(id, from, &batches.collect::<Vec<_>>().concat())
}

/// A batch as it stands in the log.
pub fn logged(offset: i64, mut batch: Vec<u8>) -> Vec<u8> {
    batch[..8].copy_from_slice(&offset.to_be_bytes());
    batch
}

pub fn fetched_batches(id: i32, from: i64, records: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fetched_of(id, &[(0, from, records.to_vec())])
}

/// Of partitions, each with the offset from which it is asked for.
pub fn fetched_of(id: i32, partitions: &[(i32, i64, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let count = (partitions.len() as u32).to_be_bytes();
    let (mut asked, mut answered) = (vec![], vec![]);
    for (partition, from, records) in partitions {
        asked.extend([&partition.to_be_bytes()[..], &from.to_be_bytes(), &[0, 1, 0, 0]].concat());
        let ends = [1000_i64.to_be_bytes(); 2].concat();
        let len = (records.len() as u32).to_be_bytes();
        answered.extend([&partition.to_be_bytes()[..], &[0, 0], &ends, &[0xff; 4], &len, records].concat());
    }
    let head = [[0xff; 4], [0; 4], [0; 4], [0, 1, 0, 0]].concat();
    let orders = [&[0, 0, 0, 1][..], &text("orders"), &count].concat();
    let request = request(1, 4, id, &[&head, &[0], &orders, &asked]);
    (request, framed(&[&id.to_be_bytes(), &[0; 4], &orders, &answered]))
}

/// OffsetCommit v2.
pub fn committed(id: i32, group: &str, member: &str, offset: i64, error: u8) -> (Vec<u8>, Vec<u8>) {
    let partition = [&[0, 0, 0, 1, 0, 0, 0, 0][..], &offset.to_be_bytes(), &[0xff, 0xff]].concat();
    let member = [&text(group)[..], &[0, 0, 0, 5], &text(member), &[0xff; 8]].concat();
    let request = request(8, 2, id, &[&member, &[0, 0, 0, 1], &text("orders"), &partition]);
    let answer =
        [&id.to_be_bytes()[..], &[0, 0, 0, 1], &text("orders"), &[0, 0, 0, 1, 0, 0, 0, 0, 0, error]].concat();
    (request, framed(&[&answer]))
}

/// A client that speaks on several connections; each is named by its port.
pub struct Talk {
    pub watched: Watched,
    pub at: HashMap<u16, (u32, u32)>,
    id: i32,
}

impl Talk {
    pub fn new() -> Self {
        Self::with(&Arc::default())
    }

    /// One of several workers.
    pub fn with(shared: &Arc<Shared>) -> Self {
        Self::told_by(WorkerOptions::default(), shared)
    }

    pub fn told_by(options: WorkerOptions, shared: &Arc<Shared>) -> Self {
        let watched = Watched::with(options, shared);
        Self { watched, at: HashMap::default(), id: 0 }
    }

    pub fn say(&mut self, port: u16, exchange: impl FnOnce(i32) -> (Vec<u8>, Vec<u8>)) {
        self.id += 1;
        let (request, answer) = exchange(self.id);
        let place = self.at.entry(port).or_insert((100, 200));
        self.watched.socket.0 = port.into();
        self.watched.talk(ends(port), *place, &request, &answer);
        *place = (place.0 + request.len() as u32, place.1 + answer.len() as u32);
    }

    fn told_count(&self) -> usize {
        self.watched.hops().len()
    }

    /// The spans so far, in short.
    pub fn told(&self) -> Vec<String> {
        let told = |hop: &Hop| {
            let topic = shown(&hop.topic);
            let span = hop.span(&topic);
            let word = |name: &str, short: &str| {
                let (_, value) = span.attributes.iter().find(|(key, _)| *key == name)?;
                Some(format!(" {short}{}", value.as_text().map_or_else(|| format!("{value:?}"), Into::into)))
            };
            let words = [
                ("messaging.kafka.offset", "@"),
                ("messaging.consumer.group.name", "group="),
                ("ktrace.consumer.member.id", "member="),
                ("ktrace.delivery.count", "count="),
                ("ktrace.out_of_order", "behind="),
                ("ktrace.uncommitted", "uncommitted="),
                ("ktrace.acknowledge.type", ""),
                ("ktrace.commit.messages", "messages="),
                ("ktrace.acknowledge.messages", "messages="),
                ("ktrace.commit.goes_back", "back="),
                ("ktrace.transaction.state", "in="),
                ("ktrace.attempts", "attempts="),
                ("error.type", "error="),
            ];
            let words: String = words.iter().filter_map(|(name, short)| word(name, short)).collect();
            let text = format!("{}{words}", span.name.split(' ').next().unwrap());
            text.replace("Int(", "").replace("Bool(", "").replace(')', "")
        };
        self.watched.hops().iter().map(told).collect()
    }
}

#[test]
fn deliveries_to_a_group_are_counted_whoever_of_it_gets_them() {
    let mut talk = Talk::new();
    talk.say(1, |id| assigned(id, "g", "m1"));
    talk.say(11, |id| fetched(id, 0, &[0, 1, 3]));
    // Another member, and another group.
    talk.say(2, |id| assigned(id, "g", "m2"));
    talk.say(12, |id| fetched(id, 1, &[1, 3, 4]));
    talk.say(12, |id| fetched(id, 90, &[95]));
    talk.say(12, |id| fetched(id, 70, &[70]));
    assert_eq!(
        talk.told(),
        [
            "poll @0 group=g member=m1",
            "poll @1 group=g member=m1",
            "poll @3 group=g member=m1",
            "poll @1 group=g member=m2 count=2",
            "poll @3 group=g member=m2 count=2",
            "poll @4 group=g member=m2",
            "poll @95 group=g member=m2",
            "poll @70 group=g member=m2 behind=true",
        ]
    );
}

#[test]
fn a_commit_stands_in_the_trace_of_the_last_message_that_it_covers() {
    let mut talk = Talk::new();
    talk.say(1, |id| assigned(id, "g", "m1"));
    talk.say(11, |id| fetched(id, 0, &[0, 1, 2]));
    talk.say(1, |id| committed(id, "g", "m1", 2, 0));
    // Again, by the clock.
    talk.say(1, |id| committed(id, "g", "m1", 2, 0));
    talk.say(1, |id| committed(id, "g", "m1", 3, 25));
    talk.say(1, |id| committed(id, "g", "m1", 1, 0));
    assert_eq!(
        talk.told()[3..],
        [
            "commit @2 group=g member=m1 messages=2",
            "commit @3 group=g member=m1 messages=0 error=UNKNOWN_MEMBER_ID",
            "commit @1 group=g member=m1 messages=0 back=true",
        ]
    );
    let hops = talk.watched.hops();
    let topic = shown(&hops[1].topic);
    let (first, last, commit) = (hops[0].span(&topic), hops[1].span(&topic), hops[3].span(&topic));
    assert_eq!((commit.trace_id, commit.parent), (last.trace_id, Some(last.span_id)));
    let links: Vec<_> = commit.links.iter().map(|link| (link.trace_id, link.span_id)).collect();
    assert_eq!(links, [(first.trace_id, first.span_id)]);
    assert_ne!(hops[4].passage.derived, commit.trace_id);
}

/// One process, several groups with the same client id: their connections
/// keep them apart.
#[test]
fn a_connection_that_ends_makes_room_for_the_next() {
    let mut talk = Talk::new();
    talk.say(1, |id| assigned(id, "g", "m1"));
    talk.say(11, |id| fetched(id, 0, &[0]));
    talk.say(2, |id| assigned(id, "h", "n1"));
    talk.say(12, |id| fetched(id, 0, &[0]));
    talk.say(13, |id| fetched(id, 1, &[1]));
    let (client, broker) = talk.at[&11];
    talk.watched.socket.0 = 11;
    talk.watched.reset(ends(11), Direction::ToBroker, client, broker);
    talk.say(14, |id| fetched(id, 1, &[1]));
    assert_eq!(
        talk.told(),
        ["poll @0 group=g member=m1", "poll @0 group=h member=n1", "poll @1", "poll @1 group=g member=m1"]
    );
}

/// Of two rings the one with the commit is read first.
#[test]
fn a_commit_that_is_read_before_what_it_covers_waits_a_little() {
    let shared = Arc::default();
    let (mut fetches, mut commits) = (Talk::with(&shared), Talk::with(&shared));
    commits.say(1, |id| assigned(id, "g", "m1"));
    commits.say(1, |id| committed(id, "g", "m1", 2, 0));
    fetches.watched.now_ns = commits.watched.now_ns;
    fetches.say(11, |id| fetched(id, 0, &[0, 1]));
    assert!(commits.told().is_empty());
    commits.watched.wait(300_000_000);
    assert_eq!(commits.told(), ["commit @2 group=g member=m1 messages=2"]);
    commits.say(1, |id| committed(id, "g", "m1", 2, 0));
    commits.say(1, |id| committed(id, "g", "m1", 1, 0));
    let told = Arc::clone(&commits.watched.hops);
    let _ = commits.watched.worker.finish();
    assert_eq!(told.lock().unwrap().len(), 2, "what waits is told at the end");
}

/// Of two rings the one with the assignment is read last.
#[test]
fn first_messages_that_are_read_before_their_member_is_known_wait_a_little() {
    let shared = Arc::default();
    let (mut fetches, mut joins) = (Talk::with(&shared), Talk::with(&shared));
    fetches.watched.now_ns = joins.watched.now_ns + 10_000_000;
    fetches.say(11, |id| fetched(id, 0, &[0, 1]));
    fetches.say(11, |id| fetched(id, 1, &[1, 2]));
    joins.say(1, |id| assigned(id, "g", "m1"));
    assert!(fetches.told().is_empty());
    joins.watched.now_ns = fetches.watched.now_ns;
    joins.say(1, |id| committed(id, "g", "m1", 2, 0));
    fetches.watched.now_ns += 150_000_000;
    fetches.say(11, |id| fetched(id, 3, &[3]));
    // For when it was sent.
    fetches.watched.wait(500_000_000);
    let named = [
        "poll @0 group=g member=m1",
        "poll @1 group=g member=m1",
        "poll @1 group=g member=m1 count=2",
        "poll @2 group=g member=m1",
        "poll @3 group=g member=m1",
    ];
    assert_eq!(fetches.told(), named);
    joins.watched.wait(300_000_000);
    assert_eq!(joins.told(), ["commit @2 group=g member=m1 messages=2"]);
    let first = fetches.watched.hops()[2].clone();
    let commit = joins.watched.hops()[0].clone();
    assert_eq!(
        commit.span(&shown(&commit.topic)).parent,
        Some(first.passage.span_id(&first.parties, &shown(&first.topic))),
        "its last message's"
    );
}

/// Once a connection: who has no group does not wait again; nor does anybody where there is one
/// ring.
#[test]
fn who_reads_for_no_group_waits_once_and_where_there_is_one_ring_never() {
    let shared = Arc::default();
    let mut one = Talk::with(&shared);
    one.say(11, |id| fetched(id, 0, &[0]));
    assert_eq!(one.told(), ["poll @0"]);
    let _other = Talk::with(&shared);
    one.say(12, |id| fetched(id, 0, &[0]));
    assert_eq!(one.told().len(), 1);
    one.watched.wait(250_000_000);
    assert_eq!(one.told().len(), 2);
    one.say(12, |id| fetched(id, 1, &[1]));
    assert_eq!(one.told().len(), 3);
    one.say(13, |id| fetched(id, 0, &[0]));
    let told = Arc::clone(&one.watched.hops);
    let totals = one.watched.worker.finish();
    assert_eq!((told.lock().unwrap().len(), totals.lost.len()), (4, 0));
}

/// Hostile: more of them than may wait.
#[test]
fn first_messages_that_wait_are_bounded_and_counted() {
    let shared = Arc::default();
    let (mut one, _other) = (Talk::with(&shared), Talk::with(&shared));
    let most = 64 << 10;
    let mut passed = 0;
    while passed <= most {
        let offsets: Vec<i64> = (passed..passed + 500).collect();
        one.say(11, |id| fetched(id, offsets[0], &offsets));
        passed += 500;
    }
    let early = one.watched.worker.finish().lost["shown_early"];
    assert!(early > most as u64 - 1000, "{early}");
}

/// Hostile: one exchange of more than may wait, with offsets that go on and with such that go back.
#[test]
fn first_messages_of_one_exchange_are_bounded_too() {
    let many = 100_000_i64;
    for offsets in [(0..many).collect::<Vec<_>>(), (0..many).rev().collect()] {
        let shared = Arc::default();
        let (mut one, _other) = (Talk::with(&shared), Talk::with(&shared));
        one.say(11, |id| fetched(id, 0, &offsets));
        assert!(one.watched.worker.stages.awaiting_group.len() <= MAX_HOPS);
        let told = Arc::clone(&one.watched.hops);
        let early = one.watched.worker.finish().lost["shown_early"];
        assert!(early > 30_000, "{early}");
        let told = told.lock().unwrap();
        let order: Vec<_> = told.iter().filter_map(|hop| hop.passage.offset).collect();
        assert_eq!(order, offsets, "in their order, none missing");
    }
}

/// Hostile: a group that commits again and again, more than may wait.
#[test]
fn commits_that_wait_for_other_workers_are_bounded_and_counted() {
    let shared = Arc::default();
    let (mut one, _other) = (Talk::with(&shared), Talk::with(&shared));
    let most = 16 << 10;
    for offset in 0..=most {
        one.say(1, |id| committed(id, "g", "m1", offset, 0));
        one.watched.now_ns -= 2000;
    }
    assert_eq!(one.told_count(), 1);
    assert_eq!(one.watched.worker.finish().lost, [("shown_early", 1)].into());
}

/// With `--uncommitted 10s`.
fn uncommitted() -> WorkerOptions {
    let uncommitted = Some(Arc::new(Uncommitted::new(Duration::from_secs(10))));
    let selection = Selection { uncommitted, ..Selection::default() };
    WorkerOptions { selection, ..WorkerOptions::default() }
}

#[test]
fn what_is_not_committed_in_time_is_given_once() {
    let mut talk = Talk::told_by(uncommitted(), &Arc::default());
    talk.say(1, |id| assigned(id, "g", "m1"));
    talk.say(11, |id| fetched(id, 0, &[0, 1, 2]));
    // None of its trace is wanted, and it counts all the same.
    talk.watched.worker.world.settings.sampling = Sampling::new(0.0);
    talk.say(1, |id| committed(id, "g", "m1", 2, 0));
    talk.watched.wait(10_000_000_000);
    assert!(talk.told().is_empty());
    talk.watched.wait(1_000_000_000);
    talk.watched.wait(1_000_000_000);
    assert_eq!(talk.told(), ["poll @2 group=g member=m1 uncommitted=true"]);
    // A hole in what its client got may have held a commit.
    talk.watched.worker.world.settings.sampling = Sampling::default();
    talk.say(11, |id| fetched(id, 3, &[3]));
    talk.at.insert(11, (100_000, 200_000));
    talk.say(11, |id| fetched(id, 4, &[4]));
    talk.watched.wait(1_000_000_000);
    talk.watched.wait(20_000_000_000);
    talk.watched.wait(1_000_000_000);
    let offsets = talk.watched.offsets();
    let lost = talk.watched.worker.finish().lost;
    assert_eq!((offsets, lost["uncommitted_left_out"]), (vec![2], 2));
}

/// OffsetFetch v1.
fn stands(id: i32, group: &str, offset: i64) -> (Vec<u8>, Vec<u8>) {
    let topic = [&[0, 0, 0, 1][..], &text("orders"), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let request = request(9, 1, id, &[&text(group), &topic]);
    (request, framed(&[&id.to_be_bytes(), &topic, &offset.to_be_bytes(), &[0xff, 0xff, 0, 0]]))
}

#[test]
fn where_a_group_stands_says_what_somebody_has_committed() {
    let mut talk = Talk::told_by(uncommitted(), &Arc::default());
    talk.say(1, |id| assigned(id, "g", "m1"));
    talk.say(11, |id| fetched(id, 0, &[0, 1, 2]));
    // Anybody may ask.
    talk.say(2, |id| stands(id, "g", 2));
    talk.watched.wait(12_000_000_000);
    talk.watched.wait(1_000_000_000);
    assert_eq!(talk.told(), ["poll @2 group=g member=m1 uncommitted=true"]);
}
