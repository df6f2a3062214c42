//! The programs on the running kernel: plain TCP through loopback, no Kafka. Needs root; says so and passes without it, but not in CI.

mod host;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_common::Counter;
use ktrace_kafka::Push;
use ktrace_user::capture::{Counters, Live, LiveOptions, PortSet, probe};
use ktrace_user::seen::{ConnectionId, Direction, Ends, Event, Segment};
use ktrace_user::worker::TlsOptions;

/// When to give up: only a test that has failed takes so long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen of one connection.
#[derive(Default)]
struct Seen {
    ends: Vec<(Ends, Option<u32>)>,
    opened_first: bool,
    /// Runs of bytes by direction and sequence number.
    runs: [BTreeMap<u32, Vec<u8>>; 2],
    /// Sequence number of the SYN, by direction.
    syn: [Option<u32>; 2],
    /// Bytes that came more than once.
    repeated: usize,
    fin: [bool; 2],
    closed: bool,
    largest: usize,
}

impl Seen {
    fn segment(&mut self, segment: &Segment<'_>) {
        let Push { direction, seq, syn, fin, bytes, len, .. } = segment.push;
        let way = usize::from(direction == Direction::ToClient);
        if self.runs.iter().all(BTreeMap::is_empty) && self.syn == [None, None] {
            self.opened_first = !self.ends.is_empty();
        }
        if syn {
            self.syn[way] = Some(seq);
        }
        self.fin[way] |= fin;
        self.largest = self.largest.max(bytes.len());
        assert_eq!(bytes.len(), len as usize);
        if !bytes.is_empty()
            && let Some(before) = self.runs[way].insert(seq, bytes.to_vec())
        {
            self.repeated += before.len();
        }
    }

    /// The bytes of a direction from its first one on, up to a gap.
    fn bytes(&self, direction: Direction) -> Vec<u8> {
        let way = usize::from(direction == Direction::ToClient);
        let mut bytes = Vec::new();
        let syn = self.syn[way].map(|syn| syn.wrapping_add(1));
        let Some(first) = syn.or(self.runs[way].keys().next().copied()) else { return bytes };
        while let Some(run) = self.runs[way].get(&first.wrapping_add(bytes.len() as u32)) {
            bytes.extend(run);
        }
        bytes
    }
}

/// A capture in a thread of its own.
struct Capture {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<HashMap<ConnectionId, Seen>>>,
    thread: Option<thread::JoinHandle<Counters>>,
}

impl Capture {
    fn start(options: LiveOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<HashMap<ConnectionId, Seen>>> = Arc::default();
        let mut live = Live::open(options).unwrap_or_else(|error| panic!("{error}: {}", error.advice()));
        let (until, into) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            live.run(&until, |event| {
                let mut seen = into.lock().unwrap();
                match event {
                    Event::Opened { connection, ends, owner, .. } => {
                        let owner = owner.map(|owner| owner.pid);
                        seen.entry(connection).or_default().ends.push((ends, owner));
                    }
                    Event::Segment(segment) => seen.entry(segment.connection).or_default().segment(&segment),
                    Event::Closed { connection } => seen.entry(connection).or_default().closed = true,
                    Event::Tick { .. } => {}
                }
            })
            .unwrap()
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// Ends the capture, and gives what was seen by the client's address.
    fn stop(mut self) -> (HashMap<SocketAddr, Seen>, Counters) {
        self.stop.store(true, Ordering::Relaxed);
        let counters = self.thread.take().unwrap().join().unwrap();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        (seen.into_values().map(|seen| (seen.ends.first().unwrap().0.client, seen)).collect(), counters)
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&HashMap<ConnectionId, Seen>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.seen.lock().unwrap()) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A server that reads everything, then sends the same number of other bytes, on a port of its own.
fn echo(address: &str) -> (SocketAddr, PortSet) {
    let listener = TcpListener::bind(address).unwrap();
    let local = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                // The client may be gone.
                let _ = stream.write_all(&answer(&bytes));
            });
        }
    });
    (local, local.port().to_string().parse().unwrap())
}

