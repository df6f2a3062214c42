//! What is missing of a connection, and what is not read of it.

use super::*;
use crate::losses::Lossy;
use crate::seen::Process;
use crate::span::Resource;

fn truncated(watched: &Watched) -> Vec<bool> {
    watched.hops().iter().map(|hop| hop.passage.truncated).collect()
}

#[test]
fn the_first_messages_behind_a_gap_say_so() {
    let mut watched = Watched::new(Sampling::default());
    open(&mut watched, ends(4000));
    watched.exchange(ends(4000), (100, 200), 42);
    let (asked, answered) = (produce(5, "orders", &[]).len() as u32, produced(5, "orders", 0).len() as u32);
    // A whole exchange is missing.
    let (mut client, mut broker) = (100 + 2 * asked, 200 + 2 * answered);
    for offset in [44, 45] {
        watched.exchange(ends(4000), (client, broker), offset);
        (client, broker) = (client + asked, broker + answered);
    }
    assert_eq!(watched.offsets(), [42, 44, 45]);
    assert_eq!(truncated(&watched), [false, true, false]);
    let shared = Arc::clone(&watched.worker.world.shared);
    let totals = watched.worker.finish();
    let lossy = Lossy {
        service: "me".into(),
        client: "10.0.0.1:4000".into(),
        broker: "10.0.0.2:9092".into(),
        gaps: 2,
        gap_bytes: u64::from(asked + answered),
    };
    assert_eq!(totals.lossy, [lossy]);
    assert_eq!(totals.lost["gap_bytes"], u64::from(asked + answered));
    let published = shared.losses().filter(|(_, count)| *count > 0);
    assert_eq!(
        published.map(|(reason, count)| (reason.name(), count)).collect::<BTreeMap<_, _>>(),
        totals.lost
    );
}

#[test]
fn a_mark_waits_for_a_message_that_is_shown() {
    let mut missed = connection::missed::Missed::default();
    assert!(!missed.show());
    missed.gap(1);
    // Exchanges without messages, or whose messages are not sampled.
    missed.exchange();
    missed.exchange();
    assert!(missed.show() && missed.show());
    missed.exchange();
    assert!(!missed.show());
}

fn tls(socket: u64, owner: Option<&str>, shared: &Arc<Shared>) -> Watched {
    let mut watched = Watched::with(WorkerOptions::default(), shared);
    let resource = owner.map(|name| {
        let name = Value::from(name.to_owned());
        Arc::new(Resource::new(vec![("service.name".into(), name)]))
    });
    let owner = resource.map(|resource| Arc::new(Process { pid: 7, resource, ..Process::default() }));
    watched.socket.0 = socket;
    let connection = ConnectionId(socket);
    watched.worker.event(Event::Opened { connection, ends: ends(4000), side: Side::Client, owner });
    for at in 0..2 {
        watched.segment(ends(4000), Direction::ToBroker, 100 + at * 7, 200, &[23, 3, 3, 0, 2, 9, 9]);
    }
    watched
}

#[test]
fn tls_is_counted_by_service_and_no_gap() {
    let shared = Arc::new(Shared::default());
    let mut billing = tls(1, Some("billing"), &shared);
    billing.wait(SWEEP_NS);
    let billing_again = tls(2, Some("billing"), &shared).worker.finish();
    let mut stranger = tls(3, None, &shared);
    stranger.wait(SWEEP_NS);
    let unread = |count: u64| [("tls".to_owned(), count)].into();
    assert_eq!(shared.tls(), [("billing".to_owned(), unread(2))].into(), "its owner may still be found");
    stranger.wait(OWNER_NS);
    let all = [("10.0.0.1".to_owned(), unread(1)), ("billing".to_owned(), unread(2))];
    assert_eq!(shared.tls(), all.into());
    let totals = billing.worker.finish();
    assert_eq!((&totals.tls, &totals.tls), (&[("billing".to_owned(), 1)].into(), &billing_again.tls));
    assert_eq!(totals.lost, [("tls", 1)].into());
}
