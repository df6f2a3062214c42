//! Kafka's error table: codes, their names (`org.apache.kafka.common.protocol.Errors`), and what a
//! client's application gets to know of them.
//!
//! A broker's error is not an application's: clients try again by themselves, and take some for
//! success. The outcomes are those of Java's client (kafka-clients 4.3.0), librdkafka (2.12.1) and
//! franz-go (1.20.6; its share consumer 1.22.3), read in their sources. `docs/semantics.md` has the
//! table for readers. By column:
//!
//! - Produce: one client that sends again is enough for [`Outcome::Retry`], as whoever gives up
//!   sends no other attempt. Java's `Sender.canRetry` does so after every `RetriableException`, and
//!   `TransactionManager.canRetry` after 45 and 59; franz-go's `sink.handleReqRespBatch` after 8,
//!   too. After 47 and 49 franz-go alone sends again, and that outside of transactions only, where
//!   it expects neither: they are failures.
//! - Fetch: what most clients do. Java's `FetchCollector`, `ShareFetchCollector`
//!   (`handleInitializeErrors`) and `FetchSessionHandler`, `ShareSessionHandler`
//!   (`handleResponse`); librdkafka's `rd_kafka_fetch_reply_handle_partition_error`; franz-go's
//!   `source.fetch` and `source.handleReqResp`.
//! - Commit: what most clients do. Java's `ConsumerCoordinator.OffsetCommitResponseHandler`,
//!   `CommitRequestManager.OffsetCommitRequestState` and
//!   `TransactionManager.TxnOffsetCommitHandler`; librdkafka's
//!   `rd_kafka_handle_OffsetCommit_error`, `rd_kafka_cgrp_op_handle_OffsetCommit` and
//!   `rd_kafka_txn_handle_TxnOffsetCommit`; franz-go's `handleCoordinatorReq` and
//!   `groupConsumer.commit`. Of 100, Java's client decides: no other one commits by topic id.
//! - Acknowledge: Java's `ShareConsumeRequestManager` decides (`handlePartitionError`), and
//!   franz-go does the same but for 8 and 51 (`isShareAckRetryable`): after a `RetriableException`
//!   they send again, but for 3, 6, 74 and 100, whose locks are gone or whose records come again.
//!   After 122 and 123, too, both fail what was acknowledged: a session cannot begin with
//!   acknowledgements (`ShareSessionHandler.newShareAcknowledgeBuilder`). librdkafka 2.12.1 has no
//!   share groups.
//! - Other: [`Outcome::Retry`] and [`Outcome::Ordinary`] hide a refusal, for a time or for good. So
//!   they stand only for what most clients handle by name in some request of groups, offsets,
//!   transactions or metadata: `AbstractCoordinator`, `AbstractHeartbeatRequestManager`,
//!   `CommitRequestManager`, `OffsetFetcherUtils`, `OffsetsForLeaderEpochUtils`,
//!   `TransactionManager`, `NetworkClient` of Java's; `rdkafka_cgrp.c`, `rdkafka_assignment.c`,
//!   `rdkafka_request.c`, `rdkafka_txnmgr.c`; `consumer_group.go`, `consumer_group_848.go`,
//!   `producer.go`, `txn.go`, `client.go`. 8, 13, 41, 89 and 103 are retries by their class alone
//!   (`RetriableException`, `kerr.IsRetriable`, `rd_kafka_err_action`): no handler names them
//!   there.

use super::api::key;

/// What a client's application gets to know of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as good as no error.
    Success,
    /// Nothing: leaders move, sessions end and groups rebalance all the time, and the client goes
    /// on.
    Ordinary,
    /// Nothing, as long as the client has patience: it tries again.
    Retry,
    /// The error.
    Failure,
}

/// What a request is for: the same error may be harmless for one and not for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Produce.
    Produce,
    /// Fetch, ShareFetch.
    Fetch,
    /// OffsetCommit, TxnOffsetCommit.
    Commit,
    /// ShareAcknowledge, and what a ShareFetch acknowledges.
    Acknowledge,
    /// Groups, transactions, metadata, authentication.
    Other,
}

