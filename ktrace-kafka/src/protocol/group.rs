//! The group of a consumer, from the requests that members send: JoinGroup, SyncGroup, Heartbeat, OffsetCommit and
//! ConsumerGroupHeartbeat (KIP-848) all begin with the group's id.

use super::api::key;
use super::reader::{Reader, Result};

/// Whether a request of this API is sent by members of a group and begins with its id.
#[must_use]
pub fn begins_with_group(api_key: i16) -> bool {
    matches!(
        api_key,
        key::OFFSET_COMMIT
            | key::JOIN_GROUP
            | key::HEARTBEAT
            | key::SYNC_GROUP
            | key::CONSUMER_GROUP_HEARTBEAT
    )
}

/// Reads the group's id.
pub fn read_request<'a>(body: &mut Reader<'a>) -> Result<&'a str> {
    body.string("group id")
}
