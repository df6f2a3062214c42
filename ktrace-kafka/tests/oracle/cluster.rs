//! Who is who: topics, brokers, coordinators, clients.

use bytes::Bytes;
use kafka_protocol::messages::*;
use ktrace_kafka::CoordinatorKind;
use ktrace_kafka::{Event, Topic};

use crate::random::{Random, message};
use crate::{Case, shown};

fn brokers(g: &mut Random) -> Vec<BrokerId> {
    g.list(|g, _| BrokerId(g.i32()))
}

fn refused(topic: Option<Topic<'_>>, error: i16) -> String {
    shown(&Event::Refused { topic, partition: None, offset: -1, group_id: None, error })
}

/// Events of a topic: its names, and that it is refused.
fn named(id: u128, name: Option<&str>, error: i16) -> Vec<String> {
    let topic = name.map(Topic::Name).or((id != 0).then_some(Topic::Id(id)));
    let names = name.filter(|_| id != 0).map(|name| shown(&Event::Topic { id, name }));
    names.into_iter().chain((error != 0).then(|| refused(topic, error))).collect()
}

pub fn metadata(g: &mut Random) -> Case {
    use metadata_response::*;
    let v = g.version;
    let asked = |g: &mut Random, index| {
        message!(g, metadata_request::MetadataRequestTopic {
            topic_id if v >= 10 => g.id(),
            name => if v >= 10 && g.bool() { None } else { Some(g.topic(index)) },
        })
    };
    let request = message!(g, MetadataRequest {
        topics => if v >= 1 { g.nullable_list(asked) } else { Some(g.list(asked)) },
        allow_auto_topic_creation if v >= 4 => g.bool(),
        include_cluster_authorized_operations if (8..=10).contains(&v) => g.bool(),
        include_topic_authorized_operations if v >= 8 => g.bool(),
    });
    let partition = |g: &mut Random, _| {
        message!(g, MetadataResponsePartition {
            error_code => g.i16(),
            partition_index => g.i32(),
            leader_id => BrokerId(g.i32()),
            leader_epoch if v >= 7 => g.i32(),
            replica_nodes => brokers(g),
            isr_nodes => brokers(g),
            offline_replicas if v >= 5 => brokers(g),
        })
    };
    let response = message!(g, MetadataResponse {
        throttle_time_ms if v >= 3 => g.i32(),
        brokers => g.list(|g, _| message!(g, MetadataResponseBroker {
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            rack if v >= 1 => g.nullable_string(),
        })),
        cluster_id if v >= 2 => g.nullable_string(),
        controller_id if v >= 1 => BrokerId(g.i32()),
        topics => g.list(|g, index| message!(g, MetadataResponseTopic {
            error_code => g.i16(),
            name => if v >= 12 && g.below(4) == 0 { None } else { Some(g.topic(index)) },
            topic_id if v >= 10 && g.below(4) > 0 => g.id(),
            is_internal if v >= 1 => g.bool(),
            partitions => g.list(partition),
            topic_authorized_operations if v >= 8 => g.i32(),
        })),
        cluster_authorized_operations if (8..=10).contains(&v) => g.i32(),
        error_code if v >= 13 => g.i16(),
    });
    let broker = |broker: &MetadataResponseBroker| {
        shown(&Event::Broker { node_id: broker.node_id.0, host: &broker.host, port: broker.port })
    };
    let mut expected: Vec<_> = response.brokers.iter().map(broker).collect();
    if let Some(id) = &response.cluster_id {
        expected.push(shown(&Event::Cluster { id }));
    }
    if response.error_code != 0 {
        expected.push(refused(None, response.error_code));
    }
    for topic in &response.topics {
        expected.extend(named(
            topic.topic_id.as_u128(),
            topic.name.as_ref().map(|name| name.as_str()),
            topic.error_code,
        ));
    }
    g.case(&request, &response, expected)
}

