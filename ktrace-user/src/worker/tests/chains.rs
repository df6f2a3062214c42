//! Chains: what a process sends because of what it got.

use super::groups::{fetched_batches, logged};
use super::*;
use crate::span::Resource;
use crate::worker::stage::Stage;
use crate::worker::stage::awaiting_cause::MAX_SENT;

/// A process that reads on one connection and writes on another.
struct Service {
    watched: Watched,
    owner: Arc<Process>,
    at: [(u32, u32); 2],
    id: i32,
}

const READS: usize = 0;
const WRITES: usize = 1;

/// Messages that a process has to send because of what it got before that is taken for granted.
const PROOF: usize = 16;

impl Service {
    fn new(options: WorkerOptions) -> Self {
        Self::with(options, &Arc::default(), &process())
    }

    /// As one of several workers sees the process.
    fn with(options: WorkerOptions, shared: &Arc<Shared>, owner: &Arc<Process>) -> Self {
        let mut watched = Watched::with(options, shared);
        for (socket, port) in [(READS as u64, 4000), (WRITES as u64, 4001)] {
            watched.worker.event(Event::Opened {
                connection: ConnectionId(socket),
                ends: ends(port),
                side: Side::Client,
                owner: Some(Arc::clone(owner)),
            });
        }
        let mut service = Self { watched, owner: Arc::clone(owner), at: [(100, 200); 2], id: 0 };
        service.asks_for_versions(READS);
        service
    }

    fn say(&mut self, which: usize, request: &[u8], answer: &[u8]) {
        self.watched.socket.0 = which as u64;
        let place = &mut self.at[which];
        self.watched.talk(ends(4000 + which as u16), *place, request, answer);
        *place = (place.0 + request.len() as u32, place.1 + answer.len() as u32);
        self.id += 1;
    }

    /// ApiVersions v0.
    fn asks_for_versions(&mut self, which: usize) {
        let id = self.id.to_be_bytes();
        let (request, answer) = (framed(&[&[0, 18, 0, 0], &id, &text("me")]), framed(&[&id, &[0; 6]]));
        self.say(which, &request, &answer);
    }

    fn reads(&mut self, offset: i64, key: Option<&str>) {
        let (request, answer) = fetched_batches(self.id, offset, &logged(offset, batch_of(key, &[])));
        self.say(READS, &request, &answer);
    }

    fn writes(&mut self, offset: i64, key: Option<&str>, headers: Headers<'_>) {
        let request = produce_batch(self.id, "invoices", &batch_of(key, headers));
        self.say(WRITES, &request, &produced(self.id, "invoices", offset));
    }

    /// What each message that was sent was linked to: the offset of what its process got.
    fn links(&self) -> Vec<Option<i64>> {
        let hops = self.watched.hops();
        let link = |hop: &Hop| {
            let topic = shown(&hop.topic);
            let span = hop.span(&topic);
            let (link, none) = (span.links.first()?, span.links.get(1));
            assert_eq!((&link.attribute, none), (&Some(("ktrace.inferred", "key".into())), None));
            let cause = hops.iter().find(|hop| {
                let topic = shown(&hop.topic);
                (hop.passage.trace_id(), hop.passage.span_id(&hop.parties, &topic))
                    == (link.trace_id, link.span_id)
            })?;
            assert!(matches!(cause.passage.kind, crate::hop::Kind::Delivered { .. }));
            cause.passage.offset
        };
        hops.iter()
            .filter(|hop| matches!(hop.passage.kind, crate::hop::Kind::Produced { .. }))
            .map(link)
            .collect()
    }

    fn proven(options: WorkerOptions) -> Self {
        let mut service = Self::new(options);
        for at in 0..PROOF as i64 {
            service.reads(at, Some(&format!("k{at}")));
            service.writes(at, Some(&format!("k{at}")), &[]);
        }
        assert_eq!(service.links(), [None; PROOF]);
        service
    }
}

fn process() -> Arc<Process> {
    Arc::new(Process { pid: 7, resource: Arc::new(Resource::new(vec![])), ..Process::default() })
}

fn infer() -> WorkerOptions {
    WorkerOptions { infer: true, ..WorkerOptions::default() }
}

#[test]
fn what_is_sent_with_the_key_of_what_was_read_is_linked_to_it() {
    let mut service = Service::proven(infer());
    service.reads(10, Some("order-1"));
    service.reads(11, Some("order-2"));
    service.reads(12, None);
    service.writes(10, Some("order-2"), &[]);
    service.writes(11, Some("order-1"), &[]);
    service.writes(12, Some("order-1"), &[]);
    service.reads(13, Some("order-1"));
    service.writes(13, Some("order-1"), &[]);
    assert_eq!(service.links()[PROOF..], [Some(11), Some(10), Some(10), None]);
    service.writes(14, None, &[]);
    service.writes(15, Some("order-2"), &[]);
    assert_eq!(
        service.links()[PROOF + 4..],
        [None, None],
        "what has no key has no cause, and the rule is to be shown anew"
    );
}

