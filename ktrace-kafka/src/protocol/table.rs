//! The table of Kafka's APIs: key, name, newest version, first flexible version, and what is read
//! of their bodies.
//!
//! An API that is read is a file of this folder: structs for its request and its response, and the
//! events of both. It is named here once.
//!
//! Source: Kafka's message schemas (`clients/src/main/resources/common/message/*.json`) of 3.9 and
//! of 4.4.

use super::add_offsets_to_txn::AddOffsetsToTxn;
use super::add_partitions_to_txn::AddPartitionsToTxn;
use super::api::Api;
use super::api_versions::ApiVersions;
use super::bodies::Records;
use super::consumer_group_heartbeat::ConsumerGroupHeartbeat;
use super::describe_topic_partitions::DescribeTopicPartitions;
use super::end_txn::EndTxn;
use super::fetch::Fetch;
use super::find_coordinator::FindCoordinator;
use super::heartbeat::Heartbeat;
use super::init_producer_id::InitProducerId;
use super::join_group::JoinGroup;
use super::leave_group::LeaveGroup;
use super::list_offsets::ListOffsets;
use super::metadata::Metadata;
use super::offset_commit::OffsetCommit;
use super::offset_fetch::OffsetFetch;
use super::produce::Produce;
use super::sasl_authenticate::SaslAuthenticate;
use super::sasl_handshake::SaslHandshake;
use super::share_acknowledge::ShareAcknowledge;
use super::share_fetch::ShareFetch;
use super::share_group_heartbeat::ShareGroupHeartbeat;
use super::streams_group_heartbeat::StreamsGroupHeartbeat;
use super::sync_group::SyncGroup;
use super::txn_offset_commit::TxnOffsetCommit;

const NEVER: i16 = i16::MAX;