fn answer(request: &[u8]) -> Vec<u8> {
    request.iter().map(|byte| !byte).collect()
}

/// Bytes that differ everywhere, so that a piece in the wrong place is noticed.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn options(ports: PortSet) -> LiveOptions {
    LiveOptions { ports, ..LiveOptions::default() }
}

/// Sends in writes of the given size, reads the answer to its end; gives the client's address as it is captured.
fn exchange(to: SocketAddr, bytes: &[u8], write: usize) -> SocketAddr {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    for part in bytes.chunks(write) {
        stream.write_all(part).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == answer(bytes));
    let local = stream.local_addr().unwrap();
    SocketAddr::new(local.ip().to_canonical(), local.port())
}

/// Segments that this network namespace has sent again.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, counts) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "RetransSegs").unwrap();
    counts.split(' ').nth(place).unwrap().parse().unwrap()
}

#[test]
fn every_byte_arrives_once_with_its_owner() {
    let Some(_alone) = host::alone() else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let before = sent_again();
        let (server, ports) = echo(address);
        let capture = Capture::start(options(ports));
        let mut sent = Vec::new();
        let mapped = match server.ip() {
            IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), server.port()),
            IpAddr::V6(_) => server,
        };
        let sizes = [
            1, 2, 63, 64, 65, 100, 128, 129, 1000, 1024, 1025, 4096, 16384, 16385, 65535, 65536, 65537,
            200_000,
        ];
        for (index, size) in (0..).zip(sizes) {
            let to = if index % 2 == 1 { mapped } else { server };
            let bytes = pattern(size.max(1000) * 3, index);
            sent.push((exchange(to, &bytes, size), bytes));
        }
        let (mut seen, counters) = capture.stop();
        assert!(counters.lost().all(|(_, count)| count.events == 0), "{counters:?}");
        let (mut largest, mut repeated) = (0, 0);
        for (client, bytes) in sent {
            let seen = seen.remove(&client).unwrap_or_else(|| panic!("{client} was not seen"));
            assert!(seen.bytes(Direction::ToBroker) == bytes, "{client}: requests differ");
            assert!(seen.bytes(Direction::ToClient) == answer(&bytes), "{client}: responses differ");
            repeated += seen.repeated;
            assert!(seen.opened_first && seen.closed && seen.fin == [true, true], "{client}");
            // Twice if the first segment was read before /proc was.
            let owned = (Ends { client, broker: server }, Some(std::process::id()));
            assert!(seen.ends == [owned] || seen.ends == [(owned.0, None), owned], "{:?}", seen.ends);
            largest = largest.max(seen.largest);
        }
        assert!(seen.is_empty(), "only what was sent is seen");
        // A host that was busy elsewhere sends again what was not lost.
        assert!(
            repeated == 0 || sent_again() > before,
            "{repeated} bytes were seen again that TCP has sent once"
        );
        println!("{address}: {counters:?}, largest piece {largest}, {repeated} bytes again");
    }
}

#[test]
fn connections_of_before_are_found_with_their_process() {
    let Some(_alone) = host::alone() else { return };
    let (server, ports) = echo("127.0.0.1:0");
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(b"unseen").unwrap();
    let client = stream.local_addr().unwrap();

    let report = probe::run(&ports, None, &TlsOptions::default());
    assert!(report.can_capture(), "{:?}", report.items);
    let [socket] = report.sockets.as_slice() else { panic!("one socket expected: {:?}", report.sockets) };
    assert_eq!(socket.ends, Ends { client, broker: server });
    assert_eq!(socket.owner.as_ref().unwrap().pid, std::process::id());

    let capture = Capture::start(options(ports));
    stream.write_all(b"seen").unwrap();
    // The socket is listed before the ring is read (a closing one is not listed any more); from then on its end is reported, too.
    capture.wait_until("the owner", |seen| {
        seen.values().any(|seen| seen.ends.iter().any(|ends| ends.1.is_some()))
    });
    thread::sleep(Duration::from_millis(100));
    drop(stream);
    capture.wait_until("the end of the connection", |seen| seen.values().any(|seen| seen.closed));
    let (seen, _) = capture.stop();
    assert_eq!(seen[&client].ends.last(), Some(&(Ends { client, broker: server }, Some(std::process::id()))));
    assert!(seen[&client].opened_first);
    assert_eq!(seen[&client].bytes(Direction::ToBroker), b"seen");
}

