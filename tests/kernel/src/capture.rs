//! ktrace's capture in a thread of its own: what it has seen of each socket, in order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use ktrace_kafka::Push;
use ktrace_kafka::internal::{Piece, Run, Stream};
use ktrace_user::capture::{Counters, Live, LiveOptions, PortSet};
use ktrace_user::seen::{Direction, Ends, Event, Segment};

/// More than the agent's: what overflows is no matter of this test, and an emulated machine reads
/// slowly what it sends fast.
const RING: usize = 256 << 20;

/// As the agent's.
const MAX_HELD: usize = 8 << 20;

/// What was seen of one socket.
#[derive(Default)]
pub struct Seen {
    pub ends: Option<Ends>,
    /// Processes that were reported as the owner, in order.
    pub owners: Vec<u32>,
    pub to_broker: Way,
    pub to_client: Way,
    pub reset: bool,
    pub syn_data: bool,
    /// Bytes of the largest piece.
    pub largest: usize,
}

/// One direction.
#[derive(Default)]
pub struct Way {
    stream: Stream,
    pub bytes: Vec<u8>,
    /// Bytes that were lost, and how often.
    pub gaps: (u64, u32),
    /// Bytes of all segments, retransmitted ones too.
    pub passed: u64,
}

impl Way {
    fn take<'a>(bytes: &'a mut Vec<u8>, gaps: &'a mut (u64, u32)) -> impl FnMut(Piece<'_>) {
        |piece| match piece {
            Piece::Data { bytes: data, .. } => bytes.extend_from_slice(data),
            Piece::Gap { bytes } => {
                gaps.0 += bytes;
                gaps.1 += 1;
            }
        }
    }

    fn push(&mut self, push: Push<'_>) {
        let Push { seq, bytes, len, syn, fin, time_ns, .. } = push;
        self.passed += bytes.len() as u64;
        let run = Run { seq, bytes, len, syn, fin, time_ns };
        self.stream.push(run, MAX_HELD, Self::take(&mut self.bytes, &mut self.gaps));
    }

    fn acknowledged(&mut self, ack: u32) {
        self.stream.acknowledged(ack, true, Self::take(&mut self.bytes, &mut self.gaps));
    }
}

impl Seen {
    fn segment(&mut self, segment: &Segment<'_>) {
        self.reset |= segment.rst;
        let push = segment.push;
        self.syn_data |= push.syn && !push.bytes.is_empty();
        self.largest = self.largest.max(push.bytes.len());
        let (way, other) = match push.direction {
            Direction::ToBroker => (&mut self.to_broker, &mut self.to_client),
            Direction::ToClient => (&mut self.to_client, &mut self.to_broker),
        };
        // As the agent does: what a segment acknowledges was there before it.
        if let Some(ack) = push.ack {
            other.acknowledged(ack);
        }
        way.push(push);
    }

    /// Nothing more will come.
    fn finish(&mut self) {
        for way in [&mut self.to_broker, &mut self.to_client] {
            way.stream.finish(Way::take(&mut way.bytes, &mut way.gaps));
        }
    }
}

/// By the socket's cookie.
pub type Sockets = HashMap<u64, Seen>;

/// The programs are loaded and attached in each way that leaves other code of them: the kernel
/// checks what is left.
pub fn every_form_loads(ports: &str) -> Result<()> {
    for ports in ["auto", ports] {
        for (client_end, broker_end) in [(true, false), (false, true), (true, true)] {
            for tls in [false, true] {
                let ports: PortSet = ports.parse()?;
                let tls = tls.then(|| ports.clone());
                let form = format!(
                    "{ports}, client's end {client_end}, broker's {broker_end}, TLS {}",
                    tls.is_some()
                );
                let options = LiveOptions { ports, client_end, broker_end, tls, ..LiveOptions::default() };
                Live::open(options).map_err(|error| anyhow!("ports {form}: {error}"))?;
            }
        }
        // A place in this very program is probed and let go.
        let options =
            LiveOptions { ports: ports.parse()?, secrets: Some(Arc::default()), ..LiveOptions::default() };
        let live = Live::open(options).map_err(|error| anyhow!("ports {ports}, secrets: {error}"))?;
        match Path::new("/sys/bus/event_source/devices/uprobe").exists() {
            true => ensure!(live.secrets().is_some(), "libraries cannot be probed"),
            false => println!("lacks: uprobes"),
        }
    }
    Ok(())
}

pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Sockets, Counters)>>,
}

impl Capture {
    /// Captures both ends of all connections of the ports; attached when this returns.
    pub fn start(ports: &str) -> Result<Self> {
        let options = LiveOptions {
            ports: ports.parse()?,
            broker_end: true,
            ring_bytes: RING,
            ..LiveOptions::default()
        };
        let mut live = Live::open(options).map_err(|error| anyhow!("{error}: {}", error.advice()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut sockets = Sockets::new();
            let counters = live.run(&until, |event| match event {
                Event::Opened { connection, ends, owner, .. } => {
                    let seen = sockets.entry(connection.0).or_default();
                    seen.ends = Some(ends);
                    seen.owners.extend(owner.map(|owner| owner.pid));
                }
                Event::Segment(segment) => sockets.entry(segment.connection.0).or_default().segment(&segment),
                Event::Closed { .. } | Event::Tick { .. } => {}
            })?;
            sockets.values_mut().for_each(Seen::finish);
            Ok((sockets, counters))
        });
        Ok(Self { stop, thread })
    }

    /// Reads what is left, and gives all.
    pub fn stop(self) -> Result<(Sockets, Counters)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the capture panicked")?
    }
}
