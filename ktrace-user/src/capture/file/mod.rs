//! Capture files as a source of Segments: pcap and pcapng, also gzipped, of any size in constant memory.
//!
//! No process is known here: [`Event::Opened`] comes with no owner. Packets that a capture on several devices holds twice are
//! passed on twice; the stream layer drops what it has seen by sequence number.

mod connections;
mod packet;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, LegacyPcapReader, Linktype, PcapBlockOwned, PcapError, PcapNGReader};
use thiserror::Error;

pub use self::connections::Connections;
use self::packet::{Packet, Skipped};
use super::{Event, Segment, Side};

/// Read at once. Larger than any packet, so that the buffer seldom has to grow.
const BUFFER: usize = 1 << 20;
/// No block of a sound file is larger: the longest packets are below 1 MiB, blocks of TLS secrets not much longer.
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
    #[error("{name} is not a capture file (neither pcap nor pcapng)")]
    NotACapture { name: String },
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
}

impl FileCounters {
    /// Reasons for which bytes were lost, as the summary names them.
    #[must_use]
    pub fn lost(&self) -> [(&'static str, u64); 4] {
        [
            ("ip_fragment", self.fragments),
            ("snaplen", self.snaplen),
            ("packet_headers", self.headers),
            ("link_type", self.link_type),
        ]
    }
}

/// A capture file, opened.
pub struct CaptureFile {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// The reader tells only that reading failed; this is why.
    failure: Failure,
    links: Links,
    counters: FileCounters,
    last_time_ns: u64,
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
            Ok(Some((reader, links))) => {
                Ok(Self { name, reader, failure, links, counters: FileCounters::default(), last_time_ns: 0 })
            }
            Ok(None) => Err(FileError::NotACapture { name }),
            Err(source) => Err(FileError::Open { name, source }),
        }
    }

    #[must_use]
    pub fn counters(&self) -> FileCounters {
        self.counters
    }

    /// Gives every event of the file, until its end or until `stop` is set. `connections` are those of the files before it.
    ///
    /// # Errors
    /// [`FileError::Cut`], [`FileError::Damaged`], [`FileError::Read`], each after the events of what was whole.
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
                    if let Some(raw) = self.links.packet(&block, self.last_time_ns) {
                        self.last_time_ns = raw.time_ns;
                        self.counters.packets = self.counters.packets.saturating_add(1);
                        give(&raw, connections, &mut self.counters, &mut each);
                    }
                    Next::Consume(offset)
                }
                Err(PcapError::Eof) => return Ok(()),
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
                        return Err(self.read_failed());
                    }
                    if self.reader.data().len() == before && !self.reader.reader_exhausted() {
                        capacity = self.grow(capacity)?;
                    }
                }
                Next::Grow => capacity = self.grow(capacity)?,
                // A reader that was told to stop ends anywhere.
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

/// A packet as the file holds it.
struct Raw<'a> {
    link: Linktype,
    time_ns: u64,
    data: &'a [u8],
    original: usize,
}

