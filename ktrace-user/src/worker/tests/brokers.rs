//! Brokers that responses name, for TLS.

use super::*;

/// Metadata v1 with these brokers, without topics.
fn metadata(brokers: &[(&str, i32)]) -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&[0, 3, 0, 1, 0, 0, 0, 5], &text("me"), &[0; 4]]);
    let broker = |(host, port): &(&str, i32)| {
        [&[0, 0, 0, 1][..], &text(host), &port.to_be_bytes(), &[0xff, 0xff]].concat()
    };
    let named: Vec<u8> = brokers.iter().flat_map(broker).collect();
    let count = (brokers.len() as u32).to_be_bytes();
    (request, framed(&[&[0, 0, 0, 5], &count, &named, &[0, 0, 0, 1], &[0; 4]]))
}

/// FindCoordinator v1 of group `g`.
fn coordinator(host: &str, port: i32, error: u8) -> (Vec<u8>, Vec<u8>) {
    let request = framed(&[&[0, 10, 0, 1, 0, 0, 0, 6], &text("me"), &text("g"), &[0]]);
    let answer = framed(&[
        &[0, 0, 0, 6],
        &[0; 4],
        &[0, error, 0xff, 0xff, 0, 0, 0, 1],
        &text(host),
        &port.to_be_bytes(),
    ]);
    (request, answer)
}

/// What the kernel side is given of two exchanges, and the brokers that are known then.
fn learn(learns: bool) -> (Vec<u16>, Arc<Shared>) {
    let shared = Arc::new(Shared::default());
    let taken = Arc::new(Mutex::new(vec![]));
    if learns {
        let into = Arc::clone(&taken);
        shared.brokers.learn_by(move |port| into.lock().unwrap().push(port));
    }
    let mut watched = Watched::with(WorkerOptions::default(), &shared);
    let owner = Arc::new(Process { pid: 7, ..Process::default() });
    watched.worker.event(Event::Opened {
        connection: ConnectionId(1),
        ends: ends(4000),
        side: Side::Client,
        owner: Some(owner),
    });
    let (mut client, mut broker) = (100, 200);
    for (request, answer) in [
        metadata(&[("10.0.0.3", 31093), ("kafka-1.example", 31094), ("kafka-2.example", 443), ("", -1)]),
        coordinator("10.0.0.4", 31095, 0),
        coordinator("", -1, 15),
    ] {
        watched.talk(ends(4000), (client, broker), &request, &answer);
        (client, broker) = (client + request.len() as u32, broker + answer.len() as u32);
    }
    assert_eq!(watched.worker.finish().exchanges, 3);
    let taken = taken.lock().unwrap().clone();
    (taken, shared)
}

#[test]
fn ports_of_brokers_are_learned_where_tls_may_be_opened() {
    let (taken, shared) = learn(true);
    assert_eq!(taken, [31093, 31094, 31095]);
    let options = TlsOptions { source: TlsSource::Memory, ..TlsOptions::default() };
    let opens = |broker: ([u8; 4], u16), pid| {
        let ends = Ends { broker: broker.into(), ..ends(4001) };
        let owner = Process { pid, ..Process::default() };
        shared.brokers.may_open(&ends, Some(&owner), false, &options)
    };
    assert_eq!(opens(([10, 0, 0, 3], 31093), 8), Opening::Yes);
    assert_eq!(opens(([10, 0, 0, 4], 31095), 8), Opening::Yes);
    assert_eq!(opens(([10, 0, 0, 4], 31093), 8), Opening::No);
    assert_eq!(opens(([10, 0, 0, 9], 31094), 7), Opening::Yes, "it was given the name");
    assert_eq!(opens(([10, 0, 0, 9], 31094), 8), Opening::No);
    assert_eq!(opens(([10, 0, 0, 9], 443), 7), Opening::No);
    assert!(learn(false).0.is_empty(), "else none are");
}
