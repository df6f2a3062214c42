//! Share groups.

use kafka_protocol::messages::*;
use ktrace_kafka::{Event, GroupProtocol, Member, MemberState, Operation, Partition, Topic};

use crate::groups::{Beat, heartbeat_reported};
use crate::random::{Random, message};
use crate::records::{batch, plain};
use crate::{Case, shown, shown_record};

pub fn share_group_heartbeat(g: &mut Random) -> Case {
    use share_group_heartbeat_response::*;
    let request = message!(g, ShareGroupHeartbeatRequest {
        group_id => GroupId(g.string()),
        member_id => g.string(),
        member_epoch => g.below(5) as i32 - 2,
        rack_id => g.nullable_string(),
        subscribed_topic_names => g.nullable_list(|g, index| g.topic(index)),
    });
    let response = message!(g, ShareGroupHeartbeatResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
        error_message => g.nullable_string(),
        member_id => g.nullable_string(),
        member_epoch => g.i32(),
        heartbeat_interval_ms => g.i32(),
        assignment => g.bool().then(|| message!(g, Assignment {
            topic_partitions => g.list(|g, _| message!(g, TopicPartitions {
                topic_id => g.id(),
                partitions => g.list(|g, _| g.i32()),
            })),
        })),
    });
    let topics = response.assignment.as_ref().map(|assignment| {
        let topics = assignment.topic_partitions.iter();
        topics.map(|of| (of.topic_id.as_u128(), of.partitions.clone())).collect()
    });
    let expected = heartbeat_reported(&Beat {
        member: Member {
            protocol: GroupProtocol::Share,
            group_id: &request.group_id,
            member_id: response.member_id.as_deref().unwrap_or(&request.member_id),
            instance_id: None,
            generation_or_epoch: response.member_epoch,
            state: MemberState::Stable,
            error: response.error_code,
        },
        asked_epoch: request.member_epoch,
        topics,
    });
    g.case(&request, &response, expected)
}

/// What both APIs acknowledge: first and last offset, and the types.
type Batches = Vec<(i64, i64, Vec<i8>)>;

fn acknowledged(g: &mut Random) -> Batches {
    g.list(|g, _| (g.i64(), g.i64(), g.list(|g, _| g.below(5) as i8)))
}

pub fn share_acknowledge(g: &mut Random) -> Case {
    use share_acknowledge_request::*;
    use share_acknowledge_response::*;
    let request = message!(g, ShareAcknowledgeRequest {
        group_id => g.nullable_string().map(GroupId),
        member_id => g.nullable_string(),
        share_session_epoch => g.i32(),
        topics => g.list(|g, _| message!(g, AcknowledgeTopic {
            topic_id => g.id(),
            partitions => g.list(|g, index| message!(g, AcknowledgePartition {
                partition_index => g.partition(index),
                acknowledgement_batches => acknowledged(g).into_iter().map(|(first, last, types)| {
                    message!(g, AcknowledgementBatch {
                        first_offset => first,
                        last_offset => last,
                        acknowledge_types => types,
                    })
                }).collect(),
            })),
        })),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            message!(g, PartitionData {
                partition_index => partition.partition_index,
                error_code => g.error(),
                error_message => g.nullable_string(),
                current_leader => message!(g, LeaderIdAndEpoch { leader_id => g.i32(), leader_epoch => g.i32() }),
            })
        });
        let partitions = partitions.collect();
        message!(g, ShareAcknowledgeTopicResponse {
            topic_id => topic.topic_id,
            partitions => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, ShareAcknowledgeResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
        error_message => g.nullable_string(),
        responses => g.shuffled(topics),
        node_endpoints => g.list(|g, _| message!(g, NodeEndpoint {
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            rack => g.nullable_string(),
        })),
    });
    let mut expected = vec![];
    for topic in &request.topics {
        let answers = response.responses.iter().find(|answer| answer.topic_id == topic.topic_id).unwrap();
        for of in &topic.partitions {
            let answer = answers.partitions.iter().find(|a| a.partition_index == of.partition_index).unwrap();
            for batch in &of.acknowledgement_batches {
                let types: Vec<u8> = batch.acknowledge_types.iter().map(|kind| *kind as u8).collect();
                expected.push(shown(&Event::Acknowledged {
                    group_id: request.group_id.as_ref().map_or("", |id| id),
                    member_id: request.member_id.as_deref().unwrap_or_default(),
                    topic: Topic::Id(topic.topic_id.as_u128()),
                    partition: of.partition_index,
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    types: &types,
                    error: if response.error_code == 0 { answer.error_code } else { response.error_code },
                }));
            }
        }
    }
    g.case(&request, &response, expected)
}

