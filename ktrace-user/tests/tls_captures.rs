//! Captures of real clients and brokers over TLS, with the secrets inside: what is opened are the Kafka messages that tshark reads
//! with the same secrets (`tests/tls/NAME.tsv`), and a replay shows them, wherever it has the secrets from.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use flate2::read::GzDecoder;
use ktrace_kafka::Push;
use ktrace_tls::Sender;
use ktrace_tls::session::{Plain, Session};
use ktrace_user::capture::file::{CaptureFile, Connections};
use ktrace_user::keys::log_file::SharedKeyLog;
use ktrace_user::seen::{Direction, Event};

/// Client and version, and what of TLS passes there beside the suite.
const CAPTURES: [&str; 11] = [
    // SASL, and keys that the broker and then the client change
    "kafka-python-tls13",
    "kafka-python-tls13-chacha20",
    // the client shows a certificate
    "kafka-python-tls12",
    "kafka-python-tls12-chacha20",
    "kafka-python-tls12-cbc-sha1",
    "kafka-python-tls12-cbc-sha384",
    "kafka-python-tls12-cbc-encrypt-then-mac",
    // AES-128
    "sarama-tls13",
    "sarama-tls12",
    // the second connection resumes the session of the first
    "java-tls13",
    "java-tls12",
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A Kafka message: a request's API, its correlation id, and its size.
type Message = (Option<i16>, i32, u32);

/// Those of each TCP stream and direction, in order: the stream's place in the capture, and whether they go to the broker.
type Messages = BTreeMap<(usize, bool), Vec<Message>>;

/// The broker's port, and what tshark has listed.
fn listed(name: &str) -> (u16, Messages) {
    let text = fs::read_to_string(path(&format!("{name}.tsv"))).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let mut all = Messages::new();
    for line in rest.lines() {
        let [stream, direction, api, id, size] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let message = (api.parse().ok(), id.parse().unwrap(), size.parse().unwrap());
        all.entry((stream.parse().unwrap(), direction == ">")).or_default().push(message);
    }
    (first.strip_prefix("# port ").unwrap().parse().unwrap(), all)
}

/// The plaintext of both directions of a connection.
struct Opened {
    session: Session,
    has_secrets: bool,
    plain: [Vec<u8>; 2],
    lost: bool,
}

impl Default for Opened {
    fn default() -> Self {
        Self { session: Session::new(true), has_secrets: false, plain: [Vec::new(), Vec::new()], lost: false }
    }
}

impl Opened {
    fn with(&mut self, act: impl FnOnce(&mut Session, &mut dyn FnMut(Sender, Plain<'_>))) {
        let Self { session, plain, lost, .. } = self;
        act(session, &mut |from, given| match given {
            Plain::Data { bytes, .. } => plain[usize::from(from == Sender::Server)].extend(bytes),
            Plain::Gap { .. } => *lost = true,
        });
    }

    fn look_for_secrets(&mut self, log: &SharedKeyLog) {
        let Some(random) = self.session.hello().client_random else { return };
        if let Some(secrets) = log.read(|log| log.secrets(&random).cloned()).filter(|_| !self.has_secrets) {
            let mut taken = false;
            self.with(|session, mut give| taken = session.take_secrets(&secrets, &mut give));
            self.has_secrets = taken;
        }
    }
}

/// The connections of a capture, in their order. `at_once`: secrets are taken when they are needed, and not at the end.
fn opened(name: &str, at_once: bool) -> Vec<Opened> {
    let log = SharedKeyLog::default();
    let file = CaptureFile::open(&path(&format!("{name}.pcapng.gz"))).unwrap();
    let mut file = file.with_key_log(Arc::clone(&log));
    let mut known: BTreeMap<u64, Opened> = BTreeMap::new();
    let mut next: BTreeMap<(u64, bool), u32> = BTreeMap::new();
    let mut connections = Connections::new(listed(name).0.to_string().parse().unwrap());
    let mut each = |event: Event<'_>| {
        let Event::Segment(segment) = event else { return };
        let Push { direction, seq, bytes, time_ns, .. } = segment.push;
        let (id, to_broker) = (segment.connection.0, direction == Direction::ToBroker);
        // The captures are whole and in order.
        let end = seq.wrapping_add(u32::try_from(bytes.len()).unwrap());
        if let Some(expected) = next.insert((id, to_broker), end).filter(|_| !bytes.is_empty()) {
            assert_eq!(expected, seq, "{name}");
        }
        let from = if to_broker { Sender::Client } else { Sender::Server };
        let opened = known.entry(id).or_default();
        opened.with(|session, mut give| {
            session.data(from, seq, bytes, time_ns, &mut give);
        });
        if at_once {
            opened.look_for_secrets(&log);
        }
    };
    file.run(&mut connections, &AtomicBool::new(false), &mut each).unwrap();
    connections.finish(&mut file.counters(), &mut each);
    known.values_mut().for_each(|opened| opened.look_for_secrets(&log));
    known.into_values().collect()
}

/// Divides plaintext into messages, which have to end where it ends.
fn messages(mut plain: &[u8], requests: bool) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some((size, rest)) = plain.split_first_chunk() {
        let size = u32::from_be_bytes(*size);
        let (message, rest) = rest.split_at(size as usize);
        let (api, id) =
            if requests { (message.first_chunk(), &message[4..8]) } else { (None, &message[..4]) };
        let id = i32::from_be_bytes(id.try_into().unwrap());
        all.push((api.map(|api| i16::from_be_bytes(*api)), id, size));
        plain = rest;
    }
    assert!(plain.is_empty(), "{} bytes are left", plain.len());
    all
}

#[test]
fn what_is_opened_is_what_tshark_reads() {
    for (name, at_once) in CAPTURES.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let mut all = Messages::new();
        for (stream, opened) in opened(name, at_once).iter_mut().enumerate() {
            assert!(opened.has_secrets && !opened.lost, "{name} {stream}");
            let counts = opened.session.take_counts();
            assert!(counts.opened > 0 && counts.failed == 0 && counts.lost_bytes == 0, "{name}: {counts:?}");
            for (plain, to_broker) in opened.plain.iter().zip([true, false]) {
                all.insert((stream, to_broker), messages(plain, to_broker));
            }
        }
        let (_, theirs) = listed(name);
        assert!(theirs.len() >= 4, "{name}");
        assert_eq!(all, theirs, "{name}, secrets at once: {at_once}");
    }
}

