//! Searches of this process's own memory, and of what is given in place of it.

use std::sync::Arc;

use memchr::memmem;

use super::super::memory::tests::alone;
use super::super::schedule::tests::expand;
use super::super::trial::tests::{key, sealed};
use super::*;
use crate::process::start_time;
use crate::seen::{Ends, Process};

fn searcher() -> Searcher {
    Searcher {
        shared: Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            answers: vec![Answers::default()],
            stats: Counted::default(),
        }),
        buffer: Buffer::new().unwrap(),
        budget: Budget::new(1.0, Instant::now()),
        kept: HashMap::new(),
        audit: Audit::default(),
        say: |_| {},
        unknown: Closed::Ended,
    }
}

fn own() -> Arc<Process> {
    let pid = std::process::id();
    Arc::new(Process { pid, start_time: start_time(pid).unwrap(), ..Process::default() })
}

fn ask(samples: Samples) -> Ask {
    let ends = Ends { client: "[::1]:5".parse().unwrap(), broker: "[::1]:9093".parse().unwrap() };
    let delay = Duration::ZERO;
    Ask { connection: ConnectionId(1), worker: 0, process: own(), ends, samples, delay }
}

/// Where this process has these bytes, but for the searcher's buffer and the bytes themselves.
fn places(bytes: &[u8], searcher: &Searcher) -> Vec<u64> {
    let own = own();
    let target = Target { pid: own.pid, started: own.start_time };
    let mut buffer = Buffer::new().unwrap();
    let range = |bytes: &[u8]| bytes.as_ptr() as u64..bytes.as_ptr() as u64 + bytes.len() as u64;
    let not = [range(&buffer), range(bytes)];
    let mut places = Vec::new();
    memory::read(target, &mut buffer, |piece| {
        let found = memmem::find_iter(piece.bytes, bytes).map(|at| piece.address + at as u64);
        places.extend(found.filter(|at| !not.iter().any(|range| range.contains(at))));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(searcher.buffer.iter().all(|byte| *byte == 0), "the buffer is overwritten");
    places.sort_unstable();
    places.dedup();
    places
}

/// Records that come while memory is read are tried with what was found before them.
#[test]
fn a_record_that_comes_late_is_tried_with_all_keys() {
    let searcher = searcher();
    let shared = &searcher.shared;
    let [of_client, of_server] = [key(0x51), key(0x52)];
    let samples = Samples { client: vec![sealed(&of_client, 1)], server: Vec::new() };
    assert!(shared.state().asked.ask(ask(samples), Instant::now()).is_none());
    let target = shared.state().asked.due(Instant::now()).unwrap().target;
    let mut candidates = Candidates::default();
    let wanted = shared.state().asked.wanted(target);
    let allowed = Cell::new(TRIALS);
    let mut pass = Pass {
        shared,
        target,
        wanted,
        number: 0,
        candidates: &mut candidates,
        missed: false,
        allowed,
        keys: 0,
    };
    let look = |pass: &mut Pass<'_>, key: u8| pass.look(&Piece { address: 0, bytes: &expand(&[key; 32]) });
    assert!(look(&mut pass, 0x52).is_continue());
    let late = Samples { client: Vec::new(), server: vec![sealed(&of_server, 2)] };
    assert!(shared.state().asked.more(ConnectionId(1), late, Instant::now()));
    // Nothing is wanted any more once both are found, and reading ends.
    assert!(look(&mut pass, 0x53).is_continue() && look(&mut pass, 0x51).is_continue());
    assert_eq!(pass.keys, 1);
    pass.again();
    assert_eq!(pass.keys, 2);
    assert!(!shared.state().asked.wants_of(target));
    assert!(look(&mut pass, 0x54).is_break());
}

/// The search's whole purpose, and that it leaves nothing else: on memory of this process, in which
/// a schedule lies that is of use and one that is not.
#[test]
fn keys_that_open_nothing_are_overwritten() {
    let _alone = alone();
    // Not what another test has as a key.
    let (of_client, of_server) = (key(0xa7), key(0xb3));
    let other = b"a secret of some other connectio";
    let schedules = [expand(&[0xa7; 32]), expand(&[0xb3; 32]), expand(other)];
    let mut searcher = searcher();
    let before = places(other, &searcher);
    assert!(!before.is_empty());

    let mut answers = Vec::new();
    let mut turn = |searcher: &mut Searcher, samples: Samples| {
        let shared = Arc::clone(&searcher.shared);
        assert!(shared.state().asked.ask(ask(samples), Instant::now()).is_none());
        let due = shared.state().asked.due(Instant::now()).unwrap();
        searcher.turn(&due, thread_time());
        shared.answers[0].list.lock().unwrap().drain(..).for_each(|answer| match answer {
            Answer::Key { key, .. } => answers.push((key.sender, key.seq)),
            Answer::Nothing { .. } => panic!("not the last search"),
        });
    };
    let client = |number| vec![sealed(&of_client, number)];
    let server = |number| vec![sealed(&of_server, number)];
    turn(&mut searcher, Samples { client: client(1), server: server(2) });
    assert!(searcher.kept.is_empty());
    assert!(places(other, &searcher).iter().all(|at| before.contains(at)));

    // A direction has no record yet: they are kept for a moment.
    turn(&mut searcher, Samples { client: client(3), server: Vec::new() });
    assert_eq!(searcher.kept.len(), 1);
    assert!(places(other, &searcher).iter().any(|at| !before.contains(at)));
    let shared = Arc::clone(&searcher.shared);
    let samples = Samples { client: Vec::new(), server: server(4) };
    assert!(shared.state().asked.more(ConnectionId(1), samples, Instant::now()));
    let due = shared.state().asked.due(Instant::now()).unwrap();
    let searches = shared.stats.searches.load(Ordering::Relaxed);
    searcher.turn(&due, thread_time());
    assert_eq!(shared.stats.searches.load(Ordering::Relaxed), searches, "no memory was read");
    assert!(!shared.state().asked.wants_of(due.target));
    searcher.kept.clear();
    assert!(places(other, &searcher).iter().all(|at| before.contains(at)));

    use ktrace_tls::Sender::{Client, Server};
    answers.sort_by_key(|(_, seq)| *seq);
    assert_eq!(answers, [(Client, 1), (Server, 2), (Client, 3)]);
    drop(schedules);
}
