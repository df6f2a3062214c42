//! Members of groups.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;
use ktrace_kafka::{Event, GroupProtocol, Member, MemberState, Topic};

use crate::random::{Random, message};
use crate::{Case, shown};

pub fn join_group(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, JoinGroupRequest {
        group_id => GroupId(g.string()),
        session_timeout_ms => g.i32(),
        rebalance_timeout_ms if v >= 1 => g.i32(),
        member_id => g.string(),
        group_instance_id if v >= 5 => g.nullable_string(),
        protocol_type => g.string(),
        protocols => g.list(|g, _| message!(g, join_group_request::JoinGroupRequestProtocol {
            name => g.string(),
            metadata => g.bytes(),
        })),
        reason if v >= 8 => g.nullable_string(),
    });
    let response = message!(g, JoinGroupResponse {
        throttle_time_ms if v >= 2 => g.i32(),
        error_code => g.error(),
        generation_id => g.i32(),
        protocol_type if v >= 7 => g.nullable_string(),
        protocol_name => if v >= 7 { g.nullable_string() } else { Some(g.string()) },
        leader => g.string(),
        skip_assignment if v >= 9 => g.bool(),
        member_id => g.string(),
        members => g.list(|g, _| message!(g, join_group_response::JoinGroupResponseMember {
            member_id => g.string(),
            group_instance_id if v >= 5 => g.nullable_string(),
            metadata => g.bytes(),
        })),
    });
    let given = if response.member_id.is_empty() { &request.member_id } else { &response.member_id };
    let expected = vec![shown(&Event::Member(Member {
        protocol: GroupProtocol::Classic,
        group_id: &request.group_id,
        member_id: given,
        instance_id: request.group_instance_id.as_deref(),
        generation_or_epoch: response.generation_id,
        state: MemberState::Joining,
        error: response.error_code,
    }))];
    g.case(&request, &response, expected)
}

/// An assignment in the consumers' own format, and its partitions.
fn assignment(g: &mut Random) -> (Bytes, ConsumerProtocolAssignment) {
    let assignment = ConsumerProtocolAssignment::default()
        .with_assigned_partitions(g.list(|g, index| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(g.topic(index))
                .with_partitions(g.list(|g, _| g.i32()))
        }))
        .with_user_data(g.bool().then(|| g.bytes()));
    let version = g.below(4) as i16;
    let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
    assignment.encode(&mut bytes, version).unwrap();
    (bytes.freeze(), assignment)
}

pub fn sync_group(g: &mut Random) -> Case {
    let v = g.version;
    let protocol_type = match g.below(4) {
        0 => None,
        1 => Some("connect"),
        _ => Some("consumer"),
    };
    let protocol_type = protocol_type.map(kafka_protocol::protocol::StrBytes::from_static_str);
    let request = message!(g, SyncGroupRequest {
        group_id => GroupId(g.string()),
        generation_id => g.i32(),
        member_id => g.string(),
        group_instance_id if v >= 3 => g.nullable_string(),
        protocol_type if v >= 5 => protocol_type.clone(),
        protocol_name if v >= 5 => g.nullable_string(),
        assignments => g.list(|g, _| message!(g, sync_group_request::SyncGroupRequestAssignment {
            member_id => g.string(),
            assignment => g.bytes(),
        })),
    });
    let (bytes, assigned) = match g.below(4) {
        // What another kind of group says is not read, and no error.
        0 => (Bytes::from_static(b"\xff\xffconnect"), None),
        1 => (Bytes::new(), Some(ConsumerProtocolAssignment::default())),
        _ => {
            let (bytes, assignment) = assignment(g);
            (bytes, Some(assignment))
        }
    };
    let response = message!(g, SyncGroupResponse {
        throttle_time_ms if v >= 1 => g.i32(),
        error_code => g.error(),
        protocol_type if v >= 5 && g.bool() => protocol_type.clone(),
        protocol_name if v >= 5 => g.nullable_string(),
        assignment => bytes,
    });
    let (group_id, member_id) = (&*request.group_id, &*request.member_id);
    let generation_or_epoch = request.generation_id;
    let mut expected = vec![shown(&Event::Member(Member {
        protocol: GroupProtocol::Classic,
        group_id,
        member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation_or_epoch,
        state: MemberState::Stable,
        error: response.error_code,
    }))];
    let is_consumer = v < 5 || protocol_type.is_none_or(|name| &*name == "consumer");
    if let (true, 0, Some(assigned)) = (is_consumer, response.error_code, assigned) {
        expected.push(shown(&Event::AssignmentBegins { group_id, member_id, generation_or_epoch }));
        for of in &assigned.assigned_partitions {
            let topic = Topic::Name(&of.topic);
            for &partition in &of.partitions {
                expected.push(shown(&Event::Assigned { group_id, member_id, topic, partition }));
            }
        }
    }
    g.case(&request, &response, expected)
}

