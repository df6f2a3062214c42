//! Appends: what is found of what was sent, and what is not.

use super::log::{MAX_APPENDS, PATIENCE_NS, REQUEST_NS};
use super::*;
use crate::hop::deadline::LATE_NS;
use crate::hop::{Kind, samples};

/// Appended in one request at this time, whose response came 10 ns later.
fn append(offsets: Range<i64>, timestamp_ms: i64, start_ns: u64) -> Append {
    let mut append = Append::new(offsets.start, timestamp_ms, None, start_ns..start_ns + 10);
    for offset in offsets.skip(1) {
        assert!(append.takes(offset, timestamp_ms, start_ns));
    }
    append
}

fn request(seq: u32) -> Request {
    Request { connection: ConnectionId(1), seq }
}

fn place(partition: i32) -> LogKey {
    LogKey { cluster: Cluster::Named("c".into()), topic: "orders".into(), partition }
}

/// Delivered at 1000 ns, looked for at this time.
fn sought(offset: i64, now_ns: Option<u64>) -> Sought {
    Sought { offset, delivered_ns: 1000, now_ns, several: false, after: 0 }
}

fn sent(log: &Shared, offset: i64, timestamp_ms: i64) -> Sent {
    log.find(sought(offset, Some(1000))).sent(timestamp_ms, log)
}

#[test]
fn a_delivery_is_of_the_request_that_brought_it() {
    let appends = Appends::default();
    assert!(appends.is_empty() && appends.find([place(0)]).is_none());
    let log = appends.of(&place(0));
    for (offsets, at) in [(10..20, 100), (30..31, 300), (20..25, 200)] {
        appends.append(&log, append(offsets, 7, at));
    }
    let log = appends.find([place(1), place(0)]).unwrap();
    let found = log.find(sought(19, None));
    let behind = log.find(Sought { after: found.place(), ..sought(20, None) });
    assert_eq!((behind.sent(7, &log), behind.place()), (Sent::At(200), 1));
    for (offset, at) in [(10, 100), (19, 100), (20, 200), (24, 200), (30, 300)] {
        assert_eq!(sent(&log, offset, 7), Sent::At(at), "{offset}");
    }
    for offset in [i64::MIN, -1, 9, 25, 29, 31, i64::MAX] {
        assert_eq!(sent(&log, offset, 7), Sent::Unknown, "{offset}");
    }
    assert_eq!(sent(&log, 15, 8), Sent::Unknown, "another log's");
    assert_eq!(appends.len.load(Ordering::Relaxed), 3);
}

#[test]
fn messages_of_one_append_go_on_one_behind_the_other() {
    let mut append = Append::new(5, 70, None, 1..2);
    assert!(append.takes(6, 60, 1) && append.takes(7, 90, 1));
    assert!(!append.takes(9, 90, 1) && !append.takes(8, 90, 3) && !append.takes(7, 90, 1));
    assert_eq!((append.offsets, append.oldest_ms, append.newest_ms), (5..8, 60, 90));
}

#[test]
fn offsets_at_the_end_of_all_are_none() {
    let (appends, last) = (Appends::default(), i64::MAX);
    let log = appends.of(&place(0));
    let mut append = Append::new(last - 1, 7, None, 1..2);
    assert!(!append.takes(last, 7, 1));
    appends.append(&log, append);
    appends.append(&log, Append::new(last, 7, None, 3..4));
    appends.append(&log, Append::new(0, 7, None, 5..6));
    assert_eq!([0, last - 1, last].map(|at| sent(&log, at, 7)), [Sent::At(5), Sent::At(1), Sent::Unknown]);
}

#[test]
fn an_offset_that_is_given_twice_is_of_another_log() {
    let (log, offsets) = (Shared::default(), 10..20);
    let at = |offset| sent(&log, offset, 7);
    log.append(append(0..10, 7, 50));
    let number = |sequence| Some(Number { producer_id: 1, producer_epoch: 0, sequence });
    let numbered =
        |sequence, start_ns| Append { number: number(sequence), ..append(offsets.clone(), 7, start_ns) };
    log.append(numbered(3, 100));
    // Sent again though they had arrived.
    log.append(numbered(3, 500));
    assert_eq!([at(5), at(15)], [Sent::At(50), Sent::At(100)]);
    // At the other end, where attempts are not known.
    log.append(append(15..20, 8, 105));
    assert_eq!([at(5), at(15)], [Sent::At(50), Sent::At(100)]);
    log.append(append(offsets.clone(), 7, 95));
    assert_eq!(at(15), Sent::At(95));
    log.append(numbered(4, 600));
    assert_eq!([at(5), at(15)], [Sent::Unknown, Sent::At(600)]);
    log.append(append(12..14, 7, 700));
    assert_eq!([at(13), at(15)], [Sent::At(700), Sent::Unknown]);
    // By the topic's id.
    log.is(1);
    assert_eq!(at(13), Sent::At(700));
    log.is(2);
    assert_eq!(at(13), Sent::Unknown);
}

