//! Which connections are taken for Kafka's: a verdict needs evidence, what is said to a proxy is
//! read behind, and what is given up is counted.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::agent::{Agent, Ended};
use harness::need;
use harness::scratch::Scratch;
use ktrace_testkit::{Batch, Fields, Record, framed_parts};

/// Messages of each connection.
const MESSAGES: i32 = 20;

/// What passes before Kafka, in turns: the client's words, then the proxy's.
type Preface = &'static [(&'static [u8], &'static [u8])];

const PREFACES: [(&str, Preface); 5] = [
    ("socks5", &[(b"\x05\x01\0", b"\x05\0"), (b"\x05\x01\0\x03\x06broker\x23\x84", b"\x05\0\0\x01\x0a\0\0\x02\x23\x84")]),
    (
        "socks5-password",
        &[
            (b"\x05\x02\0\x02", b"\x05\x02"),
            (b"\x01\x04user\x06secret", b"\x01\0"),
            (b"\x05\x01\0\x01\x0a\0\0\x02\x23\x84", b"\x05\0\0\x01\x0a\0\0\x02\x23\x84"),
        ],
    ),
    ("socks4", &[(b"\x04\x01\x23\x84\x0a\0\0\x02me\0", b"\0\x5a\0\0\0\0\0\0")]),
    (
        "connect",
        &[(
            b"CONNECT broker:9092 HTTP/1.1\r\nHost: broker:9092\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n",
            b"HTTP/1.1 200 Connection established\r\n\r\n",
        )],
    ),
    ("proxy-protocol", &[(b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 9092\r\n", b"")]),
];

fn api_versions(client: &[u8]) -> Vec<u8> {
    Fields::request(18, 0, 1, client).framed()
}

/// Produce 7 of one record without key and headers, to partition 0.
fn produce(id: i32, client: &[u8], topic: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let batch = Batch { timestamp_ms: now as i64, ..Batch::default() };
    let batch = batch.of(&[Record { value: Some(b"abc"), ..Record::default() }]);
    let head = Fields::request(0, 7, id, client).i16(-1).i16(1).i32(30_000);
    head.i32(1).old(topic).i32(1).i32(0).bytes(batch).framed()
}

/// The frame without its size; `None` at the end.
fn read_frame(stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut size = [0; 4];
    match stream.read_exact(&mut size) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size))?];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Answers one connection: its preface, then ApiVersions once `hold` ends, then each Produce.
fn serve(listener: &TcpListener, preface: Preface, topic: &str, hold: Option<Receiver<()>>) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    for (words, answer) in preface {
        let mut read = vec![0; words.len()];
        stream.read_exact(&mut read)?;
        ensure!(read == *words);
        stream.write_all(answer)?;
    }
    let mut offset = 0_i64;
    while let Some(request) = read_frame(&mut stream)? {
        let (api, id) = (&request[..2], &request[4..8]);
        if api == [0, 18] {
            if let Some(hold) = &hold {
                hold.recv().ok();
            }
            stream.write_all(&framed_parts(&[id, &[0; 6]]))?;
            continue;
        }
        let answer = Fields::default().raw(id).i32(1).old(topic).i32(1).i32(0).i16(0).i64(offset);
        stream.write_all(&answer.i64(-1).i64(0).i32(0).framed())?;
        offset += 1;
    }
    Ok(())
}

struct Conversation {
    stream: TcpStream,
    server: JoinHandle<Result<()>>,
    port: u16,
    client: Vec<u8>,
    topic: String,
}

impl Conversation {
    fn open(topic: &str, client: &[u8], preface: Preface, hold: Option<Receiver<()>>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        Self::with(listener, topic, client, preface, hold)
    }

    fn with(
        listener: TcpListener,
        topic: &str,
        client: &[u8],
        preface: Preface,
        hold: Option<Receiver<()>>,
    ) -> Result<Self> {
        let port = listener.local_addr()?.port();
        let named = topic.to_owned();
        let server = thread::spawn(move || serve(&listener, preface, &named, hold));
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        for (words, answer) in preface {
            stream.write_all(words)?;
            stream.read_exact(&mut vec![0; answer.len()])?;
        }
        stream.write_all(&api_versions(client))?;
        Ok(Self { stream, server, port, client: client.to_owned(), topic: topic.to_owned() })
    }

    /// From the first answer on.
    fn go_on(mut self) -> Result<()> {
        read_frame(&mut self.stream)?.context("no answer")?;
        for id in 0..MESSAGES {
            self.stream.write_all(&produce(id + 2, &self.client, &self.topic))?;
            read_frame(&mut self.stream)?.context("no answer")?;
        }
        drop(self.stream);
        self.server.join().map_err(|_| anyhow!("the server panicked"))?
    }
}

fn sent_to(ended: &Ended, topic: &str) -> usize {
    ended.spans.iter().filter(|span| span.topic() == Some(topic)).count()
}

fn stop(agent: Agent) -> Result<Ended> {
    sleep(Duration::from_secs(1));
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok(ended)
}

