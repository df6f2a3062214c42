//! Chains: which messages are reported as causes, and which are not.

use super::*;
use crate::span::Resource;

const SECOND: u64 = 1_000_000_000;

/// One whose start is not known, and no other with this number.
fn process(pid: u32) -> Process {
    Process { pid, resource: Arc::new(Resource::new(vec![])), ..Process::default() }
}

fn read(key: u64, message: u32, end_ns: u64) -> Read {
    let trace_id = TraceId::new((u128::from(message) + 1).to_be_bytes()).unwrap();
    let span_id = SpanId::new((u64::from(message) + 1).to_be_bytes()).unwrap();
    Read { key, message: span_id, end_ns, cause: Some(Cause { trace_id, span_id }) }
}

struct Service {
    chains: Chains,
    chain: Shared,
    topic: Arc<str>,
}

impl Service {
    fn new() -> Self {
        let chains = Chains::default();
        let chain = chains.of(&process(7)).unwrap();
        Self { chains, chain, topic: "out".into() }
    }

    /// One that has sent often enough.
    fn proven() -> Self {
        let service = Self::new();
        for at in 0..FIRST_STREAK {
            service.reads(&[read(at.into(), at, 1)]);
            assert_eq!(service.sends(at.into(), 2), None);
        }
        service
    }

    /// It gets these. Gives how many were evicted for that.
    fn reads(&self, reads: &[Read]) -> u64 {
        self.chains.read(&self.chain, &mut reads.to_vec());
        self.chains.take_evicted()
    }

    fn sends(&self, key: u64, sent_ns: u64) -> Option<Cause> {
        self.chain.sends(&self.topic, Some(key), sent_ns, true)
    }

    /// It reads this many messages with keys of their own, and sends one for each. Returns how many
    /// have a cause.
    fn causes(&self, from: u32, count: u32) -> u32 {
        let has_cause = |at: &u32| {
            self.reads(&[read((1000 + at).into(), *at, 3)]);
            self.sends((1000 + at).into(), 4).is_some()
        };
        (from..from + count).filter(has_cause).count() as u32
    }
}

#[test]
fn the_one_message_of_a_key_is_the_cause_once_that_is_the_rule() {
    let service = Service::proven();
    let one = read(100, 100, 3);
    service.reads(&[one]);
    assert_eq!(service.sends(100, 2), None, "it had not come");
    let service = Service::proven();
    service.reads(&[one]);
    assert_eq!(service.sends(100, 3), one.cause);
    assert_eq!(service.sends(100, 4), one.cause, "one makes two");
    assert_eq!(service.sends(100, 3 + WINDOW_NS), one.cause);
    assert_eq!(service.chain.sends(&"other".into(), Some(100), 4, true), None, "to each topic its own rule");
    assert_eq!(service.sends(100, 4 + WINDOW_NS), None, "too long ago");
}

#[test]
fn two_of_a_key_are_no_proof_unless_they_are_the_same() {
    let service = Service::proven();
    let (one, two) = (read(100, 100, 3), read(100, 101, 5));
    service.reads(&[one, two]);
    assert_eq!(service.sends(100, 6), None);
    assert_eq!(service.sends(100, 4), one.cause, "the second had not come");
    assert_eq!(service.sends(100, 4 + WINDOW_NS), None, "it may be late with the first");
    let service = Service::proven();
    let again = Read { end_ns: 9, cause: read(0, 9, 0).cause, ..one };
    service.reads(&[one, again]);
    assert_eq!(service.sends(100, 10), again.cause, "the newest delivery");
}

#[test]
fn what_is_sent_without_a_cause_makes_more_proof_needed() {
    let service = Service::proven();
    assert_eq!(service.causes(0, 3), 3);
    assert_eq!(service.sends(5555, 4), None);
    assert_eq!(service.causes(100, 100), 100 - 2 * FIRST_STREAK);
    assert_eq!(service.chain.sends(&service.topic, None, 4, true), None, "nor without a key");
    assert_eq!(service.causes(200, 100), 100 - 4 * FIRST_STREAK);
    assert_eq!(service.sends(5555, 4), None);
    assert_eq!(service.sends(5555, 4), None, "two in a row are one");
    assert_eq!(service.causes(300, 200), 200 - 8 * FIRST_STREAK);
}

#[test]
fn what_is_sent_again_and_again_is_one_proof() {
    let service = Service::new();
    service.reads(&[read(1, 1, 1)]);
    for at in 0..2 * FIRST_STREAK {
        assert_eq!(service.chain.sends(&service.topic, Some(1), 2, at == 0), None);
    }
    assert_eq!(service.causes(0, FIRST_STREAK), 1);
    assert_eq!(service.chain.sends(&service.topic, Some(5555), 2, false), None);
    assert_eq!(service.causes(100, 10), 10);
}

/// A service that gives its messages keys of other messages: with few keys around, each is some
/// message's.
#[test]
fn where_keys_are_few_they_prove_nothing() {
    let service = Service::proven();
    let twice = |key: u32| service.reads(&[read(key.into(), key, 3), read(key.into(), 500 + key, 3)]);
    for key in 100..100 + FIRST_STREAK - LEAST_CLEAR {
        twice(key);
        assert_eq!(service.sends(key.into(), 4), None);
        assert_eq!(service.causes(key, 1), 1, "some come twice");
    }
    twice(200);
    assert_eq!((service.sends(200, 4), service.causes(200, 1)), (None, 0), "too many do");
}

#[test]
fn a_cause_that_is_not_shown_counts_but_is_not_named() {
    let service = Service::proven();
    service.reads(&[Read { cause: None, ..read(100, 1, 3) }]);
    assert_eq!(service.sends(100, 4), None);
    let shown = read(101, 2, 3);
    service.reads(&[shown]);
    assert_eq!(service.sends(101, 4), shown.cause);
}