#[test]
fn what_a_request_may_bring_is_waited_for() {
    let appends = Appends::default();
    let log = appends.of(&place(0));
    let (held, lost) = (Sent::Sought(Arc::clone(&log)), Sent::Unknown);
    let at = |offset, now| log.find(sought(offset, now)).sent(7, &log);
    appends.append(&log, append(0..10, 7, 100));
    assert_eq!(at(10, Some(1000)), lost, "nobody sends");
    log.asked(request(1), 500);
    log.asked(request(2), 1001);
    assert_eq!([at(10, Some(1000)), at(10, Some(999 + PATIENCE_NS))], [held.clone(), held]);
    assert_eq!([at(10, Some(1000 + PATIENCE_NS)), at(10, None)], [lost.clone(), lost.clone()]);
    assert_eq!([at(-1, Some(1000)), at(5, Some(1000))], [lost.clone(), Sent::At(100)]);
    let before = appends.version();
    appends.append(&log, append(10..11, 7, 500));
    assert_eq!((appends.version(), at(10, Some(1000))), (before + 1, Sent::At(500)));
    appends.append(&log, append(11..12, 7, 510));
    assert_eq!(appends.version(), before + 1, "nobody waits");
    at(20, Some(1000));
    appends.answered(&log, request(1));
    assert_eq!((appends.version(), at(20, Some(1000))), (before + 2, lost), "the other began later");
}

/// Its answer was missed, or its client has given it up: producers wait half a minute by default.
#[test]
fn what_is_not_answered_for_long_is_waited_for_no_longer() {
    let log = Shared::default();
    let at = |delivered_ns| {
        let sought = Sought { delivered_ns, ..sought(10, Some(delivered_ns)) };
        log.find(sought).sent(7, &log)
    };
    log.asked(request(1), 500);
    assert_eq!(at(499 + REQUEST_NS), Sent::Sought(Arc::clone(&log)));
    assert_eq!([at(500 + REQUEST_NS), at(501)], [Sent::Unknown, Sent::Unknown], "it is forgotten");
}

#[test]
fn what_was_there_before_a_request_is_not_waited_for() {
    let log = Shared::default();
    log.append(append(10..20, 7, 100));
    log.asked(request(1), 105);
    assert_ne!(sent(&log, 5, 7), Sent::Unknown, "its response came later");
    assert!(!log.answered(request(2)) || sent(&log, 5, 7) != Sent::Unknown);
    log.answered(request(1));
    log.asked(request(3), 110);
    assert_eq!(sent(&log, 5, 7), Sent::Unknown);
    assert_ne!(sent(&log, 20, 7), Sent::Unknown);
}

#[test]
fn where_several_read_the_newest_are_waited_for() {
    let log = Shared::default();
    log.append(append(10..20, 7, 100));
    let held = Sent::Sought(Arc::clone(&log));
    let at = |offset, age_ns| {
        let sought = Sought { several: true, ..sought(offset, Some(1000 + age_ns)) };
        log.find(sought).sent(7, &log)
    };
    assert_eq!([at(9, 0), at(20, LATE_NS)], [Sent::Unknown, Sent::Unknown]);
    assert_eq!(at(20, LATE_NS - 1), held);
}

#[test]
fn where_several_read_the_first_are_waited_for() {
    let log = Shared::default();
    let at = |delivered_ns| {
        let sought = Sought { several: true, delivered_ns, ..sought(20, Some(delivered_ns)) };
        log.find(sought).sent(7, &log)
    };
    let (held, lost) = (Sent::Sought(Arc::clone(&log)), Sent::Unknown);
    let later = 1000 + LATE_NS;
    assert_eq!([at(1000), at(later - 1), at(later)], [held.clone(), held.clone(), lost], "nobody writes");
    log.append(append(10..20, 7, later));
    assert_eq!(at(later), held);
}

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * SECOND_NS;

/// How far a clock is set back: by a time server, or by hand.
const BACK_NS: [u64; 2] = [2 * SECOND_NS, HOUR_NS];

/// Looked for in a log of others, at this time; others read what producers send.
fn looked_for(log: &Shared, delivered_ns: u64, now_ns: u64) -> bool {
    let sought = Sought { several: true, delivered_ns, ..sought(20, Some(now_ns)) };
    log.find(sought).sent(7, log) == Sent::Sought(Arc::clone(log))
}

#[test]
fn what_came_before_the_clock_was_set_back_does_not_wait() {
    let log = Shared::default();
    log.append(append(10..20, 7, 100));
    log.asked(request(1), HOUR_NS - 3 * SECOND_NS);
    for back_ns in BACK_NS {
        assert!(!looked_for(&log, HOUR_NS, HOUR_NS - back_ns), "{back_ns}");
    }
    assert!(looked_for(&log, HOUR_NS, HOUR_NS - 100_000_000), "by so much times may differ");
}

