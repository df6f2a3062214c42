//! Offsets of groups and of the log.

use kafka_protocol::messages::*;
use ktrace_kafka::{Committed, Event, Topic};

use crate::random::{Random, message};
use crate::{Case, shown};

pub fn offset_commit(g: &mut Random) -> Case {
    use offset_commit_request::*;
    use offset_commit_response::*;
    let v = g.version;
    let request = message!(g, OffsetCommitRequest {
        group_id => GroupId(g.string()),
        generation_id_or_member_epoch => g.i32(),
        member_id => g.string(),
        group_instance_id if v >= 7 => g.nullable_string(),
        retention_time_ms if (2..=4).contains(&v) => g.i64(),
        topics => g.list(|g, index| message!(g, OffsetCommitRequestTopic {
            name => g.topic(index),
            partitions => g.list(|g, index| message!(g, OffsetCommitRequestPartition {
                partition_index => g.partition(index),
                committed_offset => g.i64(),
                committed_leader_epoch if v >= 6 => g.i32(),
                committed_metadata => g.nullable_string(),
            })),
        })),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            message!(g, OffsetCommitResponsePartition {
                partition_index => partition.partition_index,
                error_code => g.error(),
            })
        });
        let partitions = partitions.collect();
        message!(g, OffsetCommitResponseTopic {
            name => topic.name.clone(),
            partitions => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, OffsetCommitResponse {
        throttle_time_ms if v >= 3 => g.i32(),
        topics => g.shuffled(topics),
    });
    let mut expected = vec![];
    for topic in &request.topics {
        let answers = response.topics.iter().find(|answer| answer.name == topic.name).unwrap();
        for commit in &topic.partitions {
            let answer = answers.partitions.iter().find(|a| a.partition_index == commit.partition_index);
            expected.push(shown(&Event::Committed(Committed {
                group_id: &request.group_id,
                member_id: &request.member_id,
                generation_or_epoch: request.generation_id_or_member_epoch,
                topic: Topic::Name(&topic.name),
                partition: commit.partition_index,
                offset: commit.committed_offset,
                leader_epoch: commit.committed_leader_epoch,
                transaction: None,
                error: answer.unwrap().error_code,
            })));
        }
    }
    g.case(&request, &response, expected)
}

pub fn offset_fetch(g: &mut Random) -> Case {
    use offset_fetch_request::*;
    use offset_fetch_response::*;
    let v = g.version;
    let asked = |g: &mut Random, index| {
        message!(g, OffsetFetchRequestTopic {
            name => g.topic(index),
            partition_indexes => g.list(|g, _| g.i32()),
        })
    };
    let request = message!(g, OffsetFetchRequest {
        group_id if v < 8 => GroupId(g.string()),
        topics => match v {
            1 => Some(g.list(asked)),
            2..8 => g.nullable_list(asked),
            _ => Some(vec![]),
        },
        groups if v >= 8 => g.list(|g, _| message!(g, OffsetFetchRequestGroup {
            group_id => GroupId(g.string()),
            member_id if v >= 9 => g.nullable_string(),
            member_epoch if v >= 9 => g.i32(),
            topics => g.nullable_list(|g, index| message!(g, OffsetFetchRequestTopics {
                name => g.topic(index),
                partition_indexes => g.list(|g, _| g.i32()),
            })),
        })),
        require_stable if v >= 7 => g.bool(),
    });
    let response = message!(g, OffsetFetchResponse {
        throttle_time_ms if v >= 3 => g.i32(),
        topics if v < 8 => g.list(|g, index| message!(g, OffsetFetchResponseTopic {
            name => g.topic(index),
            partitions => g.list(|g, index| message!(g, OffsetFetchResponsePartition {
                partition_index => g.partition(index),
                committed_offset => g.i64(),
                committed_leader_epoch if v >= 5 => g.i32(),
                metadata => g.nullable_string(),
                error_code => g.error(),
            })),
        })),
        error_code if (2..8).contains(&v) => g.error(),
        groups if v >= 8 => g.list(|g, _| message!(g, OffsetFetchResponseGroup {
            group_id => GroupId(g.string()),
            topics => g.list(|g, index| message!(g, OffsetFetchResponseTopics {
                name => g.topic(index),
                partitions => g.list(|g, index| message!(g, OffsetFetchResponsePartitions {
                    partition_index => g.partition(index),
                    committed_offset => g.i64(),
                    committed_leader_epoch => g.i32(),
                    metadata => g.nullable_string(),
                    error_code => g.error(),
                })),
            })),
            error_code => g.error(),
        })),
    });
    let mut expected = vec![];
    let mut group = |group_id: &str, partitions: &[(&str, i32, i64, i16)], whole: i16| {
        if whole != 0 && partitions.is_empty() {
            let (topic, partition, offset, group_id) = (None, None, -1, Some(group_id));
            expected.push(shown(&Event::Refused { topic, partition, offset, group_id, error: whole }));
        }
        for (topic, partition, offset, error) in partitions {
            expected.push(shown(&Event::Position {
                group_id,
                topic: Topic::Name(topic),
                partition: *partition,
                offset: *offset,
                error: if whole == 0 { *error } else { whole },
            }));
        }
    };
    if v < 8 {
        let partitions = response.topics.iter().flat_map(|topic| {
            let of = |p: &OffsetFetchResponsePartition| {
                (topic.name.as_str(), p.partition_index, p.committed_offset, p.error_code)
            };
            topic.partitions.iter().map(of)
        });
        group(&request.group_id, &partitions.collect::<Vec<_>>(), response.error_code);
    }
    for of in &response.groups {
        let partitions = of.topics.iter().flat_map(|topic| {
            let of = |p: &OffsetFetchResponsePartitions| {
                (topic.name.as_str(), p.partition_index, p.committed_offset, p.error_code)
            };
            topic.partitions.iter().map(of)
        });
        group(&of.group_id, &partitions.collect::<Vec<_>>(), of.error_code);
    }
    g.case(&request, &response, expected)
}

pub fn list_offsets(g: &mut Random) -> Case {
    use list_offsets_request::*;
    use list_offsets_response::*;
    let v = g.version;
    let request = message!(g, ListOffsetsRequest {
        replica_id => BrokerId(if g.below(8) == 0 { 3 } else { -1 }),
        isolation_level if v >= 2 => g.below(2) as i8,
        topics => g.list(|g, index| message!(g, ListOffsetsTopic {
            name => g.topic(index),
            partitions => g.list(|g, index| message!(g, ListOffsetsPartition {
                partition_index => g.partition(index),
                current_leader_epoch if v >= 4 => g.i32(),
                timestamp => g.i64(),
            })),
        })),
        timeout_ms if v >= 10 => g.i32(),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            message!(g, ListOffsetsPartitionResponse {
                partition_index => partition.partition_index,
                error_code => g.error(),
                timestamp => g.i64(),
                offset => g.i64(),
                leader_epoch if v >= 4 => g.i32(),
            })
        });
        let partitions = partitions.collect();
        message!(g, ListOffsetsTopicResponse {
            name => topic.name.clone(),
            partitions => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, ListOffsetsResponse {
        throttle_time_ms if v >= 2 => g.i32(),
        topics => g.shuffled(topics),
    });
    let mut expected = vec![];
    // A follower's are no client's.
    for topic in request.topics.iter().filter(|_| *request.replica_id < 0) {
        let answers = response.topics.iter().find(|answer| answer.name == topic.name).unwrap();
        for asked in &topic.partitions {
            let answer = answers.partitions.iter().find(|a| a.partition_index == asked.partition_index);
            let answer = answer.unwrap();
            expected.push(shown(&Event::LogOffset {
                topic: Topic::Name(&topic.name),
                partition: asked.partition_index,
                timestamp: asked.timestamp,
                offset: answer.offset,
                error: answer.error_code,
            }));
        }
    }
    g.case(&request, &response, expected)
}
