//! Which TLS connections the programs copy on the running kernel, whether their first data wakes the reader,
//! and whose they are. No TLS library: only the headers of records matter to the programs. Needs root; says
//! so and passes without it, but not in CI.

mod host;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ktrace_user::capture::{Live, LiveOptions, TakenPorts};
use ktrace_user::seen::{Direction, Event, Side};

/// When to give up: only a test that has failed takes so long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection between two threads of this process, one of which is in `there`.
struct Line {
    here: TcpStream,
    there: TcpStream,
}

impl Line {
    fn open(listener: &TcpListener) -> Self {
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (there, _) = listener.accept().unwrap();
        for end in [&here, &there] {
            end.set_nodelay(true).unwrap();
        }
        Self { here, there }
    }

    /// The client sends, and the server has got it when this returns.
    fn ask(&mut self, bytes: &[u8]) {
        self.here.write_all(bytes).unwrap();
        self.there.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.there.write_all(bytes).unwrap();
        self.here.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn client(&self) -> SocketAddr {
        self.here.local_addr().unwrap()
    }
}

/// A record of this type, with a body that differs everywhere.
fn record(kind: u8, length: u16) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend(length.to_be_bytes());
    record.extend((0..length).map(|n| (n >> 3) as u8 ^ n as u8 | 1));
    record
}

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// The bytes of a connection, both ways, as they were captured at one end.
type Seen = [Vec<u8>; 2];

/// The process that was known of the captured socket when the first data of a connection came.
type Owners = HashMap<(SocketAddr, Side), Option<u32>>;

struct Capture {
    stop: Arc<AtomicBool>,
    owners: Arc<Mutex<Owners>>,
    seen: Arc<Mutex<HashMap<(SocketAddr, Side), Seen>>>,
    taken: TakenPorts,
    thread: JoinHandle<()>,
}

impl Capture {
    fn start(ports: &str, tls: Option<&str>) -> Self {
        let mut live = Live::open(LiveOptions {
            ports: ports.parse().unwrap(),
            tls: tls.map(|ports| ports.parse().unwrap()),
            broker_end: true,
            ..LiveOptions::default()
        })
        .unwrap_or_else(|error| panic!("{error}: {}", error.advice()));
        let taken = live.taken_ports();
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<HashMap<_, Seen>>> = Arc::default();
        let owners: Arc<Mutex<Owners>> = Arc::default();
        let (until, into, known) = (Arc::clone(&stop), Arc::clone(&seen), Arc::clone(&owners));
        let thread = thread::spawn(move || {
            let mut pids = HashMap::new();
            let each = |event: Event<'_>| match event {
                Event::Opened { ends, side, owner, .. } => {
                    pids.insert((ends.client, side), owner.map(|owner| owner.pid));
                }
                Event::Segment(segment) if !segment.push.bytes.is_empty() => {
                    let key = (segment.ends.client, segment.side);
                    let pid = || pids.get(&key).copied().flatten();
                    known.lock().unwrap().entry(key).or_insert_with(pid);
                    let mut seen = into.lock().unwrap();
                    let of = seen.entry(key).or_default();
                    of[usize::from(segment.push.direction == Direction::ToClient)].extend(segment.push.bytes);
                }
                _ => {}
            };
            live.run(&until, each).unwrap();
        });
        Self { stop, owners, seen, taken, thread }
    }

    /// Ends it; what was seen of a connection at each of its ends.
    fn stop(self, client: SocketAddr) -> [Seen; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let mut seen = self.seen.lock().unwrap();
        [Side::Client, Side::Broker].map(|side| seen.remove(&(client, side)).unwrap_or_default())
    }
}

/// A conversation from its first byte on; gives what has passed.
fn converse(line: &mut Line) -> Seen {
    let mut passed = Seen::default();
    let mut ask = |line: &mut Line, bytes: Vec<u8>| {
        line.ask(&bytes);
        passed[0].extend(bytes);
    };
    ask(line, record(HANDSHAKE, 512));
    let flight = [record(HANDSHAKE, 90), record(DATA, 3000)].concat();
    line.answer(&flight);
    ask(line, [record(20, 1), record(DATA, 69)].concat());
    let mut answers = flight;
    for number in 0..100 {
        ask(line, record(DATA, 100 + number * 100));
        let answer = record(DATA, 16 + number * 150);
        line.answer(&answer);
        answers.extend(answer);
    }
    passed[1] = answers;
    passed
}

#[test]
fn tls_on_a_port_that_was_named_is_copied_whole_at_both_ends() {
    let Some(_alone) = host::alone() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (ports, tls) in [("auto".to_owned(), format!("auto,{port}")), (port.to_string(), port.to_string())] {
        let capture = Capture::start(&ports, Some(&tls));
        let mut line = Line::open(&listener);
        let passed = converse(&mut line);
        for seen in capture.stop(line.client()) {
            assert!(seen == passed, "{ports}: {:?} of {:?}", seen.map(|s| s.len()), passed.map(|p| p.len()));
        }
    }
}

#[test]
fn an_older_connection_is_copied_from_its_next_record_on() {
    let Some(_alone) = host::alone() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut line = Line::open(&listener);
    converse(&mut line);
    let capture = Capture::start("auto", Some(&format!("auto,{}", listener.local_addr().unwrap().port())));
    let (question, answer) = (record(DATA, 300), record(DATA, 9000));
    line.ask(&question);
    line.answer(&answer);
    for seen in capture.stop(line.client()) {
        assert!(seen == [question.clone(), answer.clone()], "{:?}", seen.map(|way| way.len()));
    }
}

