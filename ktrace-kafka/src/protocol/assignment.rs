//! What is assigned to a member of a group.
//!
//! In classic groups of consumers it is a message of their own inside a SyncGroup response
//! (`ConsumerProtocolAssignment.json`, versions 0–3, all alike). A version to come is read as the
//! newest that is known, and what it has more is passed over, as Kafka's own members do
//! (`ConsumerProtocol.checkAssignmentVersion`). The heartbeats of the other protocols have it in a
//! struct.

use super::list::{List, NO_IDS, OfTopic};
use super::reader::{ParseError, Reader, Result};

/// The newest version of a classic consumer's assignment.
const NEWEST: i16 = 3;

/// The assignment of a classic consumer.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    pub topics: List<'a, OfTopic<'a, i32, NO_IDS>>,
    /// It is of a known version, and nothing stands behind it.
    pub is_exact: bool,
}

impl<'a> Assignment<'a> {
    /// Reads it. No bytes at all are no partition: a leader need not name every member.
    pub fn of(bytes: &'a [u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self { topics: List::empty(), is_exact: true });
        }
        let mut body = Reader::new(bytes, false);
        let version = body.i16("assignment version")?;
        if version < 0 {
            return Err(ParseError::Malformed("assignment version"));
        }
        let topics = List::read(version.min(NEWEST), &mut body, "assigned partitions")?;
        body.nullable_bytes("user data")?;
        Ok(Self { topics, is_exact: version <= NEWEST && body.left().is_empty() })
    }
}

/// The assignment in a response to ConsumerGroupHeartbeat (KIP-848) or ShareGroupHeartbeat
/// (KIP-932): topic ids alone.
pub type AssignedIds<'a> = List<'a, OfTopic<'a, i32, 0>>;

/// Reads it, `None` where it has not changed.
pub fn read_ids<'a>(version: i16, body: &mut Reader<'a>) -> Result<Option<AssignedIds<'a>>> {
    if !body.nullable_struct("assignment")? {
        return Ok(None);
    }
    let topics = List::read(version, body, "topic partitions")?;
    body.skip_tagged_fields()?;
    Ok(Some(topics))
}

/// Skips an array of them in a request: what the member has now.
pub fn skip_ids(version: i16, body: &mut Reader<'_>) -> Result<()> {
    List::<OfTopic<'_, i32, 0>>::read(version, body, "topic partitions").map(|_| ())
}
