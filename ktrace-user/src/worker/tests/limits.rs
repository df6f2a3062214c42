//! What goes first when memory or CPU time is short.

use super::*;
use crate::hop::groups::{Client, Heard, Line, Speaker};
use crate::hop::store::Knowledge as _;
use crate::losses::Reason;

/// Most of a Produce request of this size, its rest still to come.
fn begin_frame(watched: &mut Watched, socket: u64, bytes: usize) {
    watched.socket.0 = socket;
    let ends = ends(4000 + socket as u16);
    let connection = ConnectionId(socket);
    watched.worker.event(Event::Opened { connection, ends, side: Side::Client, owner: None });
    // In step with a first exchange.
    watched.exchange(ends, (100, 200), socket as i64);
    let mut request = produce(6, "orders", &[]);
    request[..4].copy_from_slice(&(bytes as u32 + 1000).to_be_bytes());
    request.resize(bytes, 0);
    let at = 100 + produce(5, "orders", &[]).len() as u32;
    let answered = 200 + produced(5, "orders", 0).len() as u32;
    for (piece, part) in request.chunks(60_000).enumerate() {
        watched.segment(ends, Direction::ToBroker, at + piece as u32 * 60_000, answered, part);
    }
}

#[test]
fn the_heaviest_connection_gives_up_its_frame_first() {
    let shared = Arc::new(Shared::default());
    shared.may_hold(4 << 20);
    let mut watched = Watched::with(WorkerOptions::default(), &shared);
    begin_frame(&mut watched, 1, 1 << 20);
    begin_frame(&mut watched, 2, 2 << 20);
    let held = |watched: &Watched, id| watched.worker.connections[&ConnectionId(id)].kafka.held_bytes();
    assert!(held(&watched, 1) >= 1 << 20 && held(&watched, 2) >= 2 << 20);
    begin_frame(&mut watched, 3, (3 << 19) + (1 << 18));
    assert!(held(&watched, 2) < 1 << 16, "the heaviest");
    assert!(held(&watched, 1) >= 1 << 20 && held(&watched, 3) >= 1 << 20);
    assert_eq!(watched.offsets(), [1, 2, 3]);
    let totals = watched.worker.finish();
    assert_eq!(totals.lost["memory_limit"], 1);
    assert!(!shared.memory.is_over() && shared.memory.surplus() == 0);
}

#[test]
fn waiting_hops_go_next_and_silent_connections_last() {
    let shared = Arc::new(Shared::default());
    let mut watched = Watched::with(WorkerOptions { sides: Sides::Both, ..Default::default() }, &shared);
    watched.socket.1 = Side::Broker;
    for socket in 1..=100 {
        watched.socket.0 = socket;
        watched.exchange(ends(4000 + socket as u16), (100, 200), socket as i64);
    }
    assert!(watched.offsets().is_empty(), "held while the other ends are sought");
    let unused = watched.worker.connections.capacity() - 100;
    let connections = watched.worker.held_bytes + 100 * memory::CONNECTION_BYTES + unused * PLACE_BYTES;
    shared.may_hold(connections * 6 / 5);
    watched.wait(SWEEP_NS);
    assert_eq!(watched.offsets().len(), 100);
    assert_eq!(watched.worker.connections.len(), 100);
    shared.may_hold(connections * 3 / 5);
    watched.wait(SWEEP_NS);
    let left = watched.worker.connections.len();
    assert!((40..=60).contains(&left), "{left}");
    assert!(watched.worker.connections.contains_key(&ConnectionId(100)), "it spoke last");
    let totals = watched.worker.finish();
    assert_eq!(totals.lost["connection_forgotten"], 100 - left as u64);
}

/// One worker does not pay for another's load.
#[test]
fn who_holds_less_than_its_part_gives_nothing_up() {
    let shared = Arc::new(Shared::default());
    shared.may_hold(4 << 20);
    let mut light = Watched::with(WorkerOptions::default(), &shared);
    let mut heavy = Watched::with(WorkerOptions::default(), &shared);
    begin_frame(&mut light, 1, 1 << 20);
    begin_frame(&mut heavy, 2, (3 << 20) + (1 << 19));
    light.wait(SWEEP_NS);
    assert!(light.worker.connections[&ConnectionId(1)].kafka.held_bytes() >= 1 << 20);
    assert_eq!(light.worker.finish().lost.get("memory_limit"), None);
    assert_eq!(heavy.worker.finish().lost["memory_limit"], 1);
}

#[test]
fn past_the_cpu_limit_the_same_traces_are_skipped_first_and_counted() {
    let shared = Arc::new(Shared::default());
    let mut watched = Watched::with(WorkerOptions::default(), &shared);
    let (asked, answered) = (produce(5, "orders", &[]).len() as u32, produced(5, "orders", 0).len() as u32);
    let mut next = (100, 200);
    let mut run = |watched: &mut Watched, keep: f64| {
        shared.keep(Sampling::new(keep));
        watched.wait(SWEEP_NS);
        watched.hops().clear();
        for offset in 0..100 {
            watched.exchange(ends(4000), next, offset);
            next = (next.0 + asked, next.1 + answered);
        }
        watched.offsets()
    };
    let all = run(&mut watched, 1.0);
    let (half, few) = (run(&mut watched, 0.5), run(&mut watched, 0.1));
    assert_eq!(all.len(), 100);
    assert!((30..70).contains(&half.len()) && (1..30).contains(&few.len()), "{half:?} {few:?}");
    assert!(few.iter().all(|offset| half.contains(offset)));
    let skipped = 200 - half.len() - few.len();
    assert_eq!(watched.worker.finish().lost, [("cpu_limit", skipped as u64)].into());
}

/// What one worker's traffic pushes out is counted once, by whichever worker looks.
#[test]
fn what_makes_room_in_what_all_know_is_a_loss() {
    let shared = Arc::new(Shared::default());
    let one = Watched::with(WorkerOptions::default(), &shared);
    let mut other = Watched::with(WorkerOptions::default(), &shared);
    shared.groups.write_quiet(|groups| groups.hold_at_most(0.0));
    let client = Client { speaker: Speaker::Process(1), id: None };
    let line = Line { connection: ConnectionId(1), broker: ends(1).broker };
    for now_ns in 1..=10 {
        let heard = Heard { client: &client, line, now_ns };
        shared.groups.update(|groups| groups.assignment_begins(heard, "a", &now_ns.to_string(), 1));
    }
    other.wait(SWEEP_NS);
    let lost = |worker: Worker| worker.finish().lost.get("member_forgotten").copied().unwrap_or(0);
    assert_eq!(
        shared.losses().find(|(reason, _)| *reason == Reason::MemberForgotten),
        Some((Reason::MemberForgotten, 9))
    );
    assert_eq!([lost(one.worker), lost(other.worker)], [0, 9]);
}

/// They were within the limit when they came.
#[test]
fn what_waits_is_held_against_the_limits_again() {
    let shared = Arc::new(Shared::default());
    let options = WorkerOptions { sides: Sides::Both, ..WorkerOptions::default() };
    let mut watched = Watched::with(options, &shared);
    let (request, answer) = sharing::by_id(42);
    watched.talk(ends(4000), (100, 200), &request, &answer);
    assert!(watched.offsets().is_empty(), "its topic is not known");
    shared.keep(Sampling::new(0.0));
    watched.wait(20_000_000_000);
    assert!(watched.offsets().is_empty());
    assert_eq!(watched.worker.finish().lost["cpu_limit"], 1);
}