#[test]
fn short_lived_processes_are_named() {
    let Some(_alone) = host::alone() else { return };
    let (server, ports) = echo("127.0.0.1:0");
    let stop = AtomicBool::new(false);
    let mut live = Live::open(options(ports)).unwrap();
    let names = Mutex::new(BTreeMap::<String, u32>::new());
    let are_named = || names.lock().unwrap().contains_key("short-lived");
    let command = format!("exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3", server.port());
    thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let mut shells = 0;
            while (shells < 50 || !are_named()) && Instant::now() < deadline {
                shells += 1;
                let mut shell = Command::new("bash");
                shell.args(["-c", &command]).env("OTEL_SERVICE_NAME", "short-lived");
                assert!(shell.status().unwrap().success());
            }
            stop.store(true, Ordering::Relaxed);
        });
        live.run(&stop, |event| {
            if let Event::Opened { owner: Some(owner), .. } = event {
                let name = owner.resource.service_name().to_owned();
                *names.lock().unwrap().entry(name).or_default() += 1;
            }
        })
        .unwrap();
    });
    // One that ends before it is read is called by its thread's name: rare on a host with a CPU to spare, and no error.
    let names = names.into_inner().unwrap();
    println!("{names:?}");
    assert!(names.contains_key("short-lived"), "{names:?}");
    assert!(names.keys().all(|name| name == "short-lived" || name == "bash"), "{names:?}");
}

#[test]
fn overflow_is_counted_and_capture_goes_on() {
    let Some(_alone) = host::alone() else { return };
    let (server, ports) = echo("127.0.0.1:0");
    let capture = Capture::start(LiveOptions { ring_bytes: 4096, ..options(ports) });
    let flood = pattern(1 << 20, 3);
    exchange(server, &flood, 30_000);
    let small = pattern(100, 4);
    // Whatever is left in the ring is read sooner or later, and then there is room again.
    let deadline = Instant::now() + PATIENCE;
    let (client, smalls) = (1_usize..)
        .find_map(|tries| {
            assert!(Instant::now() < deadline, "nothing is captured any more");
            let client = exchange(server, &small, 100);
            thread::sleep(Duration::from_millis(200));
            let seen = capture.seen.lock().unwrap();
            let of_client = |seen: &&Seen| seen.ends.first().is_some_and(|ends| ends.0.client == client);
            let whole = seen.values().find(of_client)?.bytes(Direction::ToBroker) == small;
            whole.then_some((client, tries))
        })
        .unwrap();
    let (seen, counters) = capture.stop();
    let lost = counters.get(Counter::RingFull);
    println!("{counters:?}");
    assert!(lost.events > 0 && lost.bytes > 0, "{counters:?}");
    let sent = 2 * (flood.len() + smalls * small.len()) as u64;
    assert!(counters.captured().bytes + lost.bytes >= sent, "{counters:?}");
    assert_eq!(seen[&client].bytes(Direction::ToBroker), small);
}

#[test]
fn detaches_without_trace() {
    let Some(_alone) = host::alone() else { return };
    let before = kernel_objects();
    let (server, ports) = echo("127.0.0.1:0");
    let capture = Capture::start(options(ports));
    assert!(kernel_objects().iter().any(|object| object.ends_with("egress")), "{:?}", kernel_objects());
    exchange(server, b"x", 1);
    capture.stop();
    wait_for(&before);
}

