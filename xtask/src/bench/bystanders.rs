//! Round trips over loopback on a connection that is not Kafka's: what every other socket of the
//! host pays.
//!
//! Each turn measures without the agent, with each list of ports, and without it again: the ratio
//! of the two without is the noise that the others are held against.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use harness::agent::{self, Agent};
use harness::process;

use super::statistics::Sample;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Short turns: proves that it works
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value = "20")]
    pairs: usize,
    /// Bytes of a message
    #[arg(long, default_value = "100")]
    size: usize,
}

/// Values of `--ports`.
const PORTS: [&str; 2] = ["9092", "auto"];

pub fn run(options: &Options, dir: &Path) -> Result<()> {
    let trips = if options.quick { 20_000 } else { 100_000 };
    let mut peer = Peer::connect(options.size)?;
    peer.trips(trips)?;
    let mut off = Sample::default();
    let mut ratios = [Sample::default(), Sample::default(), Sample::default()];
    for turn in 0..options.pairs {
        let before = peer.trips(trips)?;
        let mut times = [0.0; PORTS.len()];
        for step in 0..PORTS.len() {
            let which = (turn + step) % PORTS.len();
            let mut command = process::command(agent::binary());
            // nothing is to be exported, so no collector has to be there
            command.args(["run", "--otlp", "http://127.0.0.1:4317"]);
            let agent = Agent::start(dir, "agent", &mut command, PORTS[which], &[])?;
            times[which] = peer.trips(trips)?;
            agent.stop_unread()?;
        }
        let after = peer.trips(trips)?;
        off.push(before);
        ratios[0].push(after / before);
        for (which, time) in times.into_iter().enumerate() {
            ratios[which + 1].push(2.0 * time / (before + after));
        }
        eprintln!("  {}/{}: {before:.2} µs, {times:.2?}, {after:.2}", turn + 1, options.pairs);
    }
    println!("| what | round trip of {} B, ratio of {} pairs |", options.size, options.pairs);
    println!("| --- | --- |");
    println!("| no agent, and again none (the noise; {:.2} µs) | {} |", off.median(), ratios[0]);
    for (ports, ratio) in PORTS.iter().zip(&ratios[1..]) {
        println!("| `--ports {ports}` | {ratio} |");
    }
    Ok(())
}

/// One end; the other answers in a thread of its own until this one goes.
struct Peer {
    stream: TcpStream,
    message: Vec<u8>,
}

impl Peer {
    fn connect(size: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut other, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        other.set_nodelay(true)?;
        thread::spawn(move || {
            let mut message = vec![0; size];
            while other.read_exact(&mut message).is_ok() && other.write_all(&message).is_ok() {}
        });
        Ok(Self { stream, message: vec![b'x'; size] })
    }

    /// Microseconds a round trip.
    fn trips(&mut self, count: u32) -> Result<f64> {
        let since = Instant::now();
        for _ in 0..count {
            self.stream.write_all(&self.message)?;
            self.stream.read_exact(&mut self.message)?;
        }
        Ok(since.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    }
}