impl Purpose {
    /// That of an API.
    #[must_use]
    pub fn of(api_key: i16) -> Self {
        match api_key {
            key::PRODUCE => Self::Produce,
            key::FETCH | key::SHARE_FETCH => Self::Fetch,
            key::OFFSET_COMMIT | key::TXN_OFFSET_COMMIT => Self::Commit,
            key::SHARE_ACKNOWLEDGE => Self::Acknowledge,
            _ => Self::Other,
        }
    }
}

/// The name of an error code, as OpenTelemetry's `error.type` wants it; `None` for codes that no
/// release has.
#[must_use]
pub fn name(code: i16) -> Option<&'static str> {
    row(code).map(|(_, name, _)| *name)
}

/// What a client makes of an error; of one that no release has, a failure.
#[must_use]
#[inline]
pub fn outcome(purpose: Purpose, code: i16) -> Outcome {
    // It is asked of each message, and nearly all have none.
    if code == 0 { Outcome::Success } else { outcome_of_error(purpose, code) }
}

fn outcome_of_error(purpose: Purpose, code: i16) -> Outcome {
    let of = |(_, _, outcomes): &Row| outcomes.get(purpose as usize).copied();
    row(code).and_then(of).unwrap_or(Outcome::Failure)
}

/// After these a member has lost its place in its group, and joins anew: `ILLEGAL_GENERATION`,
/// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `FENCED_MEMBER_EPOCH`, `STALE_MEMBER_EPOCH`.
const ENDS_MEMBERSHIP: [i16; 5] = [22, 25, 82, 110, 113];

/// Whether a member that gets this error has lost its place in the group.
#[must_use]
pub fn ends_membership(code: i16) -> bool {
    ENDS_MEMBERSHIP.contains(&code)
}

/// Code, name, and the outcomes in the order of [`Purpose`].
type Row = (i16, &'static str, [Outcome; 5]);

fn row(code: i16) -> Option<&'static Row> {
    ERRORS.get(usize::try_from(code.checked_add(1)?).ok()?)
}

const S: Outcome = Outcome::Success;
const O: Outcome = Outcome::Ordinary;
const R: Outcome = Outcome::Retry;
const F: Outcome = Outcome::Failure;
const FAILS: [Outcome; 5] = [F; 5];