#[test]
fn what_came_before_the_clock_was_set_back_forgets_no_request_that_came_after() {
    for back_ns in BACK_NS {
        let log = Shared::default();
        let now_ns = 2 * HOUR_NS - back_ns;
        log.asked(request(1), now_ns - 10);
        looked_for(&log, 2 * HOUR_NS, now_ns);
        let sought = Sought { delivered_ns: now_ns, ..sought(20, Some(now_ns)) };
        assert_eq!(log.find(sought).sent(7, &log), Sent::Sought(Arc::clone(&log)), "{back_ns}");
    }
}

#[test]
fn a_request_from_before_the_clock_was_set_back_is_forgotten() {
    let log = Shared::default();
    log.asked(request(1), 2 * HOUR_NS);
    looked_for(&log, HOUR_NS, HOUR_NS);
    assert!(!looked_for(&log, HOUR_NS + LATE_NS, HOUR_NS + LATE_NS), "nobody writes");
}

#[test]
fn nobody_who_is_behind_forgets_anothers_request() {
    let log = Shared::default();
    log.asked(request(1), HOUR_NS);
    looked_for(&log, HOUR_NS - 2 * SECOND_NS, HOUR_NS - 2 * SECOND_NS);
    let sought = Sought { delivered_ns: HOUR_NS, ..sought(20, Some(HOUR_NS)) };
    assert_eq!(log.find(sought).sent(7, &log), Sent::Sought(Arc::clone(&log)));
}

/// It has long been known that no process of this host writes.
#[test]
fn nothing_is_the_first_again_where_the_clock_was_set_back() {
    for back_ns in BACK_NS {
        let log = Shared::default();
        assert!(looked_for(&log, 2 * HOUR_NS, 2 * HOUR_NS));
        let now_ns = 2 * HOUR_NS - back_ns;
        assert!(!looked_for(&log, now_ns, now_ns), "{back_ns}");
    }
}

#[test]
fn appends_of_a_log_are_bounded_and_what_made_room_is_known() {
    let appends = Appends::default();
    let log = appends.of(&place(0));
    for offset in 0..MAX_APPENDS as i64 + 10 {
        appends.append(&log, append(offset..offset + 1, 7, 100));
    }
    assert_eq!(appends.len.load(Ordering::Relaxed), MAX_APPENDS);
    let is_forgotten = |offset| log.find(sought(offset, Some(1000))).is_forgotten();
    assert_eq!([-1, 0, 9, 10, 99_999].map(is_forgotten), [false, true, true, false, false]);
    assert_eq!(sent(&log, 10, 7), Sent::At(100));
}

#[test]
fn appends_of_all_logs_are_bounded() {
    let appends = Appends::default();
    let logs: Vec<_> = (0..100).map(|partition| appends.of(&place(partition))).collect();
    for (log, offset) in logs.iter().flat_map(|log| (0..MAX_APPENDS as i64).map(move |at| (log, at))) {
        appends.append(log, append(offset..offset + 1, 7, 100));
    }
    let len = || appends.len.load(Ordering::Relaxed);
    assert!(len() <= MAX_IN_ALL && len() > MAX_IN_ALL / 2, "{}", len());
    assert_eq!(len(), logs.iter().map(|log| log.end()).sum::<usize>());
}

#[test]
fn logs_are_bounded_and_the_one_used_least_recently_is_evicted() {
    let appends = Appends::default();
    let (first, used) = (appends.of(&place(0)), appends.of(&place(1)));
    for partition in 2..=MAX_LOGS as i32 {
        appends.append(&appends.of(&place(partition)), append(0..1, 7, 100));
        assert!(Arc::ptr_eq(&appends.find([place(1)]).unwrap(), &used));
    }
    assert_eq!((appends.take_evicted(), appends.take_evicted()), (1, 0));
    assert!(appends.find([place(0)]).is_none());
    // Who still has one that is evicted notes nothing in it.
    appends.append(&first, append(50..60, 7, 100));
    let len: usize = appends.by_place().iter().map(|(_, log)| log.end()).sum();
    assert_eq!((appends.len.load(Ordering::Relaxed), len), (MAX_LOGS - 1, MAX_LOGS - 1));
}

#[test]
fn a_delivery_ends_with_all_of_its_bytes_and_none_before_it_was_sent() {
    let mut passage = samples::delivered().passage;
    let start_ns = passage.start_ns;
    let mut end_to_end_ns = |sent_ns, end_ns| {
        if let Kind::Delivered { sent, .. } = &mut passage.kind {
            *sent = Sent::At(sent_ns);
        }
        passage.end_ns = end_ns;
        passage.end_to_end_ns()
    };
    assert_eq!(end_to_end_ns(start_ns - 10, start_ns + 5), Some(15));
    // The segment with the last byte overtook the one with the first.
    assert_eq!(end_to_end_ns(start_ns - 10, start_ns - 5), Some(10));
    assert_eq!(end_to_end_ns(start_ns + 10, start_ns + 5), None, "by another host's clock");
}
