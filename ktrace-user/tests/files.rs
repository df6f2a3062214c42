//! Capture files as they come from taps, from all interfaces at once, and from links that are not read: what
//! is shown of them is what is shown of the same packets once and in order, and what is not read is counted.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a replay has given: exit code, spans, summary, standard error.
struct Replayed {
    code: i32,
    spans: Vec<Value>,
    summary: Value,
    said: Vec<String>,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn replay(capture: &str, name: &str) -> Replayed {
    let summary = path(&format!("{name}.summary.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    command.env_clear().args(["replay", capture, "-o", "json", "--summary"]).arg(&summary);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let lines = |bytes: Vec<u8>| -> Vec<String> {
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    };
    let summary = std::fs::read_to_string(summary).unwrap_or_else(|_| "null".to_owned());
    Replayed {
        code: status.code().unwrap(),
        spans: lines(stdout).iter().map(|line| serde_json::from_str(line).unwrap()).collect(),
        summary: serde_json::from_str(&summary).unwrap(),
        said: lines(stderr),
    }
}

fn case(name: &str) -> Replayed {
    replay(&format!("{}/tests/captures/{name}.pcap", env!("CARGO_MANIFEST_DIR")), name)
}

impl Replayed {
    fn nothing_is_lost(&self) {
        assert_eq!((self.code, &self.summary["lost"], &self.summary["malformed"]), (0, &empty(), &empty()));
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| span["name"].as_str().unwrap()).collect()
    }

    /// The messages and what was done with them, without what depends on the times of other connections:
    /// groups.
    fn messages(&self) -> BTreeSet<String> {
        let names = ["name", "trace_id", "span_id", "parent_span_id", "status"];
        let is_message = |span: &&Value| span["name"] != "commit orders";
        let of = |span: &Value| names.map(|name| span[name].to_string()).join(" ");
        self.spans.iter().filter(is_message).map(of).collect()
    }

    /// The spans without their times, in any order.
    fn timeless(&self) -> BTreeSet<String> {
        let without = |span: &Value| {
            let mut span = span.clone();
            for time in ["start_unix_nanos", "end_unix_nanos"] {
                span[time] = Value::Null;
            }
            if let Some(attributes) = span["attributes"].as_object_mut() {
                attributes.retain(|name, _| !name.ends_with("_ms"));
            }
            span.to_string()
        };
        self.spans.iter().map(without).collect()
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// A packet of a golden capture: Ethernet, IPv4.
#[derive(Clone)]
struct Packet {
    time_ns: i64,
    frame: Vec<u8>,
    original: u32,
    broker: u16,
}

impl Packet {
    /// Of the sender and of the receiver.
    fn ports(&self) -> [u16; 2] {
        [34, 36].map(|at| u16::from_be_bytes([self.frame[at], self.frame[at + 1]]))
    }

    fn to_broker(&self) -> bool {
        self.ports()[1] == self.broker
    }

    fn later(mut self, by_ns: i64) -> Self {
        self.time_ns += by_ns;
        self
    }

    /// With a client's address of a node, and a port of the node's own.
    fn translated(mut self) -> Self {
        let [from, to] = self.ports();
        let (client, address, at) = if self.to_broker() { (from, 26, 34) } else { (to, 30, 36) };
        let port = (client ^ 0x1555).to_be_bytes();
        self.frame[address..address + 4].copy_from_slice(&[10, 244, 0, 1]);
        self.frame[at..at + 2].copy_from_slice(&port);
        self
    }

    fn tagged(mut self) -> Self {
        self.frame.splice(12..12, [0x81, 0, 0, 7]);
        self.original += 4;
        self
    }
}

fn golden(name: &str) -> String {
    format!("{}/../ktrace-kafka/tests/golden/{name}.pcap", env!("CARGO_MANIFEST_DIR"))
}

fn packets(name: &str) -> Vec<Packet> {
    let file = std::fs::read(golden(name)).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut packets) = (24, vec![]);
    while at < file.len() {
        let (seconds, nanos, len, original) = (word(at), word(at + 4), word(at + 8) as usize, word(at + 12));
        let frame = file[at + 16..at + 16 + len].to_vec();
        let time_ns = i64::from(seconds) * 1_000_000_000 + i64::from(nanos);
        packets.push(Packet { time_ns, frame, original, broker: 0 });
        at += 16 + len;
    }
    let [one, other] = packets[0].ports();
    let broker = if packets.iter().all(|packet| packet.ports().contains(&one)) { one } else { other };
    packets.iter_mut().for_each(|packet| packet.broker = broker);
    packets
}

/// A capture file of these packets, in the order of their times.
fn written(name: &str, mut packets: Vec<Packet>) -> String {
    packets.sort_by_key(|packet| packet.time_ns);
    as_it_is(name, &packets)
}

fn as_it_is(name: &str, packets: &[Packet]) -> String {
    let mut file = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 1 << 18, 1].map(u32::to_le_bytes).concat();
    for Packet { time_ns, frame, original, .. } in packets {
        let (seconds, nanos) = (*time_ns / 1_000_000_000, *time_ns % 1_000_000_000);
        let head = [seconds as u32, nanos as u32, frame.len() as u32, *original];
        file.extend(head.map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    std::fs::write(path(name), file).unwrap();
    path(name).to_str().unwrap().to_owned()
}

const GOLDENS: [&str; 4] = ["4.3.0/java", "4.3.0/java-acks-0", "3.9.1/confluent", "4.3.0/java-share-group"];

#[test]
fn bytes_behind_a_body_are_no_loss() {
    let without = case("surplus-none");
    for name in ["surplus-metadata", "surplus-produce-response"] {
        let replayed = case(name);
        replayed.nothing_is_lost();
        assert_eq!(replayed.summary["surplus_bytes"], 1, "{name}");
        assert!(replayed.said.iter().any(|line| line == "not lost, passed over: 1 surplus_bytes"));
        assert!(!replayed.spans.is_empty());
        if name == "surplus-metadata" {
            assert_eq!(replayed.names(), without.names());
        }
    }
    assert_eq!(without.summary["surplus_bytes"], Value::Null);
}

#[test]
fn an_ack_may_stand_before_the_data_that_it_acknowledges() {
    let replayed = case("ack-before-request");
    replayed.nothing_is_lost();
    assert_eq!(replayed.names(), ["send orders"; 4]);
}

/// Each direction by a clock of its own, as a tap's two ports have it; and packets out of a card's queues.
/// For whom a consumer reads is known by when others got to know it: by clocks that differ that may remain
/// open.
#[test]
fn the_directions_of_a_capture_may_be_apart() {
    for golden_name in GOLDENS {
        let whole = replay(&golden(golden_name), "apart-whole");
        let all = packets(golden_name);
        for skew_ns in [-80_000_000, -1_000_000, -30_000, 30_000, 1_000_000, 80_000_000] {
            let skewed = all.iter().cloned().map(|packet| {
                let by = if packet.to_broker() { skew_ns } else { 0 };
                packet.later(by)
            });
            let skewed = replay(&written("apart.pcap", skewed.collect()), "apart");
            assert_eq!(skewed.summary["lost"], whole.summary["lost"], "{golden_name} by {skew_ns}");
            assert_eq!(skewed.messages(), whole.messages(), "{golden_name} by {skew_ns}");
        }
        // Neighbours change places.
        let mut shuffled = all.clone();
        for pair in shuffled.as_chunks_mut::<2>().0 {
            pair.swap(0, 1);
        }
        let shuffled = replay(&as_it_is("shuffled.pcap", &shuffled), "shuffled");
        assert_eq!(shuffled.summary["lost"], whole.summary["lost"], "{golden_name}");
        assert_eq!(shuffled.timeless(), whole.timeless(), "{golden_name}");
    }
}

#[test]
fn a_conversation_before_and_after_a_translation_is_shown_once() {
    let replayed = case("nat-twice");
    replayed.nothing_is_lost();
    assert_eq!(replayed.names(), ["poll orders", "commit orders"].repeat(3));
    assert_eq!(replayed.summary["connections"], 1);
    assert_eq!(replayed.summary["duplicate_packets"], 27, "half of the packets");
    let counts = replayed.spans.iter().map(|span| &span["attributes"]["ktrace.delivery.count"]);
    assert!(counts.into_iter().all(|count| count.is_null() || *count == 1), "{:#?}", replayed.spans);
}

/// Four connections whose numbers are the same, and two of whose answers: what they ask is not.
#[test]
fn conversations_that_are_alike_are_not_one() {
    let replayed = case("two-clusters");
    replayed.nothing_is_lost();
    assert_eq!(replayed.summary["connections"], 4);
    assert_eq!(replayed.spans.len(), 4);
    assert_eq!(replayed.summary["duplicate_packets"], Value::Null);
}

/// A consumer that takes its partitions by itself is known by where it asks its group to stand.
#[test]
fn a_client_that_reads_on_from_its_groups_position_reads_for_it() {
    let replayed = case("assign-and-commit");
    replayed.nothing_is_lost();
    assert_eq!(
        replayed.names(),
        ["poll orders", "poll orders", "poll orders", "poll orders", "commit orders", "poll orders"]
    );
    let groups = replayed.spans.iter().map(|span| &span["attributes"]["messaging.consumer.group.name"]);
    assert!(groups.into_iter().all(|group| group == "job"), "{:#?}", replayed.spans);
    assert_eq!(replayed.spans[4]["attributes"]["ktrace.commit.messages"], 4);
}

/// What becomes of a packet.
type Copies = fn(Packet) -> Vec<Packet>;

/// Translated, tagged, both; the copy of what comes back from the broker is first, as on a real host.
#[test]
fn copies_on_several_interfaces_are_shown_once() {
    for golden_name in GOLDENS {
        let whole = replay(&golden(golden_name), "copies-whole");
        let all = packets(golden_name);
        let copies: [(&str, Copies); 4] = [
            ("tagged", |packet| vec![packet.clone(), packet.later(500).tagged()]),
            ("translated", |packet| {
                let by = if packet.to_broker() { 500 } else { -500 };
                vec![packet.clone(), packet.later(by).translated()]
            }),
            ("both", |packet| {
                let by = if packet.to_broker() { 300 } else { -300 };
                let translated = packet.clone().later(2 * by).translated();
                vec![
                    packet.clone(),
                    packet.later(by).tagged(),
                    translated.clone(),
                    translated.later(by).tagged(),
                ]
            }),
            ("late", |packet| vec![packet.clone(), packet.later(20_000_000).translated()]),
        ];
        for (how, copy) in copies {
            let copied = all.iter().cloned().flat_map(copy).collect();
            let copied = replay(&written("copies.pcap", copied), "copies");
            assert_eq!(copied.timeless(), whole.timeless(), "{golden_name} {how}");
            assert_eq!(copied.spans.len(), whole.spans.len(), "{golden_name} {how}");
            assert_eq!(copied.summary["lost"], whole.summary["lost"], "{golden_name} {how}");
            assert_eq!(copied.summary["connections"], whole.summary["connections"], "{golden_name} {how}");
            assert!(copied.summary["duplicate_packets"].as_u64() > Some(10), "{golden_name} {how}");
        }
        // From the middle on, where no SYN shows which connection is which.
        let middle = all.len() / 3;
        let whole = replay(&as_it_is("middle.pcap", &all[middle..]), "middle");
        let copied = all[middle..].iter().cloned().flat_map(copies[1].1).collect();
        let copied = replay(&written("middle-copies.pcap", copied), "middle-copies");
        assert_eq!(copied.timeless(), whole.timeless(), "{golden_name}");
    }
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}

/// A pcapng file with these interfaces' link types, and packets, each with its interface.
fn pcapng(links: &[u16], packets: &[(u32, &[u8])]) -> Vec<u8> {
    let mut file =
        block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    for link in links {
        file.extend(block(1, &[&link.to_le_bytes()[..], &[0; 6]].concat()));
    }
    for (interface, packet) in packets {
        let len = u32::try_from(packet.len()).unwrap().to_le_bytes();
        file.extend(block(6, &[&interface.to_le_bytes()[..], &[0; 8], &len, &len, packet].concat()));
    }
    file
}

#[test]
fn unreadable_packets_are_counted_and_an_error_if_all_are() {
    let ip: &[u8] = &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let of = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).unwrap();
        replay(path(name).to_str().unwrap(), name)
    };
    let none = of("wlan.pcapng", &pcapng(&[105], &[(0, ip), (0, ip)]));
    assert_eq!((none.code, &none.summary["lost"]["link_type"]), (1, &2.into()));
    let what = "none of the 2 packets of";
    assert_eq!(none.said.len(), 2, "{:?}", none.said);
    assert!(
        none.said[0].contains(what) && none.said[0].ends_with("link type 105 (IEEE802_11)"),
        "{:?}",
        none.said
    );
    let none = of("undescribed.pcapng", &pcapng(&[], &[(0, ip)]));
    assert_eq!((none.code, &none.summary["lost"]["interface"]), (1, &1.into()));
    assert!(none.said[0].ends_with("no description of their interface"), "{:?}", none.said);
    // Some of them can.
    let some = of("some.pcapng", &pcapng(&[105, 101, 300], &[(0, ip), (1, ip), (2, ip), (7, ip)]));
    let lost = serde_json::json!({"link_type": 2, "interface": 1});
    assert_eq!((some.code, &some.summary["lost"]), (0, &lost));
    assert_eq!(some.summary["link_types"], serde_json::json!({"105 (IEEE802_11)": 1, "300": 1}));
    let said = "packets of link types that are not read: 1 of 105 (IEEE802_11), 1 of 300";
    assert!(some.said.iter().any(|line| line == said), "{:?}", some.said);
    // Without packets there is nothing that cannot be read.
    assert_eq!(of("no-packets.pcapng", &pcapng(&[105], &[])).code, 0);
    let nothing = of("nothing.pcap", b"");
    assert_eq!((nothing.code, nothing.said.len()), (1, 2));
    assert!(nothing.said[0].ends_with("nothing.pcap is empty"), "{:?}", nothing.said);
    // In a tunnel: IP in IP, and VXLAN.
    let (mut inner, mut udp) = (ip.to_vec(), ip.to_vec());
    inner[9] = 4;
    udp.extend([0xc0, 0, 0x12, 0xb5, 0, 8, 0, 0]);
    udp[3] = 28;
    let tunnels = of("tunnels.pcapng", &pcapng(&[101], &[(0, &inner), (0, &udp), (0, ip)]));
    assert_eq!((tunnels.code, &tunnels.summary["lost"]), (0, &serde_json::json!({"tunnel": 2})));
}

/// A pipe that goes silent with a packet whose data is missing: what is held is shown all the same, and the
/// pipe read on.
#[test]
fn what_is_held_of_a_silent_pipe_is_shown() {
    let all = packets("4.3.0/java");
    // Without one request, so that what answers it is held.
    let first = all.iter().position(|packet| packet.to_broker() && packet.frame.len() > 200).unwrap();
    let mut lossy = all.clone();
    lossy.remove(first);
    let file = std::fs::read(as_it_is("silent.pcap", &lossy)).unwrap();
    let whole = replay(path("silent.pcap").to_str().unwrap(), "silent-whole");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    command.env_clear().args(["replay", "-", "-o", "json"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&file).unwrap();
    // It is shown before the pipe ends: reading does not wait for that.
    let mut shown = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for at in 0..whole.spans.len() {
        assert!(shown.next().is_some(), "{at} of {}", whole.spans.len());
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
}
