//! Capture files as a source of Segments: pcap and pcapng, also gzipped, of any size in constant
//! memory.
//!
//! No process is known here: [`Event::Opened`] comes with no owner. Packets that a capture on
//! several devices holds more than once are given once ([`copies`]), and those that stand before
//! what they acknowledge behind it ([`order`]).

mod blocks;
mod connections;
mod copies;
mod order;
mod packet;
mod take;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, Linktype, PcapError, PcapNGReader};
use thiserror::Error;

use self::blocks::{Found, Links, Raw};
pub use self::connections::Connections;
use self::packet::Skipped;
use crate::keys::log_file::SharedKeyLog;
use crate::losses::Reason;
use crate::seen::Event;

/// Read at once. Larger than any packet, so that the buffer seldom has to grow.
const BUFFER: usize = 1 << 20;
/// No block of a sound file is larger: the longest packets are below 1 MiB, blocks of TLS secrets
/// not much longer.
const MAX_BLOCK: usize = 64 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Magic numbers of pcap, microseconds and nanoseconds, in file order of a little-endian writer.
const PCAP: [[u8; 4]; 2] = [[0xd4, 0xc3, 0xb2, 0xa1], [0x4d, 0x3c, 0xb2, 0xa1]];

/// Why a capture file could not be read to its end. What was whole before has been given.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot open {name}: {source}")]
    Open { name: String, source: io::Error },
    #[error("{name} is empty")]
    Empty { name: String },
    #[error("{name} is not a capture file (neither pcap nor pcapng)")]
    NotACapture { name: String },
    #[error("none of the {packets} packets of {name} can be read: {what}")]
    Unreadable { name: String, packets: u64, what: String },
    #[error("{name} is cut: it ends within a packet, after {packets} whole ones")]
    Cut { name: String, packets: u64 },
    #[error("{name} is damaged after packet {packets}: {what}")]
    Damaged { name: String, packets: u64, what: String },
    #[error("cannot read {name} after packet {packets}: {source}")]
    Read { name: String, packets: u64, source: io::Error },
}

impl FileError {
    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => "check the path and that you may read it; - reads standard input",
            Self::NotACapture { .. } => {
                "give a file written by tcpdump -w, dumpcap or Wireshark, plain or gzipped"
            }
            Self::Empty { .. } => {
                "nothing was written to it: check that the capture ran, and that it was ended with Ctrl-C"
            }
            Self::Unreadable { .. } => {
                "capture on an Ethernet or loopback interface, or on all of them (tcpdump -i any)"
            }
            Self::Cut { .. } => {
                "what came before was used; end captures with Ctrl-C so that the last packet is written whole"
            }
            Self::Damaged { .. } => {
                "what came before was used; copy the file again or repair it with Wireshark"
            }
            Self::Read { .. } => {
                "what came before was used; check the disk or the program that writes the file"
            }
        }
    }
}

/// What was met in a capture file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// All packets, also those that are not Kafka's.
    pub packets: u64,
    /// Parts of fragmented IP packets, left out.
    pub fragments: u64,
    /// Packets to or from a Kafka port whose payload the snapshot length has cut.
    pub snaplen: u64,
    /// TCP/IP headers cut or contradictory.
    pub headers: u64,
    /// Packets of link types that are not read here.
    pub link_type: u64,
    /// Packets of interfaces that the file does not describe.
    pub interface: u64,
    /// Packets inside others (VXLAN, Geneve, GRE, IP in IP, MPLS, `PPPoE`) or encrypted (IPsec):
    /// not looked into.
    pub tunnel: u64,
    /// Packets with nothing that the file does not have already: on another interface, before or
    /// after a translation of addresses, or sent again. No loss.
    pub duplicates: u64,
}

impl FileCounters {
    /// Reasons for which bytes were lost, as the summary names them.
    #[must_use]
    pub fn lost(&self) -> [(Reason, u64); 6] {
        [
            (Reason::IpFragment, self.fragments),
            (Reason::Snaplen, self.snaplen),
            (Reason::PacketHeaders, self.headers),
            (Reason::LinkType, self.link_type),
            (Reason::Interface, self.interface),
            (Reason::Tunnel, self.tunnel),
        ]
    }
}