fn give(
    raw: &Raw<'_>,
    connections: &mut Connections,
    counters: &mut FileCounters,
    each: &mut impl FnMut(Event<'_>),
) {
    let packet = match packet::parse(raw.link, raw.data, raw.original) {
        Ok(packet) => packet,
        Err(Skipped::NotTcp) => return,
        Err(Skipped::Fragment) => return counters.fragments += 1,
        Err(Skipped::Headers) => return counters.headers += 1,
        Err(Skipped::LinkType) => return counters.link_type += 1,
    };
    let Some(placed) = connections.place(&packet) else { return };
    let Packet { seq, ack, syn, fin, rst, payload, len, .. } = packet;
    if payload.len() < len as usize {
        counters.snaplen += 1;
    }
    let connection = placed.connection;
    if let Some(connection) = placed.replaces {
        each(Event::Closed { connection });
    }
    let ends = placed.ends;
    if placed.opens {
        each(Event::Opened { connection, ends, side: Side::Client, owner: None });
    }
    let (direction, time_ns) = (placed.direction, raw.time_ns);
    each(Event::Segment(Segment {
        connection,
        ends,
        side: Side::Client,
        direction,
        seq,
        ack,
        syn,
        fin,
        rst,
        time_ns,
        payload,
        len,
    }));
    if placed.closes {
        each(Event::Closed { connection });
    }
}

/// Link types and clocks: one for a pcap file, one an interface for a section of a pcapng file.
enum Links {
    Pcap { link: Linktype, nanoseconds: bool },
    PcapNg(Vec<Interface>),
}

struct Interface {
    link: Linktype,
    snaplen: u32,
    ticks_per_second: u64,
    offset_seconds: i64,
}

impl Links {
    /// The packet of a block, if it is one; other blocks change what is known of interfaces. Blocks without a time get `last_time_ns`.
    fn packet<'a>(&mut self, block: &'a PcapBlockOwned<'_>, last_time_ns: u64) -> Option<Raw<'a>> {
        match (self, block) {
            (Self::Pcap { link, nanoseconds }, PcapBlockOwned::LegacyHeader(header)) => {
                *link = header.network;
                *nanoseconds = header.is_nanosecond_precision();
                None
            }
            (Self::Pcap { link, nanoseconds }, PcapBlockOwned::Legacy(packet)) => {
                let fraction = u64::from(packet.ts_usec) * if *nanoseconds { 1 } else { 1_000 };
                let time_ns = u64::from(packet.ts_sec) * 1_000_000_000 + fraction;
                Some(Raw { link: *link, time_ns, data: packet.data, original: packet.origlen as usize })
            }
            (Self::PcapNg(interfaces), PcapBlockOwned::NG(block)) => match block {
                Block::SectionHeader(_) => {
                    interfaces.clear();
                    None
                }
                Block::InterfaceDescription(description) => {
                    // The parser reads this option as little-endian in every file.
                    let big_endian = description.block_type != pcap_parser::IDB_MAGIC;
                    let offset = description.if_tsoffset;
                    interfaces.push(Interface {
                        link: description.linktype,
                        snaplen: description.snaplen,
                        ticks_per_second: ticks_per_second(description.if_tsresol),
                        offset_seconds: if big_endian { offset.swap_bytes() } else { offset },
                    });
                    None
                }
                Block::EnhancedPacket(packet) => {
                    let interface = interfaces.get(packet.if_id as usize)?;
                    let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                    let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    Some(Raw {
                        link: interface.link,
                        time_ns: interface.time_ns(ticks),
                        data,
                        original: packet.origlen as usize,
                    })
                }
                Block::SimplePacket(packet) => {
                    let interface = interfaces.first()?;
                    let original = packet.origlen as usize;
                    let snaplen =
                        if interface.snaplen == 0 { usize::MAX } else { interface.snaplen as usize };
                    let data = packet.data.get(..original.min(snaplen)).unwrap_or(packet.data);
                    Some(Raw { link: interface.link, time_ns: last_time_ns, data, original })
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl Interface {
    /// Nanoseconds since 1970 of a count of this interface's ticks.
    fn time_ns(&self, ticks: u64) -> u64 {
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_second);
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        let time = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(time.max(0)).unwrap_or(u64::MAX)
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 where the top bit is set. Beyond 64 bits: microseconds, the default.
fn ticks_per_second(resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(1_000_000)
}

/// Tells the format by its magic number and opens the reader; `None` where it is none.
fn open_reader(
    mut input: Box<dyn Read + Send>,
    failure: &Failure,
) -> io::Result<Option<(Box<dyn PcapReaderIterator + Send>, Links)>> {
    let mut head = read_up_to(&mut input, 4)?;
    if head.starts_with(&GZIP) {
        input = Box::new(MultiGzDecoder::new(Cursor::new(head).chain(input)));
        head = match read_up_to(&mut input, 4) {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    // The readers look at their first read alone for the file's header, and a pipe may give less: so it is read here.
    let swapped = |magic: [u8; 4]| [magic[3], magic[2], magic[1], magic[0]];
    if PCAP.iter().any(|magic| head == *magic || head == swapped(*magic)) {
        head.extend(read_up_to(&mut input, 20)?);
        let reader = LegacyPcapReader::new(BUFFER, failure.watch(Cursor::new(head).chain(input)));
        let links = Links::Pcap { link: Linktype::NULL, nanoseconds: false };
        return Ok(reader.ok().map(|reader| (Box::new(reader) as _, links)));
    }
    if head == PCAPNG {
        head.extend(read_up_to(&mut input, 8)?);
        let Some((length, order)) = head.get(4..12).map(|both| both.split_at(4)) else { return Ok(None) };
        let length = <[u8; 4]>::try_from(length).unwrap_or_default();
        let length = match order {
            [0x4d, 0x3c, 0x2b, 0x1a] => u32::from_le_bytes(length),
            [0x1a, 0x2b, 0x3c, 0x4d] => u32::from_be_bytes(length),
            _ => return Ok(None),
        } as usize;
        if length > BUFFER {
            return Ok(None);
        }
        head.extend(read_up_to(&mut input, length.saturating_sub(head.len()))?);
        let reader = PcapNGReader::new(BUFFER, failure.watch(Cursor::new(head).chain(input)));
        return Ok(reader.ok().map(|reader| (Box::new(reader) as _, Links::PcapNg(Vec::new()))));
    }
    Ok(None)
}

/// Fewer bytes only at the end.
fn read_up_to(input: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(len);
    input.take(len as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Where the error of a failed read waits.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn watch<R: Read>(&self, inner: R) -> Watched<R> {
        Watched { inner, failure: self.clone() }
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
                Err(error) => {
                    let kind = error.kind();
                    *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests;
