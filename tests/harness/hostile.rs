//! Clients that mean ill, and a broker that answers whatever they say: bytes of Kafka's protocol
//! that cost a reader much.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ktrace_testkit::{Batch, Fields, Record, varint};

use crate::process::{self, Process};
use crate::scratch::Scratch;

const MIB: usize = 1 << 20;

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Eight clients, each with a request that goes on and on: this number of bytes of each.
    Unfinished(usize),
    /// Eight clients, each with batches of some kilobytes that hold a gigabyte, for so long.
    Bombs(Duration),
    /// This number of connections, each of which has said something. The file of tests has one by
    /// the name of `holds_connections`.
    Connections(usize),
    /// Eight clients that send small messages as fast as they can, for so long.
    Saturation(Duration),
}

impl Load {
    /// Does it, on this port.
    pub fn run(self, port: u16) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::Builder::new()
                    .stack_size(64 << 10)
                    .spawn(move || answer(stream))
                    .map(drop)
                    .unwrap_or_default();
            }
        });
        match self {
            Self::Unfinished(bytes) => unfinished(port, bytes),
            Self::Bombs(time) => each_of_eight(
                port,
                time,
                &[produce(&batch(4, 1, &bomb())), produce(&batch(4, 1, &large_value()))],
            ),
            Self::Connections(count) => connections(port, count),
            Self::Saturation(time) => each_of_eight(port, time, &[produce(&many_messages()).repeat(8)]),
        }
    }
}

/// Answers each request as a Produce of version 7 is answered. What it gets in the meantime is not
/// kept.
fn answer(mut stream: TcpStream) {
    let mut piece = vec![0; 16 << 10];
    // of the current frame: its first bytes, and how many are to come
    let (mut head, mut left) = (Vec::new(), 0);
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        let mut bytes = &piece[..len];
        while !bytes.is_empty() {
            if left == 0 {
                let (more, rest) = bytes.split_at((12 - head.len()).min(bytes.len()));
                head.extend(more);
                bytes = rest;
                if head.len() < 12 {
                    continue;
                }
                let size = u32::from_be_bytes(head[..4].try_into().unwrap_or_default()) as usize;
                left = size.saturating_sub(8);
            }
            let part = left.min(bytes.len());
            (left, bytes) = (left - part, &bytes[part..]);
            if left == 0 {
                if stream.write_all(&answered(&head[8..12])).is_err() {
                    return;
                }
                head.clear();
            }
        }
    }
}

/// The answer to a Produce of version 7 with this correlation id.
fn answered(correlation_id: &[u8]) -> Vec<u8> {
    let answer = Fields::default().raw(correlation_id).i32(1).old("orders").i32(1).i32(0).i16(0).i64(5);
    answer.i64(-1).i64(0).i32(0).framed()
}

/// What stands before the batch in a Produce of version 7: acks are none but the leader's, the
/// topic has one partition.
fn head_of_produce() -> Fields {
    Fields::request(0, 7, 1, "c").i16(-1).i16(1).i32(30_000).i32(1).old("orders").i32(1).i32(0)
}

fn produce(batch: &[u8]) -> Vec<u8> {
    head_of_produce().bytes(batch).framed()
}

/// A batch of `count` records, which stand there compressed by this codec.
fn batch(codec: i16, count: u32, records: &[u8]) -> Vec<u8> {
    Batch { attributes: codec, ..Batch::default() }.packed(count, records)
}

/// A zstd frame of these bytes, and behind them blocks of 128 KiB of zeros in four bytes each.
fn zstd(first: &[u8], blocks: usize) -> Vec<u8> {
    let header = |is_last: bool, kind: u32, size: usize| {
        ((size as u32) << 3 | kind << 1 | u32::from(is_last)).to_le_bytes()[..3].to_vec()
    };
    // a window of 2 MiB
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 11 << 3];
    frame.extend(header(false, 0, first.len()));
    frame.extend(first);
    for block in 1..=blocks {
        frame.extend(header(block == blocks, 1, 128 << 10));
        frame.push(0);
    }
    frame
}

/// A gigabyte of zeros in 33 kB.
fn bomb() -> Vec<u8> {
    zstd(&[], 8192)
}

/// A record whose value goes on for 100 MiB, in 3 kB.
fn large_value() -> Vec<u8> {
    let zigzag = |value: usize| {
        let mut bytes = Vec::new();
        varint(&mut bytes, value as i64);
        bytes
    };
    // of the value the last zero is the number of headers
    let body = 100 * MIB;
    let record = [&[0, 0, 0, 1][..], &zigzag(body - 1)].concat();
    zstd(&[zigzag(record.len() + body), record].concat(), body / (128 << 10))
}

