//! Secrets of TLS connections from probes on the functions that derive them: for ciphers whose keys
//! cannot be recognised in memory (ChaCha20), and for processes that end at once.
//!
//! ```text
//!  a process connects to a broker's port ─▶ what it has mapped ─▶ probes on those files, for all processes
//!  a probe sees a secret, in a process that has just connected so ─▶ ring ─▶ store ─▶ a record that it opens shows whose it is
//! ```
//!
//! A probe is a breakpoint in the text of other programs: each call takes some microseconds more.
//! Only handshakes make such calls.

mod attach;
mod derived;
mod gopclntab;
mod mapped;
mod target;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use aya::programs::ProgramFd;
use ktrace_common::{Secret, SecretKind};
use zerocopy::FromBytes as _;

pub use derived::{Derived, Store};
pub use watch::Watch;

use attach::{Attacher, Probe};
use mapped::Identity;
use target::{Function, Point};

/// Files with probes at a time. One host has few versions of a few libraries; containers bring
/// their own.
const FILES: usize = 64;
/// Files of which is known that there is nothing to probe.
const OTHERS: usize = 4096;

/// The programs, loaded for one way of attaching them.
pub struct Programs {
    pub kdf_derive: ProgramFd,
    pub go_key_log: ProgramFd,
}

/// What is probed, and what came of it.
pub struct Probes {
    attacher: Attacher,
    programs: Programs,
    probed: HashMap<Identity, Probed>,
    others: HashMap<Identity, ()>,
    counts: Counts,
    say: fn(&str),
}

struct Probed {
    file: File,
    _probes: Vec<Probe>,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that have probes now.
    pub files: usize,
    /// Files that were looked at.
    pub looked_at: u64,
    /// Files that could not be probed.
    pub failed: u64,
    /// Files that were not probed as there were as many as there may be.
    pub over_limit: u64,
    /// The longest that it took from a look at a process to its probes.
    pub longest: Duration,
}

impl Probes {
    /// Attaches by links where the kernel knows them, else by events. Fails where this kernel lets
    /// no file be probed, or not us: that is tried with our own.
    pub fn new(by_link: Option<Programs>, by_event: Programs, say: fn(&str)) -> io::Result<Self> {
        let own = File::open("/proc/self/exe")?;
        let entry = target::entry(&&own).ok_or(io::ErrorKind::InvalidData)?;
        let by_link =
            by_link.filter(|programs| Attacher::Link.attach(&programs.kdf_derive, &own, entry).is_ok());
        let (attacher, programs) = match by_link {
            Some(programs) => (Attacher::Link, programs),
            None => {
                let attacher = Attacher::by_event()?;
                drop(attacher.attach(&by_event.kdf_derive, &own, entry)?);
                (attacher, by_event)
            }
        };
        let (probed, others) = (HashMap::new(), HashMap::new());
        Ok(Self { attacher, programs, probed, others, counts: Counts::default(), say })
    }

    /// Whether it makes events (`perf_event_open`).
    #[must_use]
    pub fn makes_events(&self) -> bool {
        matches!(self.attacher, Attacher::Event { .. })
    }

    /// So far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { files: self.probed.len(), ..self.counts }
    }

    /// A process is about to begin a handshake: probes what it has mapped, where that was not done
    /// yet.
    pub fn look_at(&mut self, pid: u32) {
        let begun = Instant::now();
        let files = match mapped::executables(pid) {
            Ok(files) => files,
            Err(error) => {
                // It has ended, most often.
                tracing::debug!(pid, %error, "what a process has mapped cannot be read");
                return;
            }
        };
        let mut new = false;
        for (identity, file) in files {
            if self.probed.contains_key(&identity) || self.others.contains_key(&identity) {
                continue;
            }
            new = true;
            self.counts.looked_at += 1;
            match target::points(&&file).as_slice() {
                [] => {
                    if self.others.len() >= OTHERS {
                        self.others.clear();
                    }
                    self.others.insert(identity, ());
                }
                points => self.probe(identity, file, points),
            }
        }
        if new {
            self.counts.longest = self.counts.longest.max(begun.elapsed());
        }
    }

    fn probe(&mut self, identity: Identity, file: File, points: &[Point]) {
        if self.probed.len() >= FILES {
            // Those of files that are gone: only what still runs has them.
            self.probed.retain(|_, probed| probed.file.metadata().is_ok_and(|meta| meta.nlink() > 0));
        }
        if self.probed.len() >= FILES {
            if self.counts.over_limit == 0 {
                (self.say)(&format!(
                    "{FILES} libraries and executables are probed for secrets of TLS: those of programs \
                    with others are not seen"
                ));
            }
            self.counts.over_limit += 1;
            return;
        }
        let attach = |point: &Point| {
            let program = match point.function {
                Function::KdfDerive => &self.programs.kdf_derive,
                Function::GoKeyLog => &self.programs.go_key_log,
            };
            self.attacher.attach(program, &file, point.offset)
        };
        let probes: io::Result<Vec<Probe>> = points.iter().map(attach).collect();
        match probes {
            Ok(probes) => {
                tracing::debug!(?points, "a file is probed for secrets of TLS");
                self.probed.insert(identity, Probed { file, _probes: probes });
            }
            Err(error) => {
                if self.counts.failed == 0 {
                    (self.say)(&format!(
                        "a library cannot be probed for secrets of TLS: {error}; those of the programs \
                        that use it are not seen"
                    ));
                }
                self.counts.failed += 1;
                // Not tried again and again.
                self.others.insert(identity, ());
            }
        }
    }
}

/// Reads a record; `None` for what the programs never write, and what says nothing.
fn decode(record: &[u8]) -> Option<(SecretKind, Secret)> {
    let kind = SecretKind::from_byte(*record.first()?)?;
    let (secret, _) = Secret::read_from_prefix(record).ok().filter(|_| kind != SecretKind::Blank)?;
    Some((kind, secret))
}
