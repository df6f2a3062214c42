//! What is produced and fetched, with transactions that are committed and aborted.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::records::{Compression, Record, RecordBatchDecoder};
use ktrace_kafka::{Began, Event, Operation, Partition, Topic};
use ktrace_testkit::encoder;

use crate::random::{Random, message};
use crate::{Case, shown, shown_record};

/// A record of no transaction.
pub fn plain(g: &mut Random, offset: i64) -> Record {
    Record { key: g.bool().then(|| g.bytes()), value: g.bool().then(|| g.bytes()), ..encoder::record(offset) }
}

pub fn batch(g: &mut Random, records: &[Record]) -> Bytes {
    // Codecs have tests of their own.
    let compression = if g.below(16) == 0 { Compression::Gzip } else { Compression::None };
    encoder::batch(records, compression)
}

pub fn decoded(set: &Bytes) -> Vec<Record> {
    let sets = RecordBatchDecoder::decode_all(&mut set.clone()).unwrap();
    sets.into_iter().flat_map(|set| set.records).collect()
}

fn line(partition: &Partition<'_>, record: &Record) -> String {
    let len = record.value.as_ref().map(Bytes::len);
    shown_record(partition, record.offset, record.key.as_deref(), len)
}

pub fn produce(g: &mut Random) -> Case {
    use produce_request::*;
    use produce_response::*;
    let v = g.version;
    let mut sent: BTreeMap<(usize, i32), Vec<Record>> = BTreeMap::new();
    let request = message!(g, ProduceRequest {
        transactional_id => g.nullable_string().map(TransactionalId),
        acks => if g.bool() { -1 } else { 1 },
        timeout_ms => g.i32(),
        topic_data => g.list(|g, topic| message!(g, TopicProduceData {
            name if v < 13 => g.topic(topic),
            topic_id if v >= 13 => g.id(),
            partition_data => g.list(|g, index| {
                let partition = g.partition(index);
                let records: Vec<_> = (0..g.below(4) as i64).map(|offset| plain(g, offset)).collect();
                let set = if records.is_empty() { None } else { Some(batch(g, &records)) };
                sent.insert((topic, partition), records);
                message!(g, PartitionProduceData { index => partition, records => set })
            }),
        })),
    });
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|partition| {
            message!(g, PartitionProduceResponse {
                index => partition.index,
                error_code => g.error(),
                base_offset => if g.below(8) == 0 { -1 } else { g.below(1 << 40) as i64 },
                log_append_time_ms => -1,
                log_start_offset if v >= 5 => g.i64(),
                record_errors if v >= 8 => g.list(|g, _| message!(g, BatchIndexAndErrorMessage {
                    batch_index => g.i32(),
                    batch_index_error_message => g.nullable_string(),
                })),
                error_message if v >= 8 => g.nullable_string(),
                current_leader if v >= 10 && g.bool() => message!(g, LeaderIdAndEpoch {
                    leader_id => BrokerId(g.i32()),
                    leader_epoch => g.i32(),
                }),
            })
        });
        let partitions = partitions.collect();
        message!(g, TopicProduceResponse {
            name if v < 13 => topic.name.clone(),
            topic_id if v >= 13 => topic.topic_id,
            partition_responses => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, ProduceResponse {
        responses => g.shuffled(topics),
        throttle_time_ms => g.i32(),
        node_endpoints if v >= 10 => g.list(|g, _| message!(g, NodeEndpoint {
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            rack => g.nullable_string(),
        })),
    });
    let mut expected = vec![];
    let id = request.transactional_id.as_ref().map(|id| &***id);
    for (place, topic) in request.topic_data.iter().enumerate() {
        let mut answers = response.responses.iter();
        let answers = answers.find(|a| (&a.name, a.topic_id) == (&topic.name, topic.topic_id)).unwrap();
        for of in &topic.partition_data {
            let answer = answers.partition_responses.iter().find(|a| a.index == of.index).unwrap();
            let partition = Partition {
                topic: if v >= 13 { Topic::Id(topic.topic_id.as_u128()) } else { Topic::Name(&topic.name) },
                index: of.index,
                operation: Operation::Produce { acks: request.acks, transactional_id: id },
                error: answer.error_code,
            };
            for record in &sent[&(place, of.index)] {
                let known = answer.error_code == 0 && answer.base_offset >= 0;
                let offset = if known { answer.base_offset + record.offset } else { -1 };
                expected.push(line(&partition, &Record { offset, ..record.clone() }));
            }
        }
    }
    g.case(&request, &response, expected)
}