/// A batch of three hundred messages of 50 bytes.
fn many_messages() -> Vec<u8> {
    Batch::default().of(&[Record { value: Some(&[b'v'; 50]), ..Record::default() }; 300])
}

fn connect(port: u16) -> Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port)).context("cannot connect")
}

fn unfinished(port: u16, bytes: usize) -> Result<()> {
    let mut streams = (0..8).map(|_| connect(port)).collect::<Result<Vec<_>>>()?;
    let total = 95 * MIB;
    let head = head_of_produce();
    for stream in &mut streams {
        stream.write_all(&(total as u32).to_be_bytes())?;
        stream.write_all(&head.0)?;
        stream.write_all(&((total - 200) as u32).to_be_bytes())?;
    }
    let piece = vec![1; 64 << 10];
    for _ in 0..bytes / piece.len() {
        for stream in &mut streams {
            stream.write_all(&piece)?;
        }
        // slow enough for small rings, so that it is memory that is short
        thread::sleep(Duration::from_millis(3));
    }
    // what the agent holds is looked at while the connections are there
    thread::sleep(Duration::from_millis(1500));
    Ok(())
}

fn each_of_eight(port: u16, time: Duration, requests: &[Vec<u8>]) -> Result<()> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|first| {
                scope.spawn(move || {
                    let mut stream = connect(port)?;
                    let mut reader = stream.try_clone()?;
                    thread::spawn(move || {
                        let mut piece = [0; 4096];
                        while matches!(reader.read(&mut piece), Ok(1..)) {}
                    });
                    for request in requests.iter().cycle().skip(first) {
                        if Instant::now() > end {
                            break;
                        }
                        stream.write_all(request)?;
                        // else bombs are all that passes
                        if requests.len() > 1 {
                            thread::sleep(Duration::from_millis(20));
                        }
                    }
                    stream.shutdown(std::net::Shutdown::Both)?;
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(ended) => ended,
            Err(_) => Err(anyhow::anyhow!("a client has panicked")),
        })
    })
}

/// Connections that one process may hold: both ends are its own, and there are other files.
fn most_of_a_process() -> Result<usize> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let limits = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits)?;
    // more than there are ports to one address is no use
    Ok((usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(500) / 2).min(20_000))
}

/// In as many processes as it takes; see [`hold`].
fn connections(port: u16, count: usize) -> Result<()> {
    let each = most_of_a_process()?;
    ensure!(each > 1000, "no descriptors for as many connections");
    let scratch = Scratch::new()?;
    let mut parts = Vec::new();
    for (index, first) in (0..count).step_by(each).enumerate() {
        let part = format!("127.0.0.{}:{port} {}", index + 2, each.min(count - first));
        let mut command = process::command(std::env::current_exe()?);
        command.args(["--ignored", "--exact", HOLDS, "--nocapture"]).env(PART, part);
        let log = scratch.path().join(index.to_string());
        parts.push(Process::start("a part of the connections", &mut command, &log)?);
    }
    for part in &mut parts {
        part.wait_for_line(HOLDING, Duration::from_secs(60))?;
    }
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// The test that calls [`hold`], in each file of tests that has [`Load::Connections`].
const HOLDS: &str = "holds_connections";
/// Says which connections are a process's part.
const PART: &str = "KTRACE_TEST_CONNECTIONS";
/// It has them.
const HOLDING: &str = "all are open";

/// Opens this process's part of the connections, and holds them until it is killed. Each has said
/// something twice, and got an answer.
pub fn hold() -> Result<()> {
    let Ok(part) = std::env::var(PART) else { return Ok(()) };
    let (address, count) = part.split_once(' ').context("no part")?;
    most_of_a_process()?;
    let listener = TcpListener::bind(address)?;
    let hello = produce(&Batch::default().of(&[Record { value: Some(b""), ..Record::default() }]));
    let say = |(client, broker): &mut (TcpStream, TcpStream)| -> Result<()> {
        client.write_all(&hello)?;
        broker.read_exact(&mut vec![0; hello.len()])?;
        broker.write_all(&answered(&hello[8..12]))?;
        Ok(())
    };
    let mut pairs = Vec::new();
    for _ in 0..count.parse()? {
        let mut pair = (TcpStream::connect(address)?, listener.accept()?.0);
        say(&mut pair)?;
        pairs.push(pair);
    }
    pairs.iter_mut().try_for_each(say)?;
    eprintln!("{HOLDING}");
    loop {
        thread::park();
    }
}
