//! Kafka's request-response protocol: one file an API, all named in [`Api`]'s table, those that are read found through
//! that of [`table`].

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod answers;
pub mod api;
pub mod api_versions;
pub mod assignment;
pub mod consumer_group_heartbeat;
pub mod describe_topic_partitions;
pub mod end_txn;
pub mod error;
pub mod event;
pub mod exchange;
pub mod fetch;
pub mod find_coordinator;
pub mod header;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod produce;
pub mod reader;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod share_acknowledge;
pub mod share_fetch;
pub mod share_group_heartbeat;
pub mod streams_group_heartbeat;
pub mod sync_group;
pub mod table;
pub mod topic;
pub mod txn_offset_commit;

pub use api::Api;
pub use reader::{ParseError, Reader, Result};
