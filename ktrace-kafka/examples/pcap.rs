//! Prints the messages of a capture file as lines of JSON: `cargo run --example pcap -- FILE [PORT]`.
//!
//! The file is a classic pcap of Ethernet frames, as `tcpdump -w FILE port 9092` writes it.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;

use etherparse::{SlicedPacket, TransportSlice};
use ktrace_kafka::context::Extractor;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Connection, Direction, Head, Limits, Partition, Push, Scratch, Sink, Topic};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError};

struct Json;

impl Sink for Json {
    fn record(&mut self, _: &Head<'_>, partition: &Partition<'_>, _: &Batch<'_>, record: &Record<'_>) {
        let topic = match partition.topic {
            Topic::Name(name) => name.to_owned(),
            Topic::Id(id) => format!("{id:032x}"),
        };
        let trace_id = record.context.context.map(|context| context.trace_id.to_string());
        let message = serde_json::json!({
            "topic": topic,
            "partition": partition.index,
            "offset": record.offset,
            "key": record.key.map(String::from_utf8_lossy),
            "trace_id": trace_id,
        });
        println!("{message}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: pcap FILE [PORT]")?;
    // The broker's.
    let port = std::env::args().nth(2).map_or(Ok(9092), |port| port.parse())?;
    let mut reader = LegacyPcapReader::new(1 << 16, File::open(path)?)?;
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    // By the client's port: one client's host is enough for an example.
    let mut connections: HashMap<u16, Connection> = HashMap::new();
    loop {
        let consumed = match reader.next() {
            Ok((consumed, PcapBlockOwned::Legacy(packet))) => {
                let time_ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * 1000;
                if let Some((client, segment)) = segment(packet.data, port, time_ns) {
                    connections.entry(client).or_default().push(&mut scratch, segment, &mut Json);
                }
                consumed
            }
            Ok((consumed, _)) => consumed,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| error.to_string())?;
                continue;
            }
            Err(PcapError::Eof) => break,
            Err(error) => return Err(error.to_string().into()),
        };
        reader.consume(consumed);
    }
    for connection in connections.values_mut() {
        connection.finish(&mut scratch, &mut Json);
    }
    Ok(())
}

/// A TCP segment to or from the broker, and its client's port.
fn segment(frame: &[u8], port: u16, time_ns: u64) -> Option<(u16, Push<'_>)> {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else {
        return None;
    };
    let (client, direction) = match (tcp.source_port(), tcp.destination_port()) {
        (client, broker) if broker == port => (client, Direction::ToBroker),
        (broker, client) if broker == port => (client, Direction::ToClient),
        _ => return None,
    };
    let bytes = tcp.payload();
    let push = Push {
        direction,
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        bytes,
        len: u32::try_from(bytes.len()).ok()?,
        time_ns,
    };
    Some((client, push))
}
