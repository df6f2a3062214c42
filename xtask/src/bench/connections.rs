//! Many connections to a broker from this one process: bytes of Kafka's protocol without a client around them, as 10 000
//! clients are more than a host of two cores holds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const API_VERSIONS: i16 = 18;

/// Opens connections, and says something of Kafka on each.
pub fn open(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let hello = request(API_VERSIONS, 0, &[]);
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            exchange(&mut stream, &hello)?;
            Ok(stream)
        })
        .collect()
}

/// Connections in use, until this goes: one half produces, one fetches, each some times a second.
pub struct Busy {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

const THREADS: usize = 4;

/// Messages in a batch, and bytes in a message.
const MESSAGES: usize = 10;
const MESSAGE: usize = 1000;

impl Busy {
    pub fn start(mut streams: Vec<TcpStream>, topic: &str, per_second: u32) -> Self {
        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let share = streams.len().div_ceil(THREADS);
        let turn = Duration::from_secs(1) / per_second;
        let (produce, fetch) = (produce(topic), fetch(topic));
        let mut threads = Vec::new();
        while !streams.is_empty() {
            let mut mine = streams.split_off(streams.len().saturating_sub(share));
            let (stop, exchanges) = (Arc::clone(&stop), Arc::clone(&exchanges));
            let (produce, fetch) = (produce.clone(), fetch.clone());
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let since = Instant::now();
                    for (index, stream) in mine.iter_mut().enumerate() {
                        exchange(stream, if index % 2 == 0 { &produce } else { &fetch })?;
                        exchanges.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(turn.saturating_sub(since.elapsed()));
                }
                Ok(())
            }));
        }
        Self { stop, exchanges, threads }
    }

    /// Requests that were answered so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    }
}

/// Sends a request and reads its response.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<()> {
    stream.write_all(request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut response = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut response)?;
    // correlation id and more
    ensure!(response.len() > 4 && response[..4] == [0; 4], "the broker's answer is another's");
    Ok(())
}

/// A request with the header of version 1, as all below version 9 or so have it.
fn request(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [api.to_be_bytes(), version.to_be_bytes(), [0; 2], [0; 2]].concat();
    text(&mut bytes, "idle");
    bytes.extend(body);
    sized(&bytes)
}

/// Produce version 3 (KIP-98), acks=1: no transaction, one topic, partition 0, one batch.
fn produce(topic: &str) -> Vec<u8> {
    let mut body = [&[0xff; 2][..], &[0, 1], &30_000_i32.to_be_bytes(), &one()].concat();
    text(&mut body, topic);
    body.extend([one(), [0; 4]].concat());
    body.extend(sized(&batch()));
    request(PRODUCE, 3, &body)
}

/// Fetch version 4 (KIP-98): what is at partition 0's beginning, at most 20 KB, without waiting.
fn fetch(topic: &str) -> Vec<u8> {
    let most = 20_000_i32.to_be_bytes();
    // no replica, no wait, at least a byte, at most so many, uncommitted ones too
    let mut body = [&[0xff; 4][..], &[0; 4], &one(), &most, &[0], &one()].concat();
    text(&mut body, topic);
    body.extend([one(), [0; 4]].concat());
    body.extend([0; 8]);
    body.extend(most);
    request(FETCH, 4, &body)
}

/// A batch of magic 2 (KIP-98), of messages without key and headers.
fn batch() -> Vec<u8> {
    // attributes; last offset's delta; two timestamps; producer id, epoch and sequence: none; how many
    let mut after_crc = [0_u8; 2].to_vec();
    after_crc.extend((MESSAGES as i32 - 1).to_be_bytes());
    after_crc.extend([0; 16]);
    after_crc.extend([0xff; 14]);
    after_crc.extend((MESSAGES as i32).to_be_bytes());
    for delta in 0..MESSAGES {
        // attributes, timestamp's and offset's delta, no key (-1)
        let mut record = vec![0, 0, (delta * 2) as u8, 1];
        varint(&mut record, MESSAGE);
        record.extend([b'x'; MESSAGE]);
        // no headers
        record.push(0);
        varint(&mut after_crc, record.len());
        after_crc.extend(record);
    }
    let crc = crc32c::crc32c(&after_crc);
    // leader's epoch, magic
    let after_length = [&[0; 4][..], &[2], &crc.to_be_bytes(), &after_crc].concat();
    [&[0; 8][..], &sized(&after_length)].concat()
}

fn one() -> [u8; 4] {
    1_i32.to_be_bytes()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// Zigzag, so that a length is doubled.
fn varint(bytes: &mut Vec<u8>, value: usize) {
    let mut left = value * 2;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}