pub fn share_fetch(g: &mut Random) -> Case {
    use share_fetch_request::*;
    use share_fetch_response::*;
    let request = message!(g, ShareFetchRequest {
        group_id => g.nullable_string().map(GroupId),
        member_id => g.nullable_string(),
        share_session_epoch => g.i32(),
        max_wait_ms => g.i32(),
        min_bytes => g.i32(),
        max_bytes => g.i32(),
        max_records => g.i32(),
        batch_size => g.i32(),
        topics => g.list(|g, _| message!(g, FetchTopic {
            topic_id => g.id(),
            partitions => g.list(|g, index| message!(g, FetchPartition {
                partition_index => g.partition(index),
                acknowledgement_batches => acknowledged(g).into_iter().map(|(first, last, types)| {
                    message!(g, AcknowledgementBatch {
                        first_offset => first,
                        last_offset => last,
                        acknowledge_types => types,
                    })
                }).collect(),
            })),
        })),
        forgotten_topics_data => g.list(|g, _| message!(g, ForgottenTopic {
            topic_id => g.id(),
            partitions => g.list(|g, _| g.i32()),
        })),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let records: Vec<_> = (100..100 + g.below(8) as i64).map(|offset| plain(g, offset)).collect();
            let mut acquired = vec![];
            let mut at = 98;
            while at < 108 {
                let first = at + g.below(3) as i64;
                let last = first + g.below(4) as i64;
                at = last + 1;
                acquired.push(message!(g, AcquiredRecords {
                    first_offset => first,
                    last_offset => last,
                    delivery_count => 1 + g.below(4) as i16,
                }));
            }
            message!(g, PartitionData {
                partition_index => partition.partition_index,
                error_code => g.error(),
                error_message => g.nullable_string(),
                acknowledge_error_code => g.error(),
                acknowledge_error_message => g.nullable_string(),
                current_leader => message!(g, LeaderIdAndEpoch { leader_id => g.i32(), leader_epoch => g.i32() }),
                records => if records.is_empty() { None } else { Some(batch(g, &records)) },
                acquired_records => g.shuffled(acquired),
            })
        });
        let partitions = partitions.collect();
        message!(g, ShareFetchableTopicResponse {
            topic_id => topic.topic_id,
            partitions => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, ShareFetchResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
        error_message => g.nullable_string(),
        acquisition_lock_timeout_ms => g.i32(),
        responses => g.shuffled(topics),
        node_endpoints => g.list(|g, _| message!(g, NodeEndpoint {
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            rack => g.nullable_string(),
        })),
    });
    let group_id = request.group_id.as_ref().map(|id| &***id);
    let member_id = request.member_id.as_deref();
    let mut expected = vec![];
    for topic in &request.topics {
        let answers = response.responses.iter().find(|answer| answer.topic_id == topic.topic_id).unwrap();
        for of in &topic.partitions {
            let answer = answers.partitions.iter().find(|a| a.partition_index == of.partition_index).unwrap();
            let error = answer.acknowledge_error_code;
            for batch in &of.acknowledgement_batches {
                let types: Vec<u8> = batch.acknowledge_types.iter().map(|kind| *kind as u8).collect();
                expected.push(shown(&Event::Acknowledged {
                    group_id: group_id.unwrap_or_default(),
                    member_id: member_id.unwrap_or_default(),
                    topic: Topic::Id(topic.topic_id.as_u128()),
                    partition: of.partition_index,
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    types: &types,
                    error: if response.error_code == 0 { error } else { response.error_code },
                }));
            }
        }
    }
    let refused = |topic, partition, error| {
        let event = Event::Refused { topic, partition, offset: -1, group_id, error };
        (error != 0).then(|| shown(&event))
    };
    expected.extend(refused(None, None, response.error_code));
    for topic in &response.responses {
        for of in &topic.partitions {
            let id = Some(Topic::Id(topic.topic_id.as_u128()));
            expected.extend(refused(id, Some(of.partition_index), of.error_code));
            let Some(records) = &of.records else { continue };
            for record in crate::records::decoded(records) {
                let mut ranges = of.acquired_records.iter();
                let range = ranges.find(|r| (r.first_offset..=r.last_offset).contains(&record.offset));
                let Some(range) = range else { continue };
                let delivery_count = range.delivery_count;
                let partition = Partition {
                    topic: Topic::Id(topic.topic_id.as_u128()),
                    index: of.partition_index,
                    operation: Operation::ShareFetch { group_id, member_id, delivery_count },
                    error: of.error_code,
                };
                let len = record.value.as_ref().map(|value| value.len());
                expected.push(shown_record(&partition, record.offset, record.key.as_deref(), len));
            }
        }
    }
    g.case(&request, &response, expected)
}