/// Connections whose first request came before the agent and whose first answer comes after.
#[test]
fn an_answer_alone_says_nothing() -> Result<()> {
    if !need::live("an answer alone", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let (holds, held): (Vec<Sender<()>>, Vec<Receiver<()>>) = (0..4).map(|_| mpsc::channel()).unzip();
    let talks: Vec<Conversation> = held
        .into_iter()
        .enumerate()
        .map(|(at, hold)| Conversation::open(&format!("held-{at}"), b"me", &[], Some(hold)))
        .collect::<Result<_>>()?;
    let agent = Agent::observe(scratch.path(), "held", "auto", &[])?;
    drop(holds);
    talks.into_iter().try_for_each(Conversation::go_on)?;
    let ended = stop(agent)?;
    for at in 0..4 {
        let seen = sent_to(&ended, &format!("held-{at}"));
        ensure!(seen == MESSAGES as usize, "{seen} of {MESSAGES} of connection {at}: {}", ended.summary);
    }
    Ok(())
}

#[test]
fn what_is_said_to_a_proxy_is_read_behind() -> Result<()> {
    if !need::live("behind a proxy", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // The broker's end sees what a proxy of its own says to it.
    let agents =
        ["client", "broker"].map(|side| Agent::observe(scratch.path(), side, "auto", &["--side", side]));
    for (name, preface) in PREFACES {
        Conversation::open(name, b"me", preface, None)?.go_on()?;
    }
    for agent in agents {
        let ended = stop(agent?)?;
        for (name, _) in PREFACES {
            let seen = sent_to(&ended, name);
            ensure!(seen == MESSAGES as usize, "{seen} of {MESSAGES} behind {name}: {}", ended.summary);
        }
        ensure!(!format!("{:?}", ended.spans).contains("secret"));
    }
    Ok(())
}

/// HTTPS through a proxy, and what ends before it begins: little is copied, and nothing of it is
/// Kafka.
#[test]
fn other_traffic_of_proxies_is_left() -> Result<()> {
    const BULK: usize = 4 << 20;
    if !need::live("proxies' other traffic", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // Connections of other processes would be counted, too.
    let own = std::process::id().to_string();
    let agent = Agent::observe(scratch.path(), "others", "auto", &["--pid", &own])?;
    let hello = [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], &[7; 500]].concat();
    for first in [&hello[..], b"GET /a/long/path HTTP/1.1\r\nHost: here\r\n\r\n"] {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let ahead = first.len();
        let server = thread::spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            for (words, answer) in PREFACES[3].1 {
                stream.read_exact(&mut vec![0; words.len()])?;
                stream.write_all(answer)?;
            }
            stream.read_exact(&mut vec![0; ahead])?;
            stream.write_all(&vec![0x5a; BULK])?;
            Ok(())
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        for (words, answer) in PREFACES[3].1 {
            stream.write_all(words)?;
            stream.read_exact(&mut vec![0; answer.len()])?;
        }
        stream.write_all(first)?;
        stream.read_to_end(&mut Vec::new())?;
        server.join().map_err(|_| anyhow!("the server panicked"))??;
    }
    let ended = stop(agent)?;
    let others = &ended.summary["not_kafka"];
    ensure!(others["tls_behind_proxy"] == 1 && others["no_request"] == 1, "{}", ended.summary);
    ensure!(ended.summary["connections"] == 0 && ended.spans.is_empty(), "{}", ended.summary);
    ensure!(ended.summary["lost"]["not_kafka"].is_null(), "{}", ended.summary);
    let bytes = ended.summary["bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(bytes < BULK as u64 / 16, "{bytes} bytes copied");
    Ok(())
}

/// Where the user has said that it is Kafka.
#[test]
fn on_a_given_port_only_evidence_gives_up_a_connection() -> Result<()> {
    if !need::live("given ports", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let listeners = (0..5).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
    let ports: Vec<u16> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
    let list = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let agent = Agent::observe(scratch.path(), "given", list, &[])?;
    let long = vec![b'x'; i16::MAX as usize];
    let clients = [&b"a\x01\x1b[2J"[..], b"a\0b", b"\xfc\xff", &long];
    let mut listeners = listeners.into_iter();
    for (at, client) in clients.into_iter().enumerate() {
        let listener = listeners.next().context("a listener each")?;
        let talk = Conversation::with(listener, &format!("client-{at}"), client, &[], None)?;
        ensure!(ports.contains(&talk.port));
        talk.go_on()?;
    }
    let listener = listeners.next().context("a listener each")?;
    let greeting = TcpStream::connect(listener.local_addr()?)?;
    let (mut greeter, _) = listener.accept()?;
    greeter.write_all(b"220 mail.example.org ESMTP\r\n")?;
    sleep(Duration::from_secs(2));
    drop(greeting);
    let ended = stop(agent)?;
    for at in 0..clients.len() {
        let seen = sent_to(&ended, &format!("client-{at}"));
        ensure!(seen == MESSAGES as usize, "{seen} of {MESSAGES} of client {at}: {}", ended.summary);
    }
    ensure!(ended.summary["not_kafka"]["server_speaks_first"] == 1, "{}", ended.summary);
    ensure!(ended.summary["lost"]["not_kafka"] == 1, "{}", ended.summary);
    ensure!(ended.stderr.contains("is not read as Kafka (server_speaks_first)"), "{}", ended.stderr);
    Ok(())
}
