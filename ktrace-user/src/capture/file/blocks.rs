//! Blocks of capture files: packets with their link types and times, and secrets of TLS
//! connections.

use pcap_parser::{Block, Linktype, PcapBlockOwned};

/// The type of secrets that are an NSS key log: "TLSK" (draft-ietf-opsawg-pcapng). Others are those
/// of SSH, `WireGuard`, Zigbee.
pub(super) const TLS_KEY_LOG: u32 = 0x544c_534b;

/// What a block of the file is.
pub(super) enum Found<'a> {
    Packet(Raw<'a>),
    /// A packet of an interface that the file does not describe.
    Unknown,
    /// Lines of a key log.
    Secrets(&'a [u8]),
    Nothing,
}

/// A packet as the file holds it.
pub(super) struct Raw<'a> {
    pub link: Linktype,
    pub time_ns: u64,
    pub data: &'a [u8],
    pub original: usize,
}

/// Link types and clocks: one for a pcap file, one an interface for a section of a pcapng file.
pub(super) enum Links {
    Pcap { link: Linktype, nanoseconds: bool },
    PcapNg(Vec<Interface>),
}

pub(super) struct Interface {
    link: Linktype,
    snaplen: u32,
    ticks_per_second: u64,
    offset_seconds: i64,
}

impl Links {
    /// The packet of a block, if it is one; other blocks change what is known of interfaces. Blocks
    /// without a time get `last_time_ns`.
    pub fn packet<'a>(&mut self, block: &'a PcapBlockOwned<'_>, last_time_ns: u64) -> Found<'a> {
        match (self, block) {
            (Self::Pcap { link, nanoseconds }, PcapBlockOwned::LegacyHeader(header)) => {
                // The upper half is about checksums behind the frames.
                *link = Linktype(header.network.0 & 0xffff);
                *nanoseconds = header.is_nanosecond_precision();
                Found::Nothing
            }
            (Self::Pcap { link, nanoseconds }, PcapBlockOwned::Legacy(packet)) => {
                let fraction = u64::from(packet.ts_usec) * if *nanoseconds { 1 } else { 1_000 };
                let time_ns = u64::from(packet.ts_sec) * 1_000_000_000 + fraction;
                let original = packet.origlen as usize;
                Found::Packet(Raw { link: *link, time_ns, data: packet.data, original })
            }
            (Self::PcapNg(interfaces), PcapBlockOwned::NG(block)) => match block {
                Block::SectionHeader(_) => {
                    interfaces.clear();
                    Found::Nothing
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
                    Found::Nothing
                }
                Block::EnhancedPacket(packet) => {
                    let Some(interface) = interfaces.get(packet.if_id as usize) else {
                        return Found::Unknown;
                    };
                    let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                    let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    Found::Packet(Raw {
                        link: interface.link,
                        time_ns: interface.time_ns(ticks),
                        data,
                        original: packet.origlen as usize,
                    })
                }
                Block::SimplePacket(packet) => {
                    let Some(interface) = interfaces.first() else { return Found::Unknown };
                    let original = packet.origlen as usize;
                    let snaplen =
                        if interface.snaplen == 0 { usize::MAX } else { interface.snaplen as usize };
                    let data = packet.data.get(..original.min(snaplen)).unwrap_or(packet.data);
                    Found::Packet(Raw { link: interface.link, time_ns: last_time_ns, data, original })
                }
                Block::DecryptionSecrets(block) if block.secrets_type.0 == TLS_KEY_LOG => {
                    let len = usize::try_from(block.secrets_len).unwrap_or(usize::MAX);
                    Found::Secrets(block.data.get(..len).unwrap_or(block.data))
                }
                // Packet Blocks, which nothing has written since 2009.
                Block::Unknown(block) if [2, 2_u32.swap_bytes()].contains(&block.block_type) => {
                    Found::Unknown
                }
                _ => Found::Nothing,
            },
            _ => Found::Nothing,
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

/// `if_tsresol`: a negative power of 10, or of 2 where the top bit is set. Beyond 64 bits:
/// microseconds, the default.
fn ticks_per_second(resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(1_000_000)
}