/// A capture file, opened.
pub struct CaptureFile {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// The reader reports only that reading failed; this is why.
    failure: Failure,
    links: Links,
    counters: FileCounters,
    /// Packets by their link types, of those that are not read.
    link_types: BTreeMap<String, u64>,
    last_time_ns: u64,
    /// Since when there has been nothing to read.
    silent: Option<Instant>,
    /// Where secrets of TLS connections go that the file holds.
    key_log: Option<SharedKeyLog>,
    /// Packets are passed over.
    only_secrets: bool,
}

impl CaptureFile {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// [`FileError::Open`], [`FileError::NotACapture`].
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        if path == Path::new("-") {
            return Self::new("standard input".to_owned(), io::stdin());
        }
        match File::open(path) {
            Ok(file) => Self::new(name, file),
            Err(source) => Err(FileError::Open { name, source }),
        }
    }

    /// Takes a capture file from any reader; `name` stands in errors.
    ///
    /// # Errors
    /// [`FileError::Open`], [`FileError::NotACapture`].
    pub fn new(name: String, input: impl Read + Send + 'static) -> Result<Self, FileError> {
        let failure = Failure::default();
        let opened = open_reader(Box::new(input), &failure);
        match opened {
            Ok(Opened::File(reader, links)) => {
                failure.reports_silence();
                Ok(Self {
                    name,
                    reader,
                    failure,
                    links,
                    counters: FileCounters::default(),
                    link_types: BTreeMap::new(),
                    last_time_ns: 0,
                    silent: None,
                    key_log: None,
                    only_secrets: false,
                })
            }
            Ok(Opened::Other) => Err(FileError::NotACapture { name }),
            Ok(Opened::Empty) => Err(FileError::Empty { name }),
            Err(source) => Err(FileError::Open { name, source }),
        }
    }

    /// Secrets of TLS connections that the file holds (Decryption Secrets Blocks of pcapng) go
    /// there, each before the packets behind it.
    #[must_use]
    pub fn with_key_log(self, key_log: SharedKeyLog) -> Self {
        Self { key_log: Some(key_log), ..self }
    }

    /// The secrets alone of a file that may hold any, which is then run for nothing else: they may
    /// stand behind the packets that they are for.
    #[must_use]
    pub fn only_secrets(self, key_log: SharedKeyLog) -> Option<Self> {
        let may_hold = matches!(self.links, Links::PcapNg(_));
        may_hold.then(|| Self { key_log: Some(key_log), only_secrets: true, ..self })
    }

    #[must_use]
    pub fn counters(&self) -> FileCounters {
        self.counters
    }

    /// Packets by their link types, of those that are not read.
    #[must_use]
    pub fn link_types(&self) -> &BTreeMap<String, u64> {
        &self.link_types
    }

    /// Gives every event of the file, until its end or until `stop` is set. `connections` are those
    /// of the files before it, and may hold some back: see [`Connections::finish`]. Where the input
    /// is a pipe that reports when it is silent (by [`io::ErrorKind::WouldBlock`]), time goes on
    /// all the same.
    ///
    /// # Errors
    /// [`FileError::Cut`], [`FileError::Damaged`], [`FileError::Read`], each after the events of
    /// what was whole; [`FileError::Unreadable`].
    pub fn run(
        &mut self,
        connections: &mut Connections,
        stop: &AtomicBool,
        mut each: impl FnMut(Event<'_>),
    ) -> Result<(), FileError> {
        let mut capacity = BUFFER;
        while !stop.load(Ordering::Relaxed) {
            let next = match self.reader.next() {
                Ok((offset, block)) => {
                    match self.links.packet(&block, self.last_time_ns) {
                        Found::Packet(_) if self.only_secrets => {}
                        Found::Packet(raw) => {
                            (self.last_time_ns, self.silent) = (raw.time_ns, None);
                            self.counters.packets = self.counters.packets.saturating_add(1);
                            let link = raw.link;
                            let unread = self.counters.link_type;
                            give(&raw, connections, &mut self.counters, &mut each);
                            if self.counters.link_type > unread {
                                count_link(&mut self.link_types, link);
                            }
                        }
                        Found::Unknown => {
                            self.counters.packets = self.counters.packets.saturating_add(1);
                            self.counters.interface = self.counters.interface.saturating_add(1);
                        }
                        Found::Secrets(lines) => {
                            if let Some(key_log) = &self.key_log {
                                key_log.update(|log| log.lines(lines) > 0);
                            }
                        }
                        Found::Nothing => {}
                    }
                    Next::Consume(offset)
                }
                Err(PcapError::Eof) => return self.is_readable(),
                Err(PcapError::Incomplete(_)) => Next::Refill,
                Err(PcapError::BufferTooSmall) => Next::Grow,
                Err(PcapError::UnexpectedEof) => Next::Fail(None),
                Err(error) => Next::Fail(Some(match error {
                    PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind) => {
                        format!("no packet can be read there ({kind:?})")
                    }
                    other => other.to_string(),
                })),
            };
            match next {
                Next::Consume(offset) => self.reader.consume(offset),
                Next::Refill => {
                    let before = self.reader.data().len();
                    let refilled = self.reader.refill().is_ok();
                    if !refilled {
                        if !self.failure.is_silence() {
                            return Err(self.read_failed());
                        }
                        let silent = self.silent.get_or_insert_with(Instant::now).elapsed();
                        let silent = u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX);
                        let time_ns = self.last_time_ns.saturating_add(silent);
                        connections.turn(time_ns, &mut self.counters, &mut each);
                        each(Event::Tick { time_ns });
                        continue;
                    }
                    if self.reader.data().len() == before && !self.reader.reader_exhausted() {
                        capacity = self.grow(capacity)?;
                    }
                }
                Next::Grow => capacity = self.grow(capacity)?,
                // A reader that was asked to stop ends anywhere.
                Next::Fail(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                Next::Fail(what) => {
                    let (name, packets) = (self.name.clone(), self.counters.packets);
                    return Err(match what {
                        None => FileError::Cut { name, packets },
                        Some(what) => FileError::Damaged { name, packets, what },
                    });
                }
            }
        }
        Ok(())
    }

    /// An error where there were packets, and none of them could be read.
    fn is_readable(&self) -> Result<(), FileError> {
        let FileCounters { packets, link_type, interface, .. } = self.counters;
        if packets == 0 || link_type.saturating_add(interface) < packets {
            return Ok(());
        }
        let mut reasons: Vec<_> = self.link_types.keys().map(|link| format!("link type {link}")).collect();
        if interface > 0 {
            reasons.push("no description of their interface".to_owned());
        }
        Err(FileError::Unreadable { name: self.name.clone(), packets, what: reasons.join(", ") })
    }

    fn grow(&mut self, capacity: usize) -> Result<usize, FileError> {
        let larger = capacity * 2;
        if larger > MAX_BLOCK || !self.reader.grow(larger) {
            return Err(FileError::Damaged {
                name: self.name.clone(),
                packets: self.counters.packets,
                what: format!("the next block claims more than {} MiB", MAX_BLOCK >> 20),
            });
        }
        Ok(larger)
    }

    fn read_failed(&self) -> FileError {
        let (name, packets) = (self.name.clone(), self.counters.packets);
        match self.failure.take() {
            // A gzip stream that ends early.
            Some(source) if source.kind() == io::ErrorKind::UnexpectedEof => FileError::Cut { name, packets },
            Some(source)
                if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) =>
            {
                FileError::Damaged { name, packets, what: source.to_string() }
            }
            Some(source) => FileError::Read { name, packets, source },
            None => FileError::Read { name, packets, source: io::Error::other("reading failed") },
        }
    }
}

