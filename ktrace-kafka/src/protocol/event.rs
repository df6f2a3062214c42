//! What exchanges say besides records: who is who, who is in which group, what was committed, what
//! was aborted.
//!
//! Names are those of Kafka's message schemas. An `error` is Kafka's code ([`super::error::name`]),
//! 0 for none; where there is one, the rest is what was asked for and did not happen. Strings are
//! as the wire has them, at most 32 KiB each: whoever keeps them bounds them.

use super::topic::Topic;

/// Takes events, one after the other.
pub type Emit<'x> = dyn FnMut(&Event<'_>) + 'x;

/// One thing that an exchange says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are named as in Kafka's message schemas")]
pub enum Event<'a> {
    /// The client named its software (ApiVersions).
    Software { name: &'a str, version: &'a str },
    /// The cluster's id (Metadata).
    Cluster { id: &'a str },
    /// Where clients reach a broker of the cluster (Metadata). The host is a name or an address;
    /// the port may be any number.
    Broker { node_id: i32, host: &'a str, port: i32 },
    /// A topic's id and name (Metadata, DescribeTopicPartitions).
    Topic { id: u128, name: &'a str },
    /// The broker that coordinates a group or a transaction (FindCoordinator).
    Coordinator {
        kind: CoordinatorKind,
        /// The group's id, the transactional id, or `group:topic id:partition`.
        key: &'a str,
        node_id: i32,
        host: &'a str,
        port: i32,
        /// Kafka's error code, 0 for none.
        error: i16,
    },
    /// A member of a group (JoinGroup, SyncGroup, Heartbeat, LeaveGroup, the heartbeats of the
    /// other protocols).
    Member(Member<'a>),
    /// A member's assignment follows, one [`Event::Assigned`] or [`Event::AssignedTask`] a
    /// partition; it takes the place of the former one, and may be empty.
    AssignmentBegins { group_id: &'a str, member_id: &'a str, generation_or_epoch: i32 },
    /// A partition that a member is to read from now on.
    Assigned { group_id: &'a str, member_id: &'a str, topic: Topic<'a>, partition: i32 },
    /// An active task of Kafka Streams: the partition of all source topics of a subtopology.
    AssignedTask { group_id: &'a str, member_id: &'a str, subtopology_id: &'a str, partition: i32 },
    /// An offset was committed for a group (OffsetCommit, TxnOffsetCommit).
    Committed(Committed<'a>),
    /// Where a group stands (OffsetFetch).
    Position {
        /// The group's id.
        group_id: &'a str,
        /// The topic.
        topic: Topic<'a>,
        /// The partition's number.
        partition: i32,
        /// −1 where nothing is committed.
        offset: i64,
        /// Kafka's error code, 0 for none.
        error: i16,
    },
    /// An offset of the log (ListOffsets).
    LogOffset {
        /// The topic.
        topic: Topic<'a>,
        /// The partition's number.
        partition: i32,
        /// Milliseconds since 1970, or what was asked for: −1 the latest, −2 the earliest, −3 that
        /// of the largest timestamp, −4 the earliest local, −5 the latest tiered, −6 the earliest
        /// that is not tiered yet.
        timestamp: i64,
        /// −1 where there is none.
        offset: i64,
        /// Kafka's error code, 0 for none.
        error: i16,
    },
    /// A producer got its id (InitProducerId), or another one at a transaction's end (EndTxn 5,
    /// KIP-890).
    Producer { transactional_id: Option<&'a str>, producer_id: i64, producer_epoch: i16, error: i16 },
    /// A partition is written to in a transaction (AddPartitionsToTxn).
    TransactionPartition { transaction: Transaction<'a>, topic: Topic<'a>, partition: i32, error: i16 },
    /// A group's offsets are committed in a transaction (AddOffsetsToTxn).
    TransactionGroup { transaction: Transaction<'a>, group_id: &'a str, error: i16 },
    /// A transaction ends (EndTxn).
    TransactionEnd {
        transaction: Transaction<'a>,
        /// Aborted else.
        committed: bool,
        /// Kafka's error code, 0 for none.
        error: i16,
    },
    /// A producer's messages from `first_offset` on are aborted (a read-committed Fetch). Each
    /// response lists anew what reaches into it.
    Aborted {
        /// The topic.
        topic: Topic<'a>,
        /// The partition's number.
        partition: i32,
        /// The id that the broker gave the producer.
        producer_id: i64,
        first_offset: i64,
        /// Where the abort marker stands; `None` if it lies behind this response.
        last_offset: Option<i64>,
    },
    /// A transaction's marker in the log (Fetch).
    Marker {
        /// The topic.
        topic: Topic<'a>,
        /// The partition's number.
        partition: i32,
        /// The id that the broker gave the producer.
        producer_id: i64,
        /// The producer's epoch: an older one is fenced.
        producer_epoch: i16,
        offset: i64,
        /// Aborts else.
        commits: bool,
    },
    /// Messages of a share group were acknowledged (ShareFetch, ShareAcknowledge).
    Acknowledged {
        /// The group's id.
        group_id: &'a str,
        member_id: &'a str,
        /// The topic.
        topic: Topic<'a>,
        /// The partition's number.
        partition: i32,
        first_offset: i64,
        last_offset: i64,
        /// 0 gap, 1 accept, 2 release, 3 reject, 4 renew: one for each offset, or one for all.
        types: &'a [u8],
        /// Kafka's error code, 0 for none.
        error: i16,
    },
    /// The broker refuses what was asked: a Fetch or ShareFetch as a whole or a partition of it, a
    /// topic (Metadata, DescribeTopicPartitions), a group's offsets (OffsetFetch), an
    /// authentication (SaslAuthenticate). Events above have an `error` of their own.
    Refused {
        /// Of a partition, or of a topic as a whole; `None` where all that was asked is refused.
        topic: Option<Topic<'a>>,
        /// The partition's number.
        partition: Option<i32>,
        /// From where on a Fetch asked for the partition; −1 if unknown.
        offset: i64,
        /// Where the exchange names it.
        group_id: Option<&'a str>,
        /// Never 0.
        error: i16,
    },
    /// The mechanism of authentication (SaslHandshake). Credentials are never part of an event.
    Sasl { mechanism: &'a str, error: i16 },
}

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoordinatorKind {
    /// A consumer group.
    Group,
    /// A transactional producer.
    Transaction,
    /// A share group (KIP-932).
    Share,
}

/// Which protocol a group rebalances by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// JoinGroup and SyncGroup.
    Classic,
    /// KIP-848.
    Consumer,
    /// KIP-932.
    Share,
    /// KIP-1071.
    Streams,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It joins: JoinGroup, or a heartbeat with epoch 0.
    Joining,
    /// It takes part: SyncGroup, or a heartbeat. Error 27: a rebalance goes on.
    Stable,
    /// It leaves: LeaveGroup, or a heartbeat with epoch −1.
    Leaving,
    /// A static member goes and will be back: a heartbeat with epoch −2.
    Pausing,
}

impl MemberState {
    /// What the epoch of a heartbeat's request says (KIP-848, KIP-932, KIP-1071).
    #[must_use]
    pub fn of_epoch(member_epoch: i32) -> Self {
        match member_epoch {
            0 => Self::Joining,
            -1 => Self::Leaving,
            -2 => Self::Pausing,
            _ => Self::Stable,
        }
    }
}

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Which protocol its group rebalances by.
    pub protocol: GroupProtocol,
    /// The group's id.
    pub group_id: &'a str,
    /// As the response gives it where the request has none; empty if unknown.
    pub member_id: &'a str,
    /// Of a static member (KIP-345).
    pub instance_id: Option<&'a str>,
    /// The generation (classic) or the member's epoch, as the response has it where it has one.
    pub generation_or_epoch: i32,
    /// What it does.
    pub state: MemberState,
    /// Kafka's error code, 0 for none.
    pub error: i16,
}

/// A commit of one partition's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<'a> {
    /// The group's id.
    pub group_id: &'a str,
    /// Empty where the committer is no member (an admin's tool).
    pub member_id: &'a str,
    /// −1 where the committer is no member.
    pub generation_or_epoch: i32,
    /// The topic.
    pub topic: Topic<'a>,
    /// The partition's number.
    pub partition: i32,
    /// Of the next message to be read.
    pub offset: i64,
    /// −1 if unknown.
    pub leader_epoch: i32,
    /// The transaction that the commit is a part of: it counts when that is committed.
    pub transaction: Option<Transaction<'a>>,
    /// Kafka's error code, 0 for none.
    pub error: i16,
}

/// A transaction: its producer, at one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The id that its producer was configured with.
    pub transactional_id: &'a str,
    /// The id that the broker gave the producer.
    pub producer_id: i64,
    /// The producer's epoch: an older one is fenced.
    pub producer_epoch: i16,
}