/// In the order of their keys, without holes, so that a key is a place.
#[rustfmt::skip]
static APIS: &[Api] = &[
    Api::new(0, "Produce", 13, 9).records::<Produce>(Records::Produced),
    Api::new(1, "Fetch", 18, 12).records::<Fetch>(Records::Fetched),
    Api::new(2, "ListOffsets", 11, 6).events::<ListOffsets>(),
    Api::new(3, "Metadata", 13, 9).events_of_response::<Metadata>(),
    Api::new(4, "LeaderAndIsr", 7, 4),
    Api::new(5, "StopReplica", 4, 2),
    Api::new(6, "UpdateMetadata", 8, 6),
    Api::new(7, "ControlledShutdown", 3, 3),
    Api::new(8, "OffsetCommit", 10, 8).events::<OffsetCommit>(),
    Api::new(9, "OffsetFetch", 10, 6).events::<OffsetFetch>(),
    Api::new(10, "FindCoordinator", 6, 3).events::<FindCoordinator>(),
    Api::new(11, "JoinGroup", 9, 6).events::<JoinGroup>(),
    Api::new(12, "Heartbeat", 4, 4).events::<Heartbeat>(),
    Api::new(13, "LeaveGroup", 5, 4).events::<LeaveGroup>(),
    Api::new(14, "SyncGroup", 5, 4).events::<SyncGroup>(),
    Api::new(15, "DescribeGroups", 6, 5),
    Api::new(16, "ListGroups", 5, 3),
    Api::new(17, "SaslHandshake", 1, NEVER).events::<SaslHandshake>(),
    Api::new(18, "ApiVersions", 5, 3).events::<ApiVersions>(),
    Api::new(19, "CreateTopics", 7, 5),
    Api::new(20, "DeleteTopics", 6, 4),
    Api::new(21, "DeleteRecords", 2, 2),
    Api::new(22, "InitProducerId", 6, 2).events::<InitProducerId>(),
    Api::new(23, "OffsetForLeaderEpoch", 4, 4),
    Api::new(24, "AddPartitionsToTxn", 5, 3).events::<AddPartitionsToTxn>(),
    Api::new(25, "AddOffsetsToTxn", 4, 3).events::<AddOffsetsToTxn>(),
    Api::new(26, "EndTxn", 5, 3).events::<EndTxn>(),
    Api::new(27, "WriteTxnMarkers", 2, 1),
    Api::new(28, "TxnOffsetCommit", 6, 3).events::<TxnOffsetCommit>(),
    Api::new(29, "DescribeAcls", 3, 2),
    Api::new(30, "CreateAcls", 3, 2),
    Api::new(31, "DeleteAcls", 3, 2),
    Api::new(32, "DescribeConfigs", 4, 4),
    Api::new(33, "AlterConfigs", 2, 2),
    Api::new(34, "AlterReplicaLogDirs", 2, 2),
    Api::new(35, "DescribeLogDirs", 5, 2),
    Api::new(36, "SaslAuthenticate", 2, 2).events_of_response::<SaslAuthenticate>(),
    Api::new(37, "CreatePartitions", 3, 2),
    Api::new(38, "CreateDelegationToken", 3, 2),
    Api::new(39, "RenewDelegationToken", 2, 2),
    Api::new(40, "ExpireDelegationToken", 2, 2),
    Api::new(41, "DescribeDelegationToken", 3, 2),
    Api::new(42, "DeleteGroups", 2, 2),
    Api::new(43, "ElectLeaders", 2, 2),
    Api::new(44, "IncrementalAlterConfigs", 1, 1),
    Api::new(45, "AlterPartitionReassignments", 1, 0),
    Api::new(46, "ListPartitionReassignments", 0, 0),
    Api::new(47, "OffsetDelete", 0, NEVER),
    Api::new(48, "DescribeClientQuotas", 1, 1),
    Api::new(49, "AlterClientQuotas", 1, 1),
    Api::new(50, "DescribeUserScramCredentials", 0, 0),
    Api::new(51, "AlterUserScramCredentials", 0, 0),
    Api::new(52, "Vote", 2, 0),
    Api::new(53, "BeginQuorumEpoch", 1, 1),
    Api::new(54, "EndQuorumEpoch", 1, 1),
    Api::new(55, "DescribeQuorum", 2, 0),
    Api::new(56, "AlterPartition", 3, 0),
    Api::new(57, "UpdateFeatures", 2, 0),
    Api::new(58, "Envelope", 0, 0),
    Api::new(59, "FetchSnapshot", 1, 0),
    Api::new(60, "DescribeCluster", 2, 0),
    Api::new(61, "DescribeProducers", 0, 0),
    Api::new(62, "BrokerRegistration", 4, 0),
    Api::new(63, "BrokerHeartbeat", 2, 0),
    Api::new(64, "UnregisterBroker", 0, 0),
    Api::new(65, "DescribeTransactions", 0, 0),
    Api::new(66, "ListTransactions", 2, 0),
    Api::new(67, "AllocateProducerIds", 0, 0),
    Api::new(68, "ConsumerGroupHeartbeat", 1, 0).events::<ConsumerGroupHeartbeat>(),
    Api::new(69, "ConsumerGroupDescribe", 1, 0),
    Api::new(70, "ControllerRegistration", 0, 0),
    Api::new(71, "GetTelemetrySubscriptions", 0, 0),
    Api::new(72, "PushTelemetry", 0, 0),
    Api::new(73, "AssignReplicasToDirs", 0, 0),
    Api::new(74, "ListConfigResources", 1, 0),
    Api::new(75, "DescribeTopicPartitions", 0, 0).events_of_response::<DescribeTopicPartitions>(),
    Api::new(76, "ShareGroupHeartbeat", 1, 0).events::<ShareGroupHeartbeat>(),
    Api::new(77, "ShareGroupDescribe", 1, 0),
    Api::new(78, "ShareFetch", 2, 0).records::<ShareFetch>(Records::ShareFetched),
    Api::new(79, "ShareAcknowledge", 2, 0).events::<ShareAcknowledge>(),
    Api::new(80, "AddRaftVoter", 1, 0),
    Api::new(81, "RemoveRaftVoter", 0, 0),
    Api::new(82, "UpdateRaftVoter", 0, 0),
    Api::new(83, "InitializeShareGroupState", 0, 0),
    Api::new(84, "ReadShareGroupState", 0, 0),
    Api::new(85, "WriteShareGroupState", 1, 0),
    Api::new(86, "DeleteShareGroupState", 0, 0),
    Api::new(87, "ReadShareGroupStateSummary", 1, 0),
    Api::new(88, "StreamsGroupHeartbeat", 1, 0).events::<StreamsGroupHeartbeat>(),
    Api::new(89, "StreamsGroupDescribe", 1, 0),
    Api::new(90, "DescribeShareGroupOffsets", 1, 0),
    Api::new(91, "AlterShareGroupOffsets", 0, 0),
    Api::new(92, "DeleteShareGroupOffsets", 0, 0),
    Api::new(93, "StreamsGroupTopologyDescriptionUpdate", 0, 0),
    Api::new(94, "UnregisterController", 0, 0),
];

impl Api {
    /// The API of a key, `None` for keys that no release has.
    #[must_use]
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.get(usize::try_from(key).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_keys() {
        for (index, api) in APIS.iter().enumerate() {
            assert_eq!(usize::try_from(api.key), Ok(index), "{}", api.name);
        }
    }

    /// The oracle has none of it.
    #[test]
    fn brokers_of_4_3_say_that_they_live() {
        assert_eq!(Api::of(63).map(|api| (api.name, api.check(2))), Some(("BrokerHeartbeat", Ok(()))));
    }

    #[test]
    fn versions_agree_with_the_oracle() {
        for api in APIS {
            let Ok(oracle) = kafka_protocol::messages::ApiKey::try_from(api.key) else { continue };
            let range = oracle.valid_versions();
            assert!(api.newest >= range.max, "{}: {} < {}", api.name, api.newest, range.max);
            for version in range.min..=range.max {
                assert_eq!(
                    api.is_flexible(version),
                    oracle.request_header_version(version) >= 2,
                    "{} v{version}",
                    api.name
                );
                assert_eq!(
                    api.response_header_is_flexible(version),
                    oracle.response_header_version(version) >= 1,
                    "{} v{version}",
                    api.name
                );
            }
        }
    }
}