pub fn describe_topic_partitions(g: &mut Random) -> Case {
    use describe_topic_partitions_response::*;
    let request = message!(g, DescribeTopicPartitionsRequest {
        topics => g.list(|g, index| message!(g, describe_topic_partitions_request::TopicRequest { name => g.topic(index) })),
        response_partition_limit => g.i32(),
        cursor => g.bool().then(|| message!(g, describe_topic_partitions_request::Cursor {
            topic_name => g.topic(0),
            partition_index => g.i32(),
        })),
    });
    let response = message!(g, DescribeTopicPartitionsResponse {
        throttle_time_ms => g.i32(),
        topics => g.list(|g, index| message!(g, DescribeTopicPartitionsResponseTopic {
            error_code => g.i16(),
            name => if g.below(4) == 0 { None } else { Some(g.topic(index)) },
            topic_id if g.below(4) > 0 => g.id(),
            is_internal => g.bool(),
            partitions => g.list(|g, _| message!(g, DescribeTopicPartitionsResponsePartition {
                error_code => g.i16(),
                partition_index => g.i32(),
                leader_id => BrokerId(g.i32()),
                leader_epoch => g.i32(),
                replica_nodes => brokers(g),
                isr_nodes => brokers(g),
                eligible_leader_replicas => g.bool().then(|| brokers(g)),
                last_known_elr => g.bool().then(|| brokers(g)),
                offline_replicas => brokers(g),
            })),
            topic_authorized_operations => g.i32(),
        })),
        next_cursor => g.bool().then(|| message!(g, Cursor {
            topic_name => g.topic(0),
            partition_index => g.i32(),
        })),
    });
    let reported = |topic: &DescribeTopicPartitionsResponseTopic| {
        named(topic.topic_id.as_u128(), topic.name.as_ref().map(|name| name.as_str()), topic.error_code)
    };
    let expected = response.topics.iter().flat_map(reported).collect();
    g.case(&request, &response, expected)
}

pub fn api_versions(g: &mut Random) -> Case {
    use api_versions_response::*;
    let v = g.version;
    let request = message!(g, ApiVersionsRequest {
        client_software_name if v >= 3 => g.string(),
        client_software_version if v >= 3 => g.string(),
    });
    let response = message!(g, ApiVersionsResponse {
        // 35 would be answered as in version 0.
        error_code => if g.bool() { 0 } else { 42 },
        api_keys => g.list(|g, _| message!(g, ApiVersion {
            api_key => g.i16(),
            min_version => g.i16(),
            max_version => g.i16(),
        })),
        throttle_time_ms if v >= 1 => g.i32(),
        supported_features if v >= 3 => g.list(|g, _| message!(g, SupportedFeatureKey {
            name => g.string(),
            min_version => g.i16(),
            max_version => g.i16(),
        })),
        finalized_features_epoch if v >= 3 => g.i64(),
        zk_migration_ready if v >= 3 => g.bool(),
    });
    let (name, version) = (&*request.client_software_name, &*request.client_software_version);
    let expected = if name.is_empty() { vec![] } else { vec![shown(&Event::Software { name, version })] };
    g.case(&request, &response, expected)
}

pub fn find_coordinator(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, FindCoordinatorRequest {
        key if v < 4 => g.string(),
        key_type if v >= 1 => g.below(4) as i8,
        coordinator_keys if v >= 4 => g.list(|g, _| g.string()),
    });
    let response = message!(g, FindCoordinatorResponse {
        throttle_time_ms if v >= 1 => g.i32(),
        error_code if v < 4 => g.error(),
        error_message if (1..4).contains(&v) => g.nullable_string(),
        node_id if v < 4 => BrokerId(g.i32()),
        host if v < 4 => g.string(),
        port if v < 4 => g.i32(),
        coordinators if v >= 4 => g.list(|g, _| message!(g, find_coordinator_response::Coordinator {
            key => g.string(),
            node_id => BrokerId(g.i32()),
            host => g.string(),
            port => g.i32(),
            error_code => g.error(),
            error_message => g.nullable_string(),
        })),
    });
    let mut expected = vec![];
    let kinds = [CoordinatorKind::Group, CoordinatorKind::Transaction, CoordinatorKind::Share];
    if let Some(&kind) = kinds.get(request.key_type as usize) {
        if v < 4 {
            let (host, port, error) = (&*response.host, response.port, response.error_code);
            let (key, node_id) = (&*request.key, *response.node_id);
            expected.push(shown(&Event::Coordinator { kind, key, node_id, host, port, error }));
        }
        for of in &response.coordinators {
            let (key, node_id, host, port, error) =
                (&*of.key, *of.node_id, &*of.host, of.port, of.error_code);
            expected.push(shown(&Event::Coordinator { kind, key, node_id, host, port, error }));
        }
    }
    g.case(&request, &response, expected)
}

pub fn sasl_handshake(g: &mut Random) -> Case {
    let request = SaslHandshakeRequest::default().with_mechanism(g.string());
    let response = SaslHandshakeResponse::default()
        .with_error_code(g.error())
        .with_mechanisms(g.list(|g, _| g.string()));
    let expected = vec![shown(&Event::Sasl { mechanism: &request.mechanism, error: response.error_code })];
    g.case(&request, &response, expected)
}

pub fn sasl_authenticate(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, SaslAuthenticateRequest { auth_bytes => g.bytes() });
    let response = message!(g, SaslAuthenticateResponse {
        error_code => g.error(),
        error_message => g.nullable_string(),
        auth_bytes => Bytes::from_static(b"server-first-message"),
        session_lifetime_ms if v >= 1 => g.i64(),
    });
    let expected = if response.error_code == 0 { vec![] } else { vec![refused(None, response.error_code)] };
    g.case(&request, &response, expected)
}