/// A stretch of a log, and what is to be reported of it.
#[derive(Default)]
struct Log {
    set: BytesMut,
    aborted: Vec<(i64, i64)>,
    /// A record, with whether it was aborted; or an event.
    reported: Vec<Reported>,
}

enum Reported {
    Record(Record, bool),
    Marker { producer: i64, offset: i64, commits: bool },
    Aborted { producer: i64, first: i64, last: Option<i64> },
}

/// Producers write in turns; a transaction's fate is known from its beginning.
fn log(g: &mut Random) -> Log {
    let mut log = Log::default();
    let mut open: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
    let mut offset = 1000;
    for _ in 0..g.below(9) {
        let producer = g.below(4) as i64 - 1;
        if let Some(&(first, aborts)) = open.get(&producer)
            && g.below(3) == 0
        {
            open.remove(&producer);
            let mut marker = plain(g, offset);
            (marker.transactional, marker.control) = (true, true);
            (marker.producer_id, marker.producer_epoch) = (producer, 7);
            marker.key = Some(Bytes::copy_from_slice(&[0, 0, 0, u8::from(!aborts)]));
            log.set.extend_from_slice(&encoder::batch(&[marker], Compression::None));
            if aborts {
                log.reported.push(Reported::Aborted { producer, first, last: Some(offset) });
            }
            log.reported.push(Reported::Marker { producer, offset, commits: !aborts });
            offset += 1;
            continue;
        }
        let aborted = producer >= 0 && {
            let (first, aborts) = *open.entry(producer).or_insert_with(|| (offset, g.bool()));
            if aborts && first == offset {
                log.aborted.push((producer, first));
            }
            aborts
        };
        let count = 1 + g.below(3) as i64;
        let records: Vec<_> = (offset..offset + count)
            .map(|offset| Record {
                transactional: producer >= 0,
                producer_id: producer,
                producer_epoch: if producer >= 0 { 7 } else { -1 },
                ..plain(g, offset)
            })
            .collect();
        log.set.extend_from_slice(&batch(g, &records));
        log.reported.extend(records.into_iter().map(|record| Reported::Record(record, aborted)));
        // Compaction leaves holes.
        offset += count + g.below(2) as i64;
    }
    let mut open: Vec<_> = open.into_iter().filter(|(_, (_, aborts))| *aborts).collect();
    open.sort_unstable_by_key(|(_, (first, _))| *first);
    for (producer, (first, _)) in open {
        log.reported.push(Reported::Aborted { producer, first, last: None });
    }
    log
}