/// Of SASL, in the captures.
const PASSWORD: &str = "Pa55-of-tls-3b9e61f7";

/// The type of a Decryption Secrets Block.
const SECRETS: u32 = 10;

/// A capture's blocks, each with its type.
fn blocks(name: &str) -> Vec<(u32, Vec<u8>)> {
    let mut file = Vec::new();
    let gzip = fs::File::open(path(&format!("{name}.pcapng.gz"))).unwrap();
    GzDecoder::new(gzip).read_to_end(&mut file).unwrap();
    let (mut rest, mut blocks) = (&*file, Vec::new());
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, len) = (word(0), word(4) as usize);
        blocks.push((kind, rest[..len].to_vec()));
        rest = &rest[len..];
    }
    blocks
}

/// A file of this test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn capture(name: &str, blocks: &[(u32, Vec<u8>)]) -> PathBuf {
    file(name, &blocks.iter().flat_map(|(_, block)| block).copied().collect::<Vec<_>>())
}

/// What a replay has given: its spans, as lines of JSON, and its summary.
fn replay(name: &str, capture: &Path, more: &[&str]) -> (Vec<String>, serde_json::Value) {
    // Tests run at once.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let summary = file(&format!("tls-captures-{run}.summary.json"), b"");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    command.env_clear().args(["replay", "-o", "json", "--ports", &listed(name).0.to_string(), "--summary"]);
    let output = command.arg(&summary).args(more).arg(capture).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    let spans = String::from_utf8(output.stdout).unwrap();
    let summary = fs::read_to_string(summary).unwrap();
    for text in [&said, &spans, &summary] {
        assert!(!text.contains(PASSWORD), "{name}: {text}");
    }
    let mut spans: Vec<_> = spans.lines().map(str::to_owned).collect();
    // Those of other connections come earlier where their secrets do.
    spans.sort();
    (spans, serde_json::from_str(&summary).unwrap())
}