/// A response that names the port is read some milliseconds after the client has it, which connects at once.
#[test]
fn a_learned_port_is_taken_from_older_connections_too() {
    let Some(_alone) = host::alone() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for tls in [None, Some("auto")] {
        let capture = Capture::start("auto", tls);
        let mut line = Line::open(&listener);
        line.ask(&record(HANDSHAKE, 512));
        line.answer(&record(HANDSHAKE, 512));
        line.ask(&record(DATA, 69));
        capture.taken.take(port);
        let (question, answer) = (record(DATA, 300), record(DATA, 9000));
        // The port is taken a moment later.
        let deadline = Instant::now() + if tls.is_some() { PATIENCE } else { Duration::from_millis(300) };
        let key = (line.client(), Side::Client);
        let mut asked = 0;
        while !capture.seen.lock().unwrap().contains_key(&key) && Instant::now() < deadline {
            line.ask(&question);
            asked += 1;
            thread::sleep(Duration::from_millis(5));
        }
        line.answer(&answer);
        let [client, broker] = capture.stop(line.client());
        if tls.is_none() {
            assert!(client[0].is_empty() && broker[0].is_empty(), "its first bytes were none of Kafka's");
            continue;
        }
        for seen in [client, broker] {
            assert!(!seen[0].is_empty() && seen[0].len() <= asked * question.len());
            assert!(seen[0].starts_with(&question) && seen[1] == answer);
        }
    }
}

/// The proxy's port was named: TLS behind it is Kafka's.
#[test]
fn tls_behind_a_proxy_whose_port_was_named_is_copied_whole() {
    let Some(_alone) = host::alone() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let capture = Capture::start("auto", Some(&format!("auto,{port}")));
    let mut line = Line::open(&listener);
    let (connect, granted) =
        (b"CONNECT broker:9093 HTTP/1.1\r\n\r\n".to_vec(), b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    line.ask(&connect);
    line.answer(&granted);
    let passed = converse(&mut line);
    for seen in capture.stop(line.client()) {
        assert!(seen[0] == [connect.clone(), passed[0].clone()].concat());
        assert!(seen[1] == [granted.clone(), passed[1].clone()].concat());
    }
}

/// Also of a connection that ends at once: no search of its own finds that.
#[test]
fn who_accepts_is_known_with_the_first_data() {
    let Some(_alone) = host::alone() else { return };
    let own = std::process::id();
    let before = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let capture = Capture::start("auto", Some("auto,1-65535"));
    let ask = |listener: &TcpListener| {
        let mut line = Line::open(listener);
        line.ask(&record(HANDSHAKE, 512));
        let key = (line.client(), Side::Broker);
        drop(line);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = capture.owners.lock().unwrap().get(&key) {
                return *pid;
            }
            assert!(Instant::now() < deadline, "the connection was not seen");
            thread::sleep(Duration::from_millis(2));
        }
    };
    for _ in 0..20 {
        assert_eq!(ask(&before), Some(own));
    }
    // One that began to listen since: its first connection has it searched for.
    let after = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_ne!(port(&after), port(&before));
    let deadline = Instant::now() + PATIENCE;
    while ask(&after) != Some(own) {
        assert!(Instant::now() < deadline, "it was not found");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ask(&after), Some(own));
    capture.stop.store(true, Ordering::Relaxed);
    capture.thread.join().unwrap();
}

/// How long it took from each connection's first application data to the reader, with and without being
/// woken. Only printed: times say nothing on a busy machine.
#[test]
fn first_data_wakes_the_reader() {
    let Some(_alone) = host::alone() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for tls in [None, Some(port.as_str())] {
        let (stop, times) = watch_first_data(&port, tls);
        let mut delays = Vec::new();
        for _ in 0..30 {
            let mut line = Line::open(&listener);
            line.ask(&record(HANDSHAKE, 512));
            line.answer(&record(HANDSHAKE, 2000));
            // The reader sleeps by now.
            thread::sleep(Duration::from_millis(120));
            line.ask(&record(DATA, 200));
            delays.push(times.recv_timeout(PATIENCE).expect("the data was not seen"));
        }
        stop();
        delays.sort_unstable();
        let of = |part: usize| delays[delays.len() * part / 100].as_secs_f64() * 1e3;
        println!("first data to reader, woken {}: p50 {:.2} ms, p90 {:.2} ms", tls.is_some(), of(50), of(90));
    }
}

/// Captures clients' ends; how long each record of application data took from its packet to the reader.
fn watch_first_data(ports: &str, tls: Option<&str>) -> (impl FnOnce(), Receiver<Duration>) {
    let mut live = Live::open(LiveOptions {
        ports: ports.parse().unwrap(),
        tls: tls.map(|ports| ports.parse().unwrap()),
        ..LiveOptions::default()
    })
    .unwrap();
    let (sender, times) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let each = |event: Event<'_>| {
            if let Event::Segment(segment) = event
                && segment.push.bytes.first() == Some(&DATA)
            {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                sender.send(now.saturating_sub(Duration::from_nanos(segment.push.time_ns))).unwrap();
            }
        };
        live.run(&until, each).unwrap();
    });
    let stop = move || {
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    };
    (stop, times)
}