enum Next {
    Consume(usize),
    Refill,
    Grow,
    /// With what is wrong, or `None` where the file just ends.
    Fail(Option<String>),
}

fn give(
    raw: &Raw<'_>,
    connections: &mut Connections,
    counters: &mut FileCounters,
    each: &mut impl FnMut(Event<'_>),
) {
    match packet::parse(raw.link, raw.data, raw.original) {
        Ok(packet) => connections.take(&packet, raw.time_ns, counters, each),
        Err(Skipped::NotTcp) => {}
        Err(Skipped::Fragment) => counters.fragments += 1,
        Err(Skipped::Headers) => counters.headers += 1,
        Err(Skipped::LinkType) => counters.link_type += 1,
        Err(Skipped::Tunnel) => counters.tunnel += 1,
    }
}

/// At most this many link types that are not read are named.
const MAX_LINK_TYPES: usize = 16;

/// One more packet of a link type that is not read.
fn count_link(counts: &mut BTreeMap<String, u64>, link: Linktype) {
    let name = packet::link_name(link);
    let full = counts.len() >= MAX_LINK_TYPES && !counts.contains_key(&name);
    let count = counts.entry(if full { "others".to_owned() } else { name }).or_default();
    *count = count.saturating_add(1);
}

/// What an input turns out to be.
enum Opened {
    File(Box<dyn PcapReaderIterator + Send>, Links),
    Other,
    Empty,
}

/// Knows the format by its magic number and opens the reader.
fn open_reader(mut input: Box<dyn Read + Send>, failure: &Failure) -> io::Result<Opened> {
    let mut head = read_up_to(&mut input, 4)?;
    if head.is_empty() {
        return Ok(Opened::Empty);
    }
    if head.starts_with(&GZIP) {
        input = Box::new(MultiGzDecoder::new(Cursor::new(head).chain(input)));
        head = match read_up_to(&mut input, 4) {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Opened::Other),
            Err(error) => return Err(error),
        };
    }
    // The readers look at their first read alone for the file's header, and a pipe may give less:
    // so it is read here.
    let swapped = |magic: [u8; 4]| [magic[3], magic[2], magic[1], magic[0]];
    if PCAP.iter().any(|magic| head == *magic || head == swapped(*magic)) {
        head.extend(read_up_to(&mut input, 20)?);
        let reader = LegacyPcapReader::new(BUFFER, failure.watch(Cursor::new(head).chain(input)));
        let links = Links::Pcap { link: Linktype::NULL, nanoseconds: false };
        return Ok(reader.map_or(Opened::Other, |reader| Opened::File(Box::new(reader), links)));
    }
    if head == PCAPNG {
        head.extend(read_up_to(&mut input, 8)?);
        let Some((length, order)) = head.get(4..12).map(|both| both.split_at(4)) else {
            return Ok(Opened::Other);
        };
        let length = <[u8; 4]>::try_from(length).unwrap_or_default();
        let length = match order {
            [0x4d, 0x3c, 0x2b, 0x1a] => u32::from_le_bytes(length),
            [0x1a, 0x2b, 0x3c, 0x4d] => u32::from_be_bytes(length),
            _ => return Ok(Opened::Other),
        } as usize;
        if length > BUFFER {
            return Ok(Opened::Other);
        }
        head.extend(read_up_to(&mut input, length.saturating_sub(head.len()))?);
        let reader = PcapNGReader::new(BUFFER, failure.watch(Cursor::new(head).chain(input)));
        let links = Links::PcapNg(Vec::new());
        return Ok(reader.map_or(Opened::Other, |reader| Opened::File(Box::new(reader), links)));
    }
    Ok(Opened::Other)
}

/// Fewer bytes only at the end.
fn read_up_to(input: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(len);
    loop {
        let left = len.saturating_sub(head.len()) as u64;
        match input.by_ref().take(left).read_to_end(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(head),
        }
    }
}

/// Where the error of a failed read waits.
#[derive(Clone, Default)]
struct Failure(Arc<Watch>);

#[derive(Default)]
struct Watch {
    error: Mutex<Option<io::Error>>,
    /// That the input is silent for now is an error; else it is waited for.
    reports_silence: AtomicBool,
}

impl Failure {
    fn watch<R: Read>(&self, inner: R) -> Watched<R> {
        Watched { inner, failure: self.clone() }
    }

    fn reports_silence(&self) {
        self.0.reports_silence.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the last read has failed because there is nothing to read for now.
    fn is_silence(&self) -> bool {
        let mut error = self.0.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take_if(|error| error.kind() == io::ErrorKind::WouldBlock).is_some()
    }
}

/// A reader that keeps its error, and reads again after a signal.
struct Watched<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !self.failure.0.reports_silence.load(Ordering::Relaxed) => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.failure.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests;