/// What it had got before is not known.
#[test]
fn a_connection_of_before_the_agent_proves_nothing_for_a_while() {
    let mut service = Service::new(infer());
    for at in 0..30 {
        if at == 20 {
            service.watched.worker.event(Event::Opened {
                connection: ConnectionId(READS as u64),
                ends: ends(5000),
                side: Side::Client,
                owner: Some(Arc::clone(&service.owner)),
            });
        }
        service.reads(at, Some(&format!("k{at}")));
        service.writes(at, Some(&format!("k{at}")), &[]);
    }
    assert_eq!(service.links()[PROOF..20], [Some(16), Some(17), Some(18), Some(19)]);
    assert_eq!(service.links()[20..], [None; 10]);
}

#[test]
fn it_is_not_looked_for_unless_asked_for() {
    let mut service = Service::proven(WorkerOptions::default());
    service.reads(10, Some("order-1"));
    service.writes(10, Some("order-1"), &[]);
    assert_eq!(service.links()[PROOF..], [None]);
}

#[test]
fn a_message_that_is_not_sampled_is_no_cause_but_hides_none() {
    let mut service = Service::proven(infer());
    service.watched.worker.world.settings.sampling = Sampling::new(0.5);
    let kept: Vec<bool> = (10..20)
        .map(|offset| {
            let before = service.watched.hops().len();
            service.reads(offset, Some(&format!("order-{offset}")));
            service.watched.hops().len() > before
        })
        .collect();
    service.watched.worker.world.settings.sampling = Sampling::default();
    for offset in 10..20 {
        service.writes(offset, Some(&format!("order-{offset}")), &[]);
    }
    let expected: Vec<_> = (10..20).zip(&kept).map(|(offset, kept)| kept.then_some(offset)).collect();
    assert!(kept.contains(&true) && kept.contains(&false));
    assert_eq!(service.links()[PROOF..], expected);
}

#[test]
fn headers_that_name_the_same_trace_need_no_link() {
    let mut service = Service::proven(infer());
    service.reads(10, Some("order-1"));
    let trace = service.watched.hops().last().map(|hop| hop.passage.trace_id().to_string()).unwrap();
    let header = format!("00-{trace}-00f067aa0ba902b7-01");
    service.writes(10, Some("order-1"), &[("traceparent", &header)]);
    assert_eq!(service.links()[PROOF..], [None]);
}

/// Of two rings the one with what was sent is read first.
#[test]
fn what_is_sent_waits_a_little_for_what_is_read_elsewhere() {
    let (shared, owner) = (Arc::default(), process());
    let mut reader = Service::with(infer(), &shared, &owner);
    let mut writer = Service::with(infer(), &shared, &owner);
    writer.writes(0, Some("first"), &[]);
    for at in 1..20 {
        writer.watched.now_ns = reader.watched.now_ns + 10_000;
        writer.writes(at, Some(&format!("k{at}")), &[]);
        reader.reads(at, Some(&format!("k{at}")));
    }
    assert_eq!(writer.links(), [None; 2], "before it had read anything");
    reader.watched.wait(300_000_000);
    writer.watched.wait(300_000_000);
    let hops: Vec<Hop> = reader.watched.hops().drain(..).collect();
    writer.watched.hops().extend(hops);
    let links = writer.links();
    assert_eq!(links[..PROOF + 2], [None; PROOF + 2]);
    assert_eq!(links[PROOF + 2..], [Some(18), Some(19)]);
}

/// One of two workers, of a process that has read; what it sends waits for the other.
fn waits() -> (Service, Service) {
    let (shared, owner) = (Arc::default(), process());
    let mut reader = Service::with(infer(), &shared, &owner);
    reader.reads(0, Some("k"));
    let writer = Service::with(infer(), &shared, &owner);
    (writer, reader)
}

#[test]
fn what_is_sent_waits_no_longer_than_it_must() {
    let (mut writer, _reader) = waits();
    writer.watched.now_ns = 1_200_000_000;
    writer.writes(0, Some("k"), &[]);
    writer.watched.now_ns = 1_300_000_000;
    writer.asks_for_versions(WRITES);
    assert!(writer.links().is_empty());
    // Between two looks at all that waits.
    writer.watched.now_ns = 1_460_000_000;
    writer.asks_for_versions(WRITES);
    assert_eq!(writer.links(), [None]);
}

#[test]
fn what_is_sent_does_not_wait_until_a_clock_that_was_set_back_is_there_again() {
    let (mut writer, _reader) = waits();
    writer.watched.now_ns = 60_000_000_000;
    writer.writes(0, Some("k"), &[]);
    assert!(writer.links().is_empty());
    writer.watched.now_ns = 1_000_000_000;
    writer.watched.wait(0);
    assert_eq!(writer.links(), [None]);
}

/// Hostile: more than may wait. Of what is not shown, none is shown too early.
#[test]
fn what_is_sent_and_waits_is_bounded_and_counted_if_it_is_shown() {
    for shown in [0_i64, 1] {
        let (mut writer, _reader) = waits();
        for offset in 0..=MAX_SENT as i64 {
            let rate = if offset < shown { 1.0 } else { 0.0 };
            writer.watched.worker.world.settings.sampling = Sampling::new(rate);
            writer.writes(offset, Some("k"), &[]);
        }
        assert_eq!(writer.watched.worker.stages.awaiting_cause.len(), MAX_SENT);
        let lost = writer.watched.worker.finish().lost;
        assert_eq!(lost.get("shown_early").copied().unwrap_or_default(), shown as u64);
    }
}
