//! A link between two network namespaces that loses packets and delivers others late: a TUN device
//! at each end, and between them this. The kernel's own (netem) is not in every kernel.

use std::collections::VecDeque;
use std::ffi::c_short;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{self, opcode};

use crate::namespace::End;

/// How bad the link is. Shares are of all packets of a direction, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Badness {
    pub dropped: f64,
    pub reordered: f64,
    pub seed: u64,
}

/// What became of the packets of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    pub dropped: u64,
    /// Overtaken by at least one that came after them.
    pub reordered: u64,
    /// Held back to be overtaken, but none came in time.
    pub delayed: u64,
}

/// Most packets that overtake one that is held back.
const OVERTAKING: u64 = 3;
/// It is held back no longer than this.
const PATIENCE: Duration = Duration::from_millis(3);
/// How often the end is looked for.
const IDLE: Duration = Duration::from_millis(50);

/// Lives until it is dropped; its devices go with it.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    ways: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    dropped: AtomicU64,
    reordered: AtomicU64,
    delayed: AtomicU64,
}

impl Link {
    /// Joins two namespaces.
    pub fn new(one: End<'_>, other: End<'_>, badness: Badness) -> Result<Self> {
        let [(read_one, write_one), (read_other, write_other)] = {
            let open = |end: End<'_>| -> Result<(File, File)> {
                let device = end.namespace.within(|| tun(end.link))?;
                end.namespace.ip(&format!("address add {} dev {}", end.address, end.link))?;
                end.namespace.ip(&format!("link set {} up", end.link))?;
                Ok((device.try_clone()?, device))
            };
            [open(one)?, open(other)?]
        };
        let shared = Arc::new(Shared::default());
        let ways = [(read_one, write_other, 0), (read_other, write_one, 1 << 63)]
            .into_iter()
            .map(|(from, to, way)| {
                let way = Way {
                    from,
                    to,
                    badness,
                    random: Random(badness.seed ^ way),
                    held: VecDeque::new(),
                    shared: Arc::clone(&shared),
                };
                std::thread::spawn(move || way.run())
            })
            .collect();
        Ok(Self { shared, ways })
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let Shared { packets, dropped, reordered, delayed, .. } = &*self.shared;
        let [packets, dropped, reordered, delayed] =
            [packets, dropped, reordered, delayed].map(|count| count.load(Ordering::Relaxed));
        Counts { packets, dropped, reordered, delayed }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for way in self.ways.drain(..) {
            match way.join() {
                Ok(Ok(())) => {}
                told => eprintln!("the lossy link broke: {told:?}"),
            }
        }
    }
}

/// One direction.
struct Way {
    from: File,
    to: File,
    badness: Badness,
    random: Random,
    held: VecDeque<Held>,
    shared: Arc<Shared>,
}

struct Held {
    packet: Vec<u8>,
    /// Packets that are still to overtake it.
    overtakers: u64,
    overtaken: bool,
    until: Instant,
}

impl Way {
    fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; 65536];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let wait = self
                .held
                .iter()
                .map(|held| held.until)
                .min()
                .map_or(IDLE, |until| until.saturating_duration_since(Instant::now()));
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            let mut ready = [PollFd::new(&self.from, PollFlags::IN)];
            if poll(&mut ready, Some(&wait))? > 0 {
                let len = self.from.read(&mut buffer)?;
                self.packet(&buffer[..len]);
            }
            self.release();
        }
        Ok(())
    }

    fn packet(&mut self, packet: &[u8]) {
        self.shared.packets.fetch_add(1, Ordering::Relaxed);
        let fate = self.random.share();
        let Badness { dropped, reordered, .. } = self.badness;
        if fate < dropped {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else if fate < dropped + reordered {
            self.held.push_back(Held {
                packet: packet.to_vec(),
                overtakers: 1 + self.random.next() % OVERTAKING,
                overtaken: false,
                until: Instant::now() + PATIENCE,
            });
        } else {
            self.send(packet);
            for held in &mut self.held {
                held.overtakers = held.overtakers.saturating_sub(1);
                held.overtaken = true;
            }
        }
    }

    fn release(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            if held.overtakers > 0 && held.until > now {
                at += 1;
                continue;
            }
            if let Some(held) = self.held.remove(at) {
                let count = if held.overtaken { &self.shared.reordered } else { &self.shared.delayed };
                count.fetch_add(1, Ordering::Relaxed);
                self.send(&held.packet);
            }
        }
    }

    /// A packet that the other device does not take (it is going down) is lost like others.
    fn send(&mut self, packet: &[u8]) {
        if self.to.write(packet).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// SplitMix64: the same packets meet the same fate in each run with a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `struct ifreq` (`include/uapi/linux/if.h`) as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: c_short,
    rest: [u8; 22],
}

/// A new TUN device in this thread's namespace: it gives and takes IP packets, one a read or write,
/// without a header before them. The descriptor belongs to the device from then on, in whatever
/// namespace it is read.
fn tun(name: &str) -> Result<File> {
    /// `IFF_TUN | IFF_NO_PI` (`include/uapi/linux/if_tun.h`).
    const FLAGS: c_short = 0x1001;
    const TUNSETIFF: ioctl::Opcode = opcode::write::<std::ffi::c_int>(b'T', 202);
    let device =
        File::options().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads (and writes back) a `struct ifreq`, whatever size its number claims, and
    // this is one, 40 bytes.
    unsafe { ioctl::ioctl(device.as_fd(), ioctl::Updater::<TUNSETIFF, Request>::new(&mut request)) }
        .with_context(|| format!("cannot make the TUN device {name}"))?;
    Ok(device)
}
