//! Many connections to a broker from this one process: bytes of Kafka's protocol without a client
//! around them, as 10 000 clients are more than a host of two cores holds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ktrace_testkit::{Batch, Fields, Record};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const API_VERSIONS: i16 = 18;

/// Opens connections, and says something of Kafka on each.
pub fn open(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let hello = request(API_VERSIONS, 0, &Fields::default());
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

fn request(api: i16, version: i16, body: &Fields) -> Vec<u8> {
    Fields::request(api, version, 0, "idle").raw(body).framed()
}

/// Produce version 3 (KIP-98), acks=1: no transaction, one topic, partition 0, one batch.
fn produce(topic: &str) -> Vec<u8> {
    let value = [b'x'; MESSAGE];
    let records = [Record { value: Some(&value), ..Record::default() }; MESSAGES];
    let head = Fields::default().i16(-1).i16(1).i32(30_000).i32(1).old(topic).i32(1).i32(0);
    request(PRODUCE, 3, &head.bytes(Batch::default().of(&records)))
}

/// Fetch version 4 (KIP-98): what is at partition 0's beginning, at most 20 KB, without waiting.
fn fetch(topic: &str) -> Vec<u8> {
    const MOST: i32 = 20_000;
    // No replica, no wait, at least a byte, at most `MOST`, uncommitted ones too.
    let head = Fields::default().i32(-1).i32(0).i32(1).i32(MOST).i8(0);
    request(FETCH, 4, &head.i32(1).old(topic).i32(1).i32(0).i64(0).i32(MOST))
}
