//! The consumer: all partitions from the beginning, until `--expect` messages have come.

use std::error::Error;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;

use crate::connection::Connection;
use crate::options::Options;
use crate::truth::Truth;

struct Partition {
    topic: String,
    number: i32,
    next: i64,
}

pub fn consume(options: &Options, connection: &mut Connection, truth: &Truth) -> Result<(), Box<dyn Error>> {
    let mut partitions = Vec::new();
    for topic in options.get("topic").split(',') {
        let numbers = connection.partitions(topic)?;
        partitions.extend(numbers.into_iter().map(|number| Partition {
            topic: topic.into(),
            number,
            next: 0,
        }));
    }
    let mut left = options.number("expect", u64::MAX);
    while left > 0 {
        let answer = connection.request(12, &request(&partitions))?;
        for topic in answer.responses {
            for data in topic.partitions {
                if data.error_code != 0 {
                    return Err(format!("not read: {data:?}").into());
                }
                let at = partitions
                    .iter_mut()
                    .find(|at| *at.topic == **topic.topic && at.number == data.partition_index)
                    .ok_or("a partition that was not asked for")?;
                for batch in RecordBatchDecoder::decode_all(&mut data.records.unwrap_or_default())? {
                    // a batch comes whole, also if it began earlier
                    for record in batch.records.iter().filter(|record| record.offset >= at.next) {
                        truth.message("received", &at.topic, at.number, record);
                        left = left.saturating_sub(1);
                    }
                    at.next = batch.records.last().map_or(at.next, |record| record.offset + 1);
                }
            }
        }
    }
    Ok(())
}

/// Without a fetch session.
fn request(partitions: &[Partition]) -> FetchRequest {
    let mut request = FetchRequest::default();
    request.replica_id = BrokerId(-1);
    request.max_wait_ms = 200;
    request.min_bytes = 1;
    request.max_bytes = 10_000_000;
    request.session_epoch = -1;
    for partition in partitions {
        let mut one = FetchPartition::default();
        one.partition = partition.number;
        one.current_leader_epoch = -1;
        one.last_fetched_epoch = -1;
        one.log_start_offset = -1;
        one.fetch_offset = partition.next;
        one.partition_max_bytes = 1_000_000;
        if request.topics.last().is_none_or(|topic| **topic.topic != *partition.topic) {
            let mut topic = FetchTopic::default();
            topic.topic = TopicName(StrBytes::from_string(partition.topic.clone()));
            request.topics.push(topic);
        }
        if let Some(topic) = request.topics.last_mut() {
            topic.partitions.push(one);
        }
    }
    request
}