#[test]
fn nothing_is_told_while_something_that_was_got_is_not_known() {
    let service = Service::proven();
    let one = read(100, 100, 3);
    service.reads(&[one]);
    service.chain.missed(5);
    assert_eq!(service.sends(100, 6), None);
    let two = read(101, 101, 5 + WINDOW_NS);
    service.reads(&[two]);
    assert_eq!(service.sends(101, 5 + WINDOW_NS), two.cause);
}

#[test]
fn who_does_not_write_is_not_followed_until_it_does() {
    let service = Service::new();
    service.reads(&[read(1, 1, SECOND)]);
    service.chains.expire(SILENT_NS);
    assert!(!service.chain.only_reads());
    service.chains.expire(SILENT_NS + EXPIRE_NS);
    assert!(service.chain.only_reads());
    assert_eq!(service.chains.held.load(Ordering::Relaxed), 0);
    service.chain.writes(SILENT_NS + EXPIRE_NS);
    assert!(!service.chain.only_reads());
    assert_eq!(service.causes(0, 100), 0, "what it got before is not known");
    service.chains.expire(2 * SILENT_NS);
    service.chains.expire(IDLE_NS);
    assert!(!service.chain.only_reads(), "it has written");
    service.chains.expire(SILENT_NS + 3 * EXPIRE_NS + IDLE_NS);
    assert!(service.chain.only_reads());
}

/// A wall clock.
#[test]
fn what_is_too_old_is_looked_for_though_the_clock_was_set_back() {
    let service = Service::new();
    service.chains.expire(100 * SILENT_NS);
    service.reads(&[read(1, 1, SECOND)]);
    service.chains.expire(2 * SILENT_NS);
    assert!(service.chain.only_reads());
}

#[test]
fn who_gets_more_than_can_be_remembered_and_does_not_write_is_not_followed() {
    let service = Service::new();
    let many: Vec<Read> = (0..MAX_READS as u32 + 1).map(|at| read(u64::from(at), at, 3)).collect();
    assert_eq!(service.reads(&many), 0, "no loss: nothing may ever come of it");
    assert!(service.chain.only_reads() && !service.chain.has_read());
    assert_eq!(service.chains.held.load(Ordering::Relaxed), 0);
    service.chain.writes(5);
    assert!(!service.chain.only_reads());
    assert_eq!(service.sends(1, 6), None);
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_forgotten_is_told() {
    let service = Service::proven();
    let many: Vec<Read> = (0..MAX_READS as u32 + 10).map(|at| read(1000 + u64::from(at), at, 3)).collect();
    assert_eq!(service.reads(&many), 10 + u64::from(FIRST_STREAK));
    assert_eq!(service.sends(1000, 4), None, "forgotten");
    assert_eq!(service.sends(1500, 4), None, "so who knows what else is");
    let others: Vec<_> = (10..20).filter_map(|pid| service.chains.of(&process(pid))).collect();
    for other in &others {
        other.writes(1);
        service.chains.read(other, &mut many.clone());
    }
    assert!(service.chains.held.load(Ordering::Relaxed) <= MAX_READS_IN_ALL);
    let same = vec![read(1, 1, 4); MAX_READS];
    service.chains.read(&service.chain, &mut same.clone());
    assert_eq!(service.sends(1, 5), None, "not looked through");
    service.chains.expire(4 + REMEMBERED_NS + SECOND);
    assert_eq!(service.chains.held.load(Ordering::Relaxed), 0);
    assert!(service.chain.lock().newest.is_empty());
}

#[test]
fn a_number_may_become_another_processes() {
    let chains = Chains::default();
    let (one, two) = (process(1), process(1));
    let chain = chains.of(&one).unwrap();
    assert!(Arc::ptr_eq(&chain, &chains.of(&one).unwrap()));
    let second = chains.of(&two).unwrap();
    assert!(!Arc::ptr_eq(&chain, &second));
    assert!(chains.of(&process(0)).is_none());
    let kept: Vec<_> = (2..MAX_PROCESSES as u32 + 1).map(|pid| chains.of(&process(pid)).unwrap()).collect();
    assert!(chains.of(&process(u32::MAX)).is_none(), "all are in use");
    drop((kept, second));
    assert!(chains.of(&process(u32::MAX)).is_some());
    assert_eq!(chains.by_pid().len(), MAX_PROCESSES, "one is evicted");
}

/// Its executable was replaced, or it was evicted from the table of processes: older connections stay
/// in one chain with later ones.
#[test]
fn a_process_that_is_read_anew_keeps_its_chain() {
    let chains = Chains::default();
    let [older, later] = [process(1), process(1)].map(|of| Process { start_time: 77, ..of });
    let chain = chains.of(&older).unwrap();
    assert!(Arc::ptr_eq(&chain, &chains.of(&later).unwrap()));
    let other = Process { start_time: 78, ..process(1) };
    assert!(!Arc::ptr_eq(&chain, &chains.of(&other).unwrap()));
}

/// A connection may outlive the program that opened it: the process executes another one.
#[test]
fn what_an_ended_process_gets_is_not_counted() {
    let chains = Chains::default();
    let first = chains.of(&process(1)).unwrap();
    chains.read(&first, &mut vec![read(1, 1, 3), read(2, 2, 3)]);
    assert_eq!(chains.held.load(Ordering::Relaxed), 2);
    let second = chains.of(&process(1)).unwrap();
    chains.read(&first, &mut vec![read(3, 3, 3)]);
    assert!(!first.has_read() && chains.held.load(Ordering::Relaxed) == 0);
    chains.read(&second, &mut vec![read(4, 4, 3)]);
    assert!(second.has_read() && chains.held.load(Ordering::Relaxed) == 1);
}
