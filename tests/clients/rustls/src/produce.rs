//! The producer: batches of ten to one partition after the other.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::connection::Connection;
use crate::options::Options;
use crate::truth::Truth;

const BATCH: u64 = 10;

pub fn produce(options: &Options, connection: &mut Connection, truth: &Truth) -> Result<(), Box<dyn Error>> {
    let topic = options.get("topic");
    let partitions = connection.partitions(topic)?;
    let count = options.number("count", 1);
    let pause = Duration::from_millis(options.number("interval-ms", 0));
    // where it pauses after each message, each is sent alone
    let batch = if pause.is_zero() { BATCH } else { 1 };
    let mut turns = partitions.iter().copied().cycle();
    for from in (0..count).step_by(batch as usize) {
        let partition = turns.next().ok_or("the topic has no partitions")?;
        let to = count.min(from + batch);
        let mut records =
            (from..to).map(|number| record(options, number, number - from)).collect::<Result<Vec<_>, _>>()?;
        let base = send(options, connection, topic, partition, &records)?;
        for (record, offset) in records.iter_mut().zip(base..) {
            record.offset = offset;
            truth.message("sent", topic, partition, record);
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// The offset of the first.
fn send(
    options: &Options,
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    records: &[Record],
) -> Result<i64, Box<dyn Error>> {
    if options.get("codec") != "none" {
        return Err("this client does not compress".into());
    }
    let mut batch = BytesMut::new();
    let uncompressed = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, records, &uncompressed)?;
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.freeze()));
    let mut of_topic = TopicProduceData::default();
    of_topic.name = TopicName(StrBytes::from_string(topic.to_owned()));
    of_topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 30_000;
    request.topic_data = vec![of_topic];
    let answer = connection.request(9, &request)?;
    let written = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    match written {
        Some(written) if written.error_code == 0 => Ok(written.base_offset),
        _ => Err(format!("not written: {answer:?}").into()),
    }
}

/// The message of this number, which is so far into its batch.
fn record(options: &Options, number: u64, index: u64) -> Result<Record, Box<dyn Error>> {
    let size = options.number("payload", 100) as usize;
    let text: String = "item-0 ".chars().cycle().take(size).collect();
    let mut headers = IndexMap::new();
    match options.get("header-style") {
        "none" => {}
        "traceparent" => {
            let value = format!("00-{}-{}-01", hex(16)?, hex(8)?);
            headers.insert(StrBytes::from_static_str("traceparent"), Some(Bytes::from(value)));
        }
        other => return Err(format!("unknown header style: {other}").into()),
    }
    Ok(Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: index as i64,
        // the encoder makes one batch of records whose offsets are as far from their sequence numbers
        sequence: index as i32 + NO_SEQUENCE,
        timestamp: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64,
        key: Some(Bytes::from(format!("{}-{number}", options.get("client-id")))),
        value: Some(Bytes::from(text)),
        headers,
    })
}

fn hex(bytes: usize) -> Result<String, std::io::Error> {
    let mut random = vec![0; bytes];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