/// The other process of the next test: connects in its own network namespace, and waits to be killed.
#[test]
fn connects_and_waits() {
    if std::env::var_os("KTRACE_TEST_NAMESPACE").is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:9092").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    println!("attached");
    loop {
        stream.write_all(b"hello").unwrap();
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn other_network_namespaces_are_seen_too() {
    let Some(_alone) = host::alone() else { return };
    let Ok(mut child) = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" connects_and_waits --exact --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("KTRACE_TEST_NAMESPACE", "1")
        .stdout(Stdio::piped())
        .spawn()
    else {
        println!("skipped: no unshare");
        return;
    };
    wait_for_word(&mut child);
    let capture = Capture::start(options("9092".parse().unwrap()));
    let owned = |seen: &Seen| seen.ends.iter().any(|(_, owner)| *owner == Some(child.id()));
    capture.wait_until("the owner", |seen| seen.values().any(owned));
    let (seen, _) = capture.stop();
    assert!(seen.values().next().unwrap().bytes(Direction::ToBroker).starts_with(b"hello"));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until another process of a test says that it is ready.
fn wait_for_word(child: &mut Child) {
    let mut output = child.stdout.take().unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 256];
    while !said.windows(8).any(|window| window == b"attached") {
        let read = output.read(&mut buffer).unwrap();
        assert!(read > 0, "the child ended: {}", String::from_utf8_lossy(&said));
        said.extend(&buffer[..read]);
    }
}

/// The victim of the next test: captures until it is killed.
#[test]
fn captures_until_killed() {
    if std::env::var_os("KTRACE_TEST_VICTIM").is_none() {
        return;
    }
    let mut live = Live::open(options("9092".parse().unwrap())).unwrap();
    println!("attached");
    live.run(&AtomicBool::new(false), |_| {}).unwrap();
}

#[test]
fn nothing_is_left_after_a_kill() {
    let Some(_alone) = host::alone() else { return };
    let before = kernel_objects();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["captures_until_killed", "--exact", "--nocapture"])
        .env("KTRACE_TEST_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_word(&mut child);
    assert_ne!(kernel_objects(), before);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(&before);
}

/// CPU time is measured by `./dev bench idle`; here it is how often the threads wake up, which no load changes.
#[test]
fn an_idle_capture_sleeps() {
    let Some(_alone) = host::alone() else { return };
    let capture = Capture::start(options("9092".parse().unwrap()));
    thread::sleep(Duration::from_secs(1));
    let (before, since) = (sleeps(), Instant::now());
    thread::sleep(Duration::from_secs(4));
    let (slept, took) = (sleeps() - before, since.elapsed().as_secs_f64());
    capture.stop();
    println!("{slept} times in {took:.1} s");
    // The ring's reader and the owners' each look every 0.1 s where nothing happens; a few more are this test's.
    assert!(slept as f64 <= 25.0 * took + 10.0, "{slept} times in {took:.1} s");
}

/// A directory of its own in the cgroup v2 tree, not made yet; `None` where there is no tree.
fn own_cgroup(name: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(root) = mounts.find(|fields| fields[2] == "cgroup2") else {
        assert!(std::env::var_os("CI").is_none(), "no cgroup v2 tree is mounted");
        println!("skipped: no cgroup v2 tree is mounted");
        return None;
    };
    Some(Path::new(root[1]).join(format!("ktrace-{name}-{}", std::process::id())))
}

/// Sends a word from a process in the cgroup.
fn say_within(group: &Path, server: SocketAddr, word: &str) {
    let command = format!(
        "echo $$ > {}/cgroup.procs; exec 3<>/dev/tcp/127.0.0.1/{}; echo {word} >&3",
        group.display(),
        server.port()
    );
    assert!(Command::new("bash").args(["-c", &command]).status().unwrap().success());
}

#[test]
fn only_the_named_cgroup_is_seen() {
    let Some(_alone) = host::alone() else { return };
    let Some(group) = own_cgroup("test") else { return };
    std::fs::create_dir(&group).unwrap();
    let (server, ports) = echo("127.0.0.1:0");
    let capture = Capture::start(LiveOptions { cgroup: Some(group.clone()), ..options(ports) });
    exchange(server, b"outside", 7);
    say_within(&group, server, "inside");
    capture.wait_until("the connection inside", |seen| !seen.is_empty());
    let (seen, _) = capture.stop();
    thread::sleep(Duration::from_millis(100));
    std::fs::remove_dir(&group).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen.values().next().unwrap().bytes(Direction::ToBroker), b"inside\n");
}

/// What was said of the cgroup that is made again.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn a_cgroup_that_is_made_again_is_followed() {
    let Some(_alone) = host::alone() else { return };
    let Some(group) = own_cgroup("again") else { return };
    std::fs::create_dir(&group).unwrap();
    let (server, ports) = echo("127.0.0.1:0");
    let say = |line: &str| SAID.lock().unwrap().push(line.to_owned());
    let capture = Capture::start(LiveOptions { cgroup: Some(group.clone()), say, ..options(ports) });
    let remove = || {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = std::fs::remove_dir(&group) {
            assert!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    for turn in 0..3 {
        say_within(&group, server, &format!("word-{turn}"));
        capture.wait_until("the connection inside", |seen| seen.len() == turn + 1);
        remove();
        std::fs::create_dir(&group).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while SAID.lock().unwrap().iter().filter(|line| line.contains("made again")).count() <= turn {
            assert!(Instant::now() < deadline, "{:?}", SAID.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
    }
    let (seen, counters) = capture.stop();
    remove();
    let mut words: Vec<_> = seen.values().map(|seen| seen.bytes(Direction::ToBroker)).collect();
    words.sort();
    assert_eq!(words, ["word-0\n", "word-1\n", "word-2\n"].map(|word| word.as_bytes().to_vec()));
    assert!(counters.lost().all(|(_, count)| count.events == 0));
}

/// Numbers and names of all programs and maps in the kernel.
fn kernel_objects() -> BTreeSet<String> {
    let programs = aya::programs::loaded_programs()
        .flatten()
        .map(|info| format!("program {} {}", info.id(), info.name_as_str().unwrap_or("?")));
    let maps = aya::maps::loaded_maps()
        .flatten()
        .map(|info| format!("map {} {}", info.id(), info.name_as_str().unwrap_or("?")));
    programs.chain(maps).collect()
}

/// The kernel frees programs and maps a moment after their last holder is gone.
fn wait_for(objects: &BTreeSet<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = kernel_objects();
        let left: Vec<_> = now.difference(objects).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left in the kernel: {left:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How often threads of this process have gone to sleep.
fn sleeps() -> i64 {
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer; the call cannot fail with RUSAGE_SELF.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_nvcsw
}

/// More at once than a batch of any kind holds, from several threads.
#[test]
fn many_connections_at_once_all_have_their_owner() {
    let Some(_alone) = host::alone() else { return };
    let (server, ports) = echo("127.0.0.1:0");
    let capture = Capture::start(options(ports));
    let (threads, each) = (8_usize, 250_usize);
    let clients: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..each {
                    exchange(server, b"hello", 5);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    capture.wait_until("all are seen", |seen| {
        seen.values().filter(|seen| seen.closed).count() >= threads * each
    });
    let me = Some(std::process::id());
    capture.wait_until("the process of each", |seen| {
        seen.values().all(|seen| seen.ends.iter().any(|(_, owner)| *owner == me))
    });
    capture.stop();
}

/// A defect in one worker must not leave an agent that neither works nor ends.
#[test]
fn a_sink_that_panics_ends_the_capture() {
    let Some(_alone) = host::alone() else { return };
    let (server, ports) = echo("127.0.0.1:0");
    let objects = kernel_objects();
    let mut live = Live::open(LiveOptions { rings: 2, ..options(ports) }).unwrap();
    let ended = thread::spawn(move || {
        let stop = AtomicBool::new(false);
        let sinks = (0..2).map(|_| {
            |event: Event<'_>| {
                if let Event::Segment(_) = event {
                    panic!("as a defect would");
                }
            }
        });
        live.run_each(&stop, sinks.collect())
    });
    exchange(server, b"hello", 5);
    let deadline = Instant::now() + PATIENCE;
    while !ended.is_finished() {
        assert!(Instant::now() < deadline, "it goes on");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(ended.join().is_err());
    wait_for(&objects);
}
