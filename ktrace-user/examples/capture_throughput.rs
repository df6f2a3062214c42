//! How fast the kernel's programs and the ring are, without anything behind them: an agent that only counts. `./dev bench
//! capture` runs it; needs root.
//!
//! The load costs as little as it can, since it has the same two cores: a file is sent with `sendfile` and received
//! without being read (`MSG_TRUNC`), beside what programs usually do, large writes and reads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_common::Counter;
use ktrace_kafka::Push;
use ktrace_user::capture::{Live, LiveOptions};
use ktrace_user::seen::{Direction, Event};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy)]
enum Way {
    Files,
    Writes,
    SmallWrites,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Files => "sendfile of 1 MiB, received unread",
            Self::Writes => "write of 1 MiB, read",
            Self::SmallWrites => "write of 100 B, read",
        }
    }

    /// Of this many bytes a call.
    const fn size(self) -> usize {
        if matches!(self, Self::SmallWrites) { 100 } else { 1 << 20 }
    }
}

struct Run {
    gb_per_s: f64,
    agent: Duration,
    bytes: u64,
    lost: u64,
}

fn main() -> Result<(), Error> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (pairs, gib) = if quick { (2, 1) } else { (10, 8) };
    println!("| load | untraced GB/s | captured GB/s | agent CPU-s/GB | bytes missing | lost |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for way in [Way::Files, Way::Writes, Way::SmallWrites] {
        // small ones are few bytes in a long time
        let total = if matches!(way, Way::SmallWrites) { gib * 20_000_000 } else { gib << 30 };
        let (mut untraced, mut traced, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        let (mut missing, mut lost) = (0, 0);
        for pair in 0..pairs {
            for on in [pair % 2 == 0, pair % 2 == 1] {
                let run = run(way, total, on)?;
                if on {
                    traced.push(run.gb_per_s);
                    cpu.push(run.agent.as_secs_f64() * 1e9 / run.bytes.max(1) as f64);
                    missing += (total / way.size() * way.size()) as u64 - run.bytes;
                    lost += run.lost;
                } else {
                    untraced.push(run.gb_per_s);
                }
            }
        }
        println!(
            "| {} | {} | {} | {:.2} | {missing} | {lost} |",
            way.name(),
            told(untraced),
            told(traced),
            median(&mut cpu)
        );
    }
    Ok(())
}

fn run(way: Way, total: usize, on: bool) -> Result<Run, Error> {
    let total = total / way.size() * way.size();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ports = listener.local_addr()?.port().to_string().parse()?;
    let mut live = match on {
        true => Some(Live::open(LiveOptions { ports, ..LiveOptions::default() })?),
        false => None,
    };
    let stop = AtomicBool::new(false);
    let mut run = Run { gb_per_s: 0.0, agent: Duration::ZERO, bytes: 0, lost: 0 };
    let before = thread_cpu_time();
    run.gb_per_s = thread::scope(|scope| -> Result<f64, Error> {
        let (listener, stop, since) = (&listener, &stop, Instant::now());
        let sender = scope.spawn(move || send(way, listener, total));
        let receiver = scope.spawn(move || {
            let end = receive(way, listener, total).map(|()| since.elapsed());
            stop.store(true, Ordering::Relaxed);
            end
        });
        if let Some(live) = &mut live {
            let mut next = 0;
            let counters = live.run(stop, |event| {
                if let Event::Segment(segment) = event
                    && segment.push.direction == Direction::ToBroker
                {
                    // what is sent again, because the receiver was slow to acknowledge it, counts once
                    let Push { seq, syn, bytes, .. } = segment.push;
                    let len = bytes.len() as u32;
                    let end = seq.wrapping_add(len).wrapping_add(u32::from(syn));
                    let ahead = end.wrapping_sub(next).cast_signed();
                    if syn || ahead > 0 {
                        run.bytes += u64::from(len.min(ahead.unsigned_abs()));
                        next = end;
                    }
                }
            })?;
            run.lost = counters.get(Counter::RingFull).bytes
                + counters.get(Counter::LoadFailed).bytes
                + counters.get(Counter::OverLimit).bytes;
        }
        join(sender)?;
        Ok(total as f64 / 1e9 / join(receiver)?.as_secs_f64())
    })?;
    run.agent = thread_cpu_time().saturating_sub(before);
    Ok(run)
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn send(way: Way, listener: &TcpListener, total: usize) -> Result<(), Error> {
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let bytes = vec![b'x'; way.size()];
    if !matches!(way, Way::Files) {
        for _ in 0..total / way.size() {
            stream.write_all(&bytes)?;
        }
        return Ok(());
    }
    // the program itself: any file that is in memory will do, and stays so while it is sent
    let file = File::open(std::env::current_exe()?)?;
    let size = usize::try_from(file.metadata()?.len())?.min(way.size());
    let mut left = total;
    while left > 0 {
        let mut offset = 0;
        // SAFETY: two open descriptors and a valid place for the offset.
        let sent =
            unsafe { libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), &raw mut offset, size.min(left)) };
        left -= usize::try_from(sent).map_err(|_| std::io::Error::last_os_error())?;
    }
    Ok(())
}

fn receive(way: Way, listener: &TcpListener, total: usize) -> Result<(), Error> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = total;
    while left > 0 {
        let received = if matches!(way, Way::Files) {
            // SAFETY: an open descriptor and room for as many bytes as asked for, none of which is written (tcp(7)).
            let received = unsafe {
                libc::recv(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
            };
            usize::try_from(received).map_err(|_| std::io::Error::last_os_error())?
        } else {
            stream.read(&mut buffer)?
        };
        if received == 0 {
            return Err("the sender has closed too early".into());
        }
        left = left.saturating_sub(received);
    }
    Ok(())
}

/// Median, least and most.
fn told(mut rates: Vec<f64>) -> String {
    let median = median(&mut rates);
    format!("{median:.2} ({:.2}–{:.2})", rates[0], rates[rates.len() - 1])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// CPU time of this thread, which is the one that reads the ring.
fn thread_cpu_time() -> Duration {
    // SAFETY: all-zero bytes are a valid timespec.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