pub fn fetch(g: &mut Random) -> Case {
    use fetch_request::*;
    use fetch_response::*;
    let v = g.version;
    let read_committed = g.bool();
    // Now and then it is a follower that fetches.
    let replica = BrokerId(if g.below(8) == 0 { 2 } else { -1 });
    let request = message!(g, FetchRequest {
        cluster_id if v >= 12 => g.nullable_string(),
        replica_id if v < 15 => replica,
        replica_state if v >= 15 && (*replica >= 0 || g.bool()) => message!(g, ReplicaState {
            replica_id => replica,
            replica_epoch => g.i64(),
        }),
        max_wait_ms => g.i32(),
        min_bytes => g.i32(),
        max_bytes => g.i32(),
        isolation_level => i8::from(read_committed),
        session_id if v >= 7 => g.i32(),
        session_epoch if v >= 7 => g.i32(),
        topics => g.list(|g, index| message!(g, FetchTopic {
            topic if v < 13 => g.topic(index),
            topic_id if v >= 13 => g.id(),
            partitions => g.list(|g, index| message!(g, FetchPartition {
                partition => g.partition(index),
                current_leader_epoch if v >= 9 => g.i32(),
                fetch_offset => 990 + g.below(25) as i64,
                last_fetched_epoch if v >= 12 => g.i32(),
                log_start_offset if v >= 5 => g.i64(),
                partition_max_bytes => g.i32(),
                replica_directory_id if v >= 17 => g.id(),
                high_watermark if v >= 18 => g.i64(),
            })),
        })),
        forgotten_topics_data if v >= 7 => g.list(|g, index| message!(g, ForgottenTopic {
            // Others than those that are asked for.
            topic if v < 13 => g.topic(100 + index),
            topic_id if v >= 13 => g.id(),
            partitions => g.list(|g, _| g.i32()),
        })),
        rack_id if v >= 11 => g.string(),
    });
    let mut expected = vec![];
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let log = log(g);
            let (high_watermark, log_start) = (g.i64(), g.i64());
            let error = g.error();
            let shown_topic =
                if v >= 13 { Topic::Id(topic.topic_id.as_u128()) } else { Topic::Name(&topic.topic) };
            let partition = Partition {
                topic: shown_topic,
                index: asked.partition,
                operation: Operation::Fetch {
                    fetch_offset: asked.fetch_offset,
                    high_watermark,
                    read_committed,
                    began: (error == 0 && high_watermark >= 0).then_some(Began {
                        ns: 1_000_000_000,
                        offset: asked.fetch_offset,
                        log_end: high_watermark
                            .clamp(asked.fetch_offset, asked.fetch_offset + i64::from(u32::MAX) - 1),
                        is_log_start: v >= 5 && log_start == asked.fetch_offset,
                    }),
                },
                error,
            };
            if error != 0 {
                expected.push(shown(&Event::Refused {
                    topic: Some(shown_topic),
                    partition: Some(asked.partition),
                    offset: asked.fetch_offset,
                    group_id: None,
                    error,
                }));
            }
            for reported in &log.reported {
                match reported {
                    Reported::Record(record, aborted) => {
                        if record.offset >= asked.fetch_offset && !(*aborted && read_committed) {
                            expected.push(line(&partition, record));
                        }
                    }
                    Reported::Marker { producer, offset, commits } => {
                        expected.push(shown(&Event::Marker {
                            topic: shown_topic,
                            partition: asked.partition,
                            producer_id: *producer,
                            producer_epoch: 7,
                            offset: *offset,
                            commits: *commits,
                        }));
                    }
                    Reported::Aborted { producer, first, last } => {
                        if read_committed {
                            expected.push(shown(&Event::Aborted {
                                topic: shown_topic,
                                partition: asked.partition,
                                producer_id: *producer,
                                first_offset: *first,
                                last_offset: *last,
                            }));
                        }
                    }
                }
            }
            let aborted = log.aborted.iter().map(|(producer, first)| {
                message!(g, AbortedTransaction {
                    producer_id => ProducerId(*producer),
                    first_offset => *first,
                })
            });
            let aborted: Vec<_> = aborted.collect();
            // A slice of the log may end inside a batch.
            let mut set = log.set;
            if g.bool() {
                let next = plain(g, 5000);
                let next = batch(g, &[next]);
                set.extend_from_slice(&next[..g.below(next.len() as u64) as usize]);
            }
            message!(g, PartitionData {
                partition_index => asked.partition,
                error_code => error,
                high_watermark => high_watermark,
                last_stable_offset => g.i64(),
                log_start_offset if v >= 5 => log_start,
                diverging_epoch if v >= 12 && g.bool() => message!(g, EpochEndOffset {
                    epoch => g.i32(),
                    end_offset => g.i64(),
                }),
                current_leader if v >= 12 && g.bool() => message!(g, LeaderIdAndEpoch {
                    leader_id => BrokerId(g.i32()),
                    leader_epoch => g.i32(),
                }),
                snapshot_id if v >= 12 && g.bool() => message!(g, SnapshotId {
                    end_offset => g.i64(),
                    epoch => g.i32(),
                }),
                aborted_transactions => read_committed.then_some(aborted),
                preferred_read_replica if v >= 11 => BrokerId(g.i32()),
                records => Some(set.freeze()),
            })
        });
        let partitions = partitions.collect();
        message!(g, FetchableTopicResponse {
            topic if v < 13 => topic.topic.clone(),
            topic_id if v >= 13 => topic.topic_id,
            partitions => partitions,
        })
    });
    let topics = topics.collect();
    let response = message!(g, FetchResponse {
        throttle_time_ms => g.i32(),
        error_code if v >= 7 => g.error(),
        session_id if v >= 7 => g.i32(),
        responses => topics,
        node_endpoints if v >= 16 => g.list(|g, _| message!(g, NodeEndpoint {
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            rack => g.nullable_string(),
        })),
    });
    if response.error_code != 0 {
        let (topic, partition, offset, group_id) = (None, None, -1, None);
        let error = response.error_code;
        expected.insert(0, shown(&Event::Refused { topic, partition, offset, group_id, error }));
    }
    if *replica >= 0 {
        expected.clear();
    }
    g.case(&request, &response, expected)
}