/// In the order of their codes, without holes, from −1 on.
#[rustfmt::skip]
static ERRORS: &[Row] = &[
    (-1, "UNKNOWN_SERVER_ERROR", FAILS),
    (0, "NONE", [S, S, S, S, S]),
    (1, "OFFSET_OUT_OF_RANGE", [F, R, F, F, F]),
    (2, "CORRUPT_MESSAGE", [R, F, F, R, F]),
    (3, "UNKNOWN_TOPIC_OR_PARTITION", [R, R, R, F, R]),
    (4, "INVALID_FETCH_SIZE", FAILS),
    (5, "LEADER_NOT_AVAILABLE", [R, R, F, R, R]),
    (6, "NOT_LEADER_OR_FOLLOWER", [R, O, F, F, O]),
    (7, "REQUEST_TIMED_OUT", [R, F, R, R, R]),
    (8, "BROKER_NOT_AVAILABLE", [R, R, F, F, R]),
    (9, "REPLICA_NOT_AVAILABLE", [R, O, F, R, R]),
    (10, "MESSAGE_TOO_LARGE", FAILS),
    (11, "STALE_CONTROLLER_EPOCH", FAILS),
    (12, "OFFSET_METADATA_TOO_LARGE", FAILS),
    (13, "NETWORK_EXCEPTION", [R, F, F, R, R]),
    (14, "COORDINATOR_LOAD_IN_PROGRESS", [R, F, R, R, R]),
    (15, "COORDINATOR_NOT_AVAILABLE", [R, F, R, R, R]),
    (16, "NOT_COORDINATOR", [R, F, R, R, R]),
    (17, "INVALID_TOPIC_EXCEPTION", FAILS),
    (18, "RECORD_LIST_TOO_LARGE", FAILS),
    (19, "NOT_ENOUGH_REPLICAS", [R, F, F, R, F]),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", [R, F, F, R, F]),
    (21, "INVALID_REQUIRED_ACKS", FAILS),
    (22, "ILLEGAL_GENERATION", [F, F, F, F, R]),
    (23, "INCONSISTENT_GROUP_PROTOCOL", FAILS),
    (24, "INVALID_GROUP_ID", FAILS),
    (25, "UNKNOWN_MEMBER_ID", [F, F, F, F, R]),
    (26, "INVALID_SESSION_TIMEOUT", FAILS),
    (27, "REBALANCE_IN_PROGRESS", [F, F, F, F, O]),
    (28, "INVALID_COMMIT_OFFSET_SIZE", FAILS),
    (29, "TOPIC_AUTHORIZATION_FAILED", FAILS),
    (30, "GROUP_AUTHORIZATION_FAILED", FAILS),
    (31, "CLUSTER_AUTHORIZATION_FAILED", FAILS),
    (32, "INVALID_TIMESTAMP", FAILS),
    (33, "UNSUPPORTED_SASL_MECHANISM", FAILS),
    (34, "ILLEGAL_SASL_STATE", FAILS),
    (35, "UNSUPPORTED_VERSION", FAILS),
    (36, "TOPIC_ALREADY_EXISTS", FAILS),
    (37, "INVALID_PARTITIONS", FAILS),
    (38, "INVALID_REPLICATION_FACTOR", FAILS),
    (39, "INVALID_REPLICA_ASSIGNMENT", FAILS),
    (40, "INVALID_CONFIG", FAILS),
    (41, "NOT_CONTROLLER", [R, F, F, R, R]),
    (42, "INVALID_REQUEST", FAILS),
    (43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", FAILS),
    (44, "POLICY_VIOLATION", FAILS),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", [R, F, F, F, F]),
    (46, "DUPLICATE_SEQUENCE_NUMBER", [S, F, F, F, F]),
    (47, "INVALID_PRODUCER_EPOCH", FAILS),
    (48, "INVALID_TXN_STATE", FAILS),
    (49, "INVALID_PRODUCER_ID_MAPPING", FAILS),
    (50, "INVALID_TRANSACTION_TIMEOUT", FAILS),
    (51, "CONCURRENT_TRANSACTIONS", [R, F, R, R, O]),
    (52, "TRANSACTION_COORDINATOR_FENCED", FAILS),
    (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", FAILS),
    (54, "SECURITY_DISABLED", FAILS),
    (55, "OPERATION_NOT_ATTEMPTED", FAILS),
    (56, "KAFKA_STORAGE_ERROR", [R, R, F, R, R]),
    (57, "LOG_DIR_NOT_FOUND", FAILS),
    (58, "SASL_AUTHENTICATION_FAILED", FAILS),
    (59, "UNKNOWN_PRODUCER_ID", [R, F, F, F, F]),
    (60, "REASSIGNMENT_IN_PROGRESS", FAILS),
    (61, "DELEGATION_TOKEN_AUTH_DISABLED", FAILS),
    (62, "DELEGATION_TOKEN_NOT_FOUND", FAILS),
    (63, "DELEGATION_TOKEN_OWNER_MISMATCH", FAILS),
    (64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", FAILS),
    (65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", FAILS),
    (66, "DELEGATION_TOKEN_EXPIRED", FAILS),
    (67, "INVALID_PRINCIPAL_TYPE", FAILS),
    (68, "NON_EMPTY_GROUP", FAILS),
    (69, "GROUP_ID_NOT_FOUND", FAILS),
    (70, "FETCH_SESSION_ID_NOT_FOUND", [R, O, F, R, F]),
    (71, "INVALID_FETCH_SESSION_EPOCH", [R, O, F, R, F]),
    (72, "LISTENER_NOT_FOUND", [R, F, F, R, F]),
    (73, "TOPIC_DELETION_DISABLED", FAILS),
    (74, "FENCED_LEADER_EPOCH", [R, O, F, F, O]),
    (75, "UNKNOWN_LEADER_EPOCH", [R, O, F, R, O]),
    (76, "UNSUPPORTED_COMPRESSION_TYPE", FAILS),
    (77, "STALE_BROKER_EPOCH", FAILS),
    (78, "OFFSET_NOT_AVAILABLE", [R, O, F, R, O]),
    (79, "MEMBER_ID_REQUIRED", [F, F, F, F, O]),
    (80, "PREFERRED_LEADER_NOT_AVAILABLE", [R, F, F, R, F]),
    (81, "GROUP_MAX_SIZE_REACHED", FAILS),
    (82, "FENCED_INSTANCE_ID", FAILS),
    (83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", [R, F, F, R, F]),
    (84, "ELECTION_NOT_NEEDED", [R, F, F, R, F]),
    (85, "NO_REASSIGNMENT_IN_PROGRESS", FAILS),
    (86, "GROUP_SUBSCRIBED_TO_TOPIC", FAILS),
    (87, "INVALID_RECORD", FAILS),
    (88, "UNSTABLE_OFFSET_COMMIT", [R, F, F, R, O]),
    (89, "THROTTLING_QUOTA_EXCEEDED", [R, F, F, R, R]),
    (90, "PRODUCER_FENCED", FAILS),
    (91, "RESOURCE_NOT_FOUND", FAILS),
    (92, "DUPLICATE_RESOURCE", FAILS),
    (93, "UNACCEPTABLE_CREDENTIAL", FAILS),
    (94, "INCONSISTENT_VOTER_SET", FAILS),
    (95, "INVALID_UPDATE_VERSION", FAILS),
    (96, "FEATURE_UPDATE_FAILED", FAILS),
    (97, "PRINCIPAL_DESERIALIZATION_FAILURE", FAILS),
    (98, "SNAPSHOT_NOT_FOUND", FAILS),
    (99, "POSITION_OUT_OF_RANGE", FAILS),
    (100, "UNKNOWN_TOPIC_ID", [R, R, R, F, R]),
    (101, "DUPLICATE_BROKER_REGISTRATION", FAILS),
    (102, "BROKER_ID_NOT_REGISTERED", FAILS),
    (103, "INCONSISTENT_TOPIC_ID", [R, R, F, R, R]),
    (104, "INCONSISTENT_CLUSTER_ID", FAILS),
    (105, "TRANSACTIONAL_ID_NOT_FOUND", FAILS),
    (106, "FETCH_SESSION_TOPIC_ID_ERROR", [R, O, F, R, F]),
    (107, "INELIGIBLE_REPLICA", FAILS),
    (108, "NEW_LEADER_ELECTED", FAILS),
    (109, "OFFSET_MOVED_TO_TIERED_STORAGE", FAILS),
    (110, "FENCED_MEMBER_EPOCH", [F, F, F, F, R]),
    (111, "UNRELEASED_INSTANCE_ID", FAILS),
    (112, "UNSUPPORTED_ASSIGNOR", FAILS),
    (113, "STALE_MEMBER_EPOCH", [F, F, R, F, R]),
    (114, "MISMATCHED_ENDPOINT_TYPE", FAILS),
    (115, "UNSUPPORTED_ENDPOINT_TYPE", FAILS),
    (116, "UNKNOWN_CONTROLLER_ID", FAILS),
    (117, "UNKNOWN_SUBSCRIPTION_ID", FAILS),
    (118, "TELEMETRY_TOO_LARGE", FAILS),
    (119, "INVALID_REGISTRATION", FAILS),
    (120, "TRANSACTION_ABORTABLE", FAILS),
    (121, "INVALID_RECORD_STATE", FAILS),
    (122, "SHARE_SESSION_NOT_FOUND", [R, O, F, F, F]),
    (123, "INVALID_SHARE_SESSION_EPOCH", [R, O, F, F, F]),
    (124, "FENCED_STATE_EPOCH", FAILS),
    (125, "INVALID_VOTER_KEY", FAILS),
    (126, "DUPLICATE_VOTER", FAILS),
    (127, "VOTER_NOT_FOUND", FAILS),
    (128, "INVALID_REGULAR_EXPRESSION", FAILS),
    (129, "REBOOTSTRAP_REQUIRED", [F, F, F, F, R]),
    (130, "STREAMS_INVALID_TOPOLOGY", FAILS),
    (131, "STREAMS_INVALID_TOPOLOGY_EPOCH", FAILS),
    (132, "STREAMS_TOPOLOGY_FENCED", FAILS),
    (133, "SHARE_SESSION_LIMIT_REACHED", [R, R, F, R, F]),
    // Those of Kafka's trunk, by franz-go's `kerr` (1.22.3): 4.3.0 has none of them.
    (134, "GROUP_DELETION_FAILED", FAILS),
    (135, "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED", FAILS),
    (136, "CONTROLLER_ID_NOT_REGISTERED", FAILS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_the_oracle() {
        for code in -1..=119_i16 {
            // The oracle writes them in camel case.
            let ours = name(code).unwrap().replace('_', "").to_lowercase();
            let Some(theirs) = kafka_protocol::ResponseError::try_from_code(code) else {
                assert_eq!(code, 0);
                continue;
            };
            let theirs = format!("{theirs:?}").to_lowercase();
            assert!(theirs.starts_with(&ours) || ours.starts_with(&theirs), "{code}: {ours} / {theirs}");
        }
    }

    #[test]
    fn errors_that_end_a_membership() {
        let names = ENDS_MEMBERSHIP.map(|code| name(code).unwrap());
        let expected = [
            "ILLEGAL_GENERATION",
            "UNKNOWN_MEMBER_ID",
            "FENCED_INSTANCE_ID",
            "FENCED_MEMBER_EPOCH",
            "STALE_MEMBER_EPOCH",
        ];
        assert_eq!(names, expected);
        assert!(!ends_membership(0) && !ends_membership(27));
    }

    #[test]
    fn rows_stand_at_their_codes() {
        for (at, (code, _, _)) in (-1_i16..).zip(ERRORS) {
            assert_eq!(at, *code);
        }
        assert_eq!((name(-2), name(i16::MAX)), (None, None));
        assert_eq!(outcome(Purpose::Produce, i16::MAX), Outcome::Failure);
    }

    /// What is no error at all is the same for all but Produce, which may have been written before.
    #[test]
    fn a_duplicate_is_a_success_and_nothing_else_is() {
        for (code, _, outcomes) in ERRORS {
            let successes = outcomes.iter().filter(|outcome| **outcome == S).count();
            let expected = match code {
                0 => 5,
                46 => 1,
                _ => 0,
            };
            assert_eq!(successes, expected, "{code}");
        }
        assert_eq!(outcome(Purpose::Produce, 46), S);
    }

    /// The codes whose exception is a `RetriableException` in the `Errors` of kafka-clients 4.3.0.
    const RETRIABLE: [i16; 32] = [
        2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89,
        100, 103, 106, 122, 123, 133,
    ];

    /// Where Java's client goes by the class of the exception, so does the table, but for what its
    /// handlers and the other clients name.
    #[test]
    fn retriable_exceptions_are_retried_but_for_named_ones() {
        for (code, name, _) in ERRORS {
            let is_retriable = RETRIABLE.contains(code);
            let is_sent_again = outcome(Purpose::Produce, *code) == R;
            assert_eq!(is_sent_again, is_retriable || [8, 45, 59].contains(code), "Produce {name}");
            let is_acknowledged_again = outcome(Purpose::Acknowledge, *code) == R;
            let is_given_up = [3, 6, 74, 100, 122, 123].contains(code);
            assert_eq!(is_acknowledged_again, is_retriable && !is_given_up, "Acknowledge {name}");
        }
    }

    /// What hides a refusal is handled by name in a client; an unexpected error is shown at once.
    #[test]
    fn few_refusals_are_hidden() {
        let hidden = |purpose, outcomes: &[Outcome]| -> Vec<i16> {
            let codes = ERRORS.iter().map(|(code, ..)| *code);
            codes.filter(|code| outcomes.contains(&outcome(purpose, *code))).collect()
        };
        assert_eq!(hidden(Purpose::Fetch, &[O]), [6, 9, 70, 71, 74, 75, 78, 106, 122, 123]);
        assert_eq!(hidden(Purpose::Other, &[O]), [6, 27, 51, 74, 75, 78, 79, 88]);
        let for_a_time = [3, 5, 7, 8, 9, 13, 14, 15, 16, 22, 25, 41, 56, 89, 100, 103, 110, 113, 129];
        assert_eq!(hidden(Purpose::Other, &[R]), for_a_time);
        assert_eq!(hidden(Purpose::Commit, &[S, O, R]), [0, 3, 7, 14, 15, 16, 51, 100, 113]);
    }
}