fn nothing() -> serde_json::Value {
    serde_json::json!({})
}

#[test]
fn a_replay_shows_what_tshark_reads() {
    for name in CAPTURES {
        let (spans, summary) = replay(name, &path(&format!("{name}.pcapng.gz")), &[]);
        let (_, theirs) = listed(name);
        let count = |requests: bool| {
            theirs
                .iter()
                .filter(|((_, to_broker), _)| *to_broker == requests)
                .map(|(_, all)| all.len())
                .sum::<usize>()
        };
        let seen = [&summary["frames"], &summary["exchanges"]].map(|count| count.as_u64().unwrap() as usize);
        assert_eq!(seen, [count(true) + count(false), count(true)], "{name}: {summary}");
        assert_eq!((&summary["lost"], &summary["malformed"]), (&nothing(), &nothing()), "{name}");
        let named = |what: &str| spans.iter().filter(|span| span.contains(what)).count();
        let sent = if name == "kafka-python-tls13" { (8, 8) } else { (3, 0) };
        let both = (format!("\"name\":\"send {name}\""), format!("\"name\":\"poll {name}\""));
        assert_eq!((named(&both.0), named(&both.1)), sent, "{name}: {spans:?}");
    }
}

/// Secrets in front of the packets, behind them, in a file of their own; and none.
#[test]
fn a_replay_takes_secrets_from_wherever_they_are() {
    for name in ["kafka-python-tls13", "kafka-python-tls12-cbc-sha384", "sarama-tls13", "java-tls12"] {
        let (secrets, others): (Vec<_>, Vec<_>) =
            blocks(name).into_iter().partition(|(kind, _)| *kind == SECRETS);
        let [(_, block)] = &secrets[..] else { panic!("{name} has {} blocks of secrets", secrets.len()) };
        let expected = replay(name, &path(&format!("{name}.pcapng.gz")), &[]);

        let last = capture(&format!("{name}-last.pcapng"), &[&others[..], &secrets].concat());
        assert!(replay(name, &last, &[]) == expected, "{name}, secrets behind the packets");

        let len = u32::from_le_bytes(block[12..16].try_into().unwrap()) as usize;
        let keys = file(&format!("{name}.keys"), &block[16..16 + len]);
        let without = capture(&format!("{name}-without.pcapng"), &others);
        let given = ["--tls-keylog", keys.to_str().unwrap()];
        assert!(replay(name, &without, &given) == expected, "{name}, secrets in a file");

        let (spans, summary) = replay(name, &without, &[]);
        assert!(spans.is_empty() && summary["lost"] != nothing(), "{name}: {summary}");
    }
}

/// Requests are read, responses are not: the summary says why.
#[test]
fn a_direction_that_has_no_secret_is_counted() {
    let name = "sarama-tls13";
    let (secrets, others): (Vec<_>, Vec<_>) =
        blocks(name).into_iter().partition(|(kind, _)| *kind == SECRETS);
    let [(_, block)] = &secrets[..] else { panic!("{} blocks of secrets", secrets.len()) };
    let len = u32::from_le_bytes(block[12..16].try_into().unwrap()) as usize;
    let all = String::from_utf8(block[16..16 + len].to_vec()).unwrap();
    let lines: Vec<&str> = all.lines().filter(|line| !line.starts_with("SERVER_TRAFFIC_SECRET")).collect();
    let keys = file("half.keys", (lines.join("\n") + "\n").as_bytes());
    let without = capture("half-without.pcapng", &others);
    let (_, summary) = replay(name, &without, &["--tls-keylog", keys.to_str().unwrap()]);
    let lost = summary["lost"].to_string();
    assert!(lost.contains("tls_no_key") || lost.contains("tls_ended"), "{summary}");
    assert!(summary["frames"].as_u64() > Some(0), "requests are read: {summary}");
}