pub fn heartbeat(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, HeartbeatRequest {
        group_id => GroupId(g.string()),
        generation_id => g.i32(),
        member_id => g.string(),
        group_instance_id if v >= 3 => g.nullable_string(),
    });
    let response = message!(g, HeartbeatResponse {
        throttle_time_ms if v >= 1 => g.i32(),
        error_code => g.error(),
    });
    let expected = vec![shown(&Event::Member(Member {
        protocol: GroupProtocol::Classic,
        group_id: &request.group_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation_or_epoch: request.generation_id,
        state: MemberState::Stable,
        error: response.error_code,
    }))];
    g.case(&request, &response, expected)
}

pub fn leave_group(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, LeaveGroupRequest {
        group_id => GroupId(g.string()),
        member_id if v < 3 => g.string(),
        members if v >= 3 => g.list(|g, index| message!(g, leave_group_request::MemberIdentity {
            member_id => kafka_protocol::protocol::StrBytes::from_string(format!("{index}{}", g.text())),
            group_instance_id => g.nullable_string(),
            reason if v >= 5 => g.nullable_string(),
        })),
    });
    let left = request
        .members
        .iter()
        .map(|member| {
            message!(g, leave_group_response::MemberResponse {
                member_id => member.member_id.clone(),
                group_instance_id => member.group_instance_id.clone(),
                error_code => g.error(),
            })
        })
        .collect();
    let response = message!(g, LeaveGroupResponse {
        throttle_time_ms if v >= 1 => g.i32(),
        error_code => g.error(),
        members if v >= 3 => g.shuffled(left),
    });
    let leaves = |member_id, instance_id, error| {
        shown(&Event::Member(Member {
            protocol: GroupProtocol::Classic,
            group_id: &request.group_id,
            member_id,
            instance_id,
            generation_or_epoch: -1,
            state: MemberState::Leaving,
            error: if response.error_code == 0 { error } else { response.error_code },
        }))
    };
    let mut expected = vec![];
    if v < 3 {
        expected.push(leaves(&request.member_id, None, 0));
    }
    for member in &request.members {
        let answer = response.members.iter().find(|answer| answer.member_id == member.member_id);
        let error = answer.map_or(0, |answer| answer.error_code);
        expected.push(leaves(&member.member_id, member.group_instance_id.as_deref(), error));
    }
    g.case(&request, &response, expected)
}

pub fn consumer_group_heartbeat(g: &mut Random) -> Case {
    use consumer_group_heartbeat_response::*;
    let v = g.version;
    let request = message!(g, ConsumerGroupHeartbeatRequest {
        group_id => GroupId(g.string()),
        member_id => g.string(),
        member_epoch => g.below(5) as i32 - 2,
        instance_id => g.nullable_string(),
        rack_id => g.nullable_string(),
        rebalance_timeout_ms => g.i32(),
        subscribed_topic_names => g.nullable_list(|g, index| g.topic(index)),
        subscribed_topic_regex if v >= 1 => g.nullable_string(),
        server_assignor => g.nullable_string(),
        topic_partitions => g.nullable_list(|g, _| message!(g, consumer_group_heartbeat_request::TopicPartitions {
            topic_id => g.id(),
            partitions => g.list(|g, _| g.i32()),
        })),
    });
    let response = message!(g, ConsumerGroupHeartbeatResponse {
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
            protocol: GroupProtocol::Consumer,
            group_id: &request.group_id,
            member_id: response.member_id.as_deref().unwrap_or(&request.member_id),
            instance_id: request.instance_id.as_deref(),
            generation_or_epoch: response.member_epoch,
            state: MemberState::Stable,
            error: response.error_code,
        },
        asked_epoch: request.member_epoch,
        topics,
    });
    g.case(&request, &response, expected)
}

/// A heartbeat of one of the newer protocols.
pub struct Beat<'a> {
    /// With the response's epoch.
    pub member: Member<'a>,
    pub asked_epoch: i32,
    pub topics: Option<Vec<(u128, Vec<i32>)>>,
}

pub fn heartbeat_reported(beat: &Beat<'_>) -> Vec<String> {
    let mut member = beat.member;
    member.state = match beat.asked_epoch {
        0 => MemberState::Joining,
        -1 => MemberState::Leaving,
        -2 => MemberState::Pausing,
        _ => MemberState::Stable,
    };
    if member.error != 0 {
        member.generation_or_epoch = beat.asked_epoch;
    }
    let mut expected = vec![shown(&Event::Member(member))];
    let Member { group_id, member_id, generation_or_epoch, error, .. } = member;
    if let (0, Some(topics)) = (error, &beat.topics) {
        expected.push(shown(&Event::AssignmentBegins { group_id, member_id, generation_or_epoch }));
        for (id, partitions) in topics {
            let topic = Topic::Id(*id);
            for &partition in partitions {
                expected.push(shown(&Event::Assigned { group_id, member_id, topic, partition }));
            }
        }
    }
    expected
}
