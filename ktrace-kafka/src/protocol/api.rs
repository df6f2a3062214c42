//! The table of Kafka's APIs: names, versions, and from which version on the encoding is flexible.
//!
//! Source: Kafka's message schemas (`clients/src/main/resources/common/message/*.json`) of 3.9 and of 4.4.

use super::reader::{ParseError, Result};

/// One API of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// The newest version known.
    pub newest: i16,
    /// The first flexible version (KIP-482); `i16::MAX` for never.
    pub flexible: i16,
}

impl Api {
    /// The API of a key, `None` for keys that no release has.
    #[must_use]
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.get(usize::try_from(key).ok()?)
    }

    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// An error for versions that no known release has.
    pub fn check(&self, version: i16) -> Result<()> {
        if version <= self.newest { Ok(()) } else { Err(ParseError::Unsupported(self.name)) }
    }

    /// Whether the response's header has tagged fields; ApiVersions never has, so that any client can read it.
    #[must_use]
    pub fn response_header_is_flexible(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != key::API_VERSIONS
    }
}

/// Keys of the APIs that have a part in how a connection is read.
pub mod key {
    pub const PRODUCE: i16 = 0;
    pub const FETCH: i16 = 1;
    pub const METADATA: i16 = 3;
    pub const OFFSET_COMMIT: i16 = 8;
    pub const SASL_HANDSHAKE: i16 = 17;
    pub const API_VERSIONS: i16 = 18;
    pub const INIT_PRODUCER_ID: i16 = 22;
    pub const TXN_OFFSET_COMMIT: i16 = 28;
    pub const SASL_AUTHENTICATE: i16 = 36;
    pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
    pub const SHARE_FETCH: i16 = 78;
    pub const SHARE_ACKNOWLEDGE: i16 = 79;
}

const NEVER: i16 = i16::MAX;

macro_rules! apis {
    ($($key:literal $name:literal $newest:literal $flexible:expr;)+) => {
        /// In the order of their keys, without holes.
        static APIS: &[Api] = &[$(Api { key: $key, name: $name, newest: $newest, flexible: $flexible },)+];
    };
}

apis! {
    0 "Produce" 13 9;
    1 "Fetch" 18 12;
    2 "ListOffsets" 11 6;
    3 "Metadata" 13 9;
    4 "LeaderAndIsr" 7 4;
    5 "StopReplica" 4 2;
    6 "UpdateMetadata" 8 6;
    7 "ControlledShutdown" 3 3;
    8 "OffsetCommit" 10 8;
    9 "OffsetFetch" 10 6;
    10 "FindCoordinator" 6 3;
    11 "JoinGroup" 9 6;
    12 "Heartbeat" 4 4;
    13 "LeaveGroup" 5 4;
    14 "SyncGroup" 5 4;
    15 "DescribeGroups" 6 5;
    16 "ListGroups" 5 3;
    17 "SaslHandshake" 1 NEVER;
    18 "ApiVersions" 5 3;
    19 "CreateTopics" 7 5;
    20 "DeleteTopics" 6 4;
    21 "DeleteRecords" 2 2;
    22 "InitProducerId" 6 2;
    23 "OffsetForLeaderEpoch" 4 4;
    24 "AddPartitionsToTxn" 5 3;
    25 "AddOffsetsToTxn" 4 3;
    26 "EndTxn" 5 3;
    27 "WriteTxnMarkers" 2 1;
    28 "TxnOffsetCommit" 6 3;
    29 "DescribeAcls" 3 2;
    30 "CreateAcls" 3 2;
    31 "DeleteAcls" 3 2;
    32 "DescribeConfigs" 4 4;
    33 "AlterConfigs" 2 2;
    34 "AlterReplicaLogDirs" 2 2;
    35 "DescribeLogDirs" 5 2;
    36 "SaslAuthenticate" 2 2;
    37 "CreatePartitions" 3 2;
    38 "CreateDelegationToken" 3 2;
    39 "RenewDelegationToken" 2 2;
    40 "ExpireDelegationToken" 2 2;
    41 "DescribeDelegationToken" 3 2;
    42 "DeleteGroups" 2 2;
    43 "ElectLeaders" 2 2;
    44 "IncrementalAlterConfigs" 1 1;
    45 "AlterPartitionReassignments" 1 0;
    46 "ListPartitionReassignments" 0 0;
    47 "OffsetDelete" 0 NEVER;
    48 "DescribeClientQuotas" 1 1;
    49 "AlterClientQuotas" 1 1;
    50 "DescribeUserScramCredentials" 0 0;
    51 "AlterUserScramCredentials" 0 0;
    52 "Vote" 2 0;
    53 "BeginQuorumEpoch" 1 1;
    54 "EndQuorumEpoch" 1 1;
    55 "DescribeQuorum" 2 0;
    56 "AlterPartition" 3 0;
    57 "UpdateFeatures" 2 0;
    58 "Envelope" 0 0;
    59 "FetchSnapshot" 1 0;
    60 "DescribeCluster" 2 0;
    61 "DescribeProducers" 0 0;
    62 "BrokerRegistration" 4 0;
    63 "BrokerHeartbeat" 2 0;
    64 "UnregisterBroker" 0 0;
    65 "DescribeTransactions" 0 0;
    66 "ListTransactions" 2 0;
    67 "AllocateProducerIds" 0 0;
    68 "ConsumerGroupHeartbeat" 1 0;
    69 "ConsumerGroupDescribe" 1 0;
    70 "ControllerRegistration" 0 0;
    71 "GetTelemetrySubscriptions" 0 0;
    72 "PushTelemetry" 0 0;
    73 "AssignReplicasToDirs" 0 0;
    74 "ListConfigResources" 1 0;
    75 "DescribeTopicPartitions" 0 0;
    76 "ShareGroupHeartbeat" 1 0;
    77 "ShareGroupDescribe" 1 0;
    78 "ShareFetch" 2 0;
    79 "ShareAcknowledge" 2 0;
    80 "AddRaftVoter" 1 0;
    81 "RemoveRaftVoter" 0 0;
    82 "UpdateRaftVoter" 0 0;
    83 "InitializeShareGroupState" 0 0;
    84 "ReadShareGroupState" 0 0;
    85 "WriteShareGroupState" 1 0;
    86 "DeleteShareGroupState" 0 0;
    87 "ReadShareGroupStateSummary" 1 0;
    88 "StreamsGroupHeartbeat" 1 0;
    89 "StreamsGroupDescribe" 1 0;
    90 "DescribeShareGroupOffsets" 1 0;
    91 "AlterShareGroupOffsets" 0 0;
    92 "DeleteShareGroupOffsets" 0 0;
    93 "StreamsGroupTopologyDescriptionUpdate" 0 0;
    94 "UnregisterController" 0 0;
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
