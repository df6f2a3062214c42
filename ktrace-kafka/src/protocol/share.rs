//! What ShareFetch and ShareAcknowledge have in common: acknowledgements, and where leaders are
//! (KIP-932).

use super::answers::Answers;
use super::event::{Emit, Event};
use super::list::{List, Struct};
use super::reader::{Reader, Result};
use super::topic::TopicPartition;

/// What becomes of messages that were acquired before.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledgement<'a> {
    pub first_offset: i64,
    pub last_offset: i64,
    /// One for each offset, or one for all.
    pub types: &'a [u8],
}

impl<'a> Struct<'a> for Acknowledgement<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let first_offset = body.i64("first offset")?;
        let last_offset = body.i64("last offset")?;
        let count = body.array("acknowledge types")?;
        let types = body.take(count, "acknowledge types")?;
        body.skip_tagged_fields()?;
        Ok(Self { first_offset, last_offset, types })
    }
}

/// Who acknowledges.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledger<'a> {
    pub group_id: Option<&'a str>,
    pub member_id: Option<&'a str>,
}

impl<'a> Acknowledger<'a> {
    /// Emits what was acknowledged, with the error of each partition, or of all (0 for none). A
    /// partition that has neither records nor an error may be left out of the response.
    pub fn emit(
        &self,
        acknowledged: impl Iterator<Item = (TopicPartition<'a>, List<'a, Acknowledgement<'a>>)>,
        errors: impl Iterator<Item = (TopicPartition<'a>, i16)> + Clone,
        error_of_all: i16,
        emit: &mut Emit<'_>,
    ) {
        let mut answers = Answers::new(errors);
        for (at, acknowledgements) in acknowledged {
            let error = answers.of(at).unwrap_or(0);
            let error = if error_of_all != 0 { error_of_all } else { error };
            for Acknowledgement { first_offset, last_offset, types } in acknowledgements.iter() {
                emit(&Event::Acknowledged {
                    group_id: self.group_id.unwrap_or_default(),
                    member_id: self.member_id.unwrap_or_default(),
                    topic: at.topic,
                    partition: at.partition,
                    first_offset,
                    last_offset,
                    types,
                    error,
                });
            }
        }
    }
}

/// Skips a partition's leader; a plain struct in these APIs.
pub fn skip_leader(body: &mut Reader<'_>) -> Result<()> {
    body.i32("leader id")?;
    body.i32("leader epoch")?;
    body.skip_tagged_fields()
}

/// Skips where the leaders are.
pub fn skip_node_endpoints(body: &mut Reader<'_>) -> Result<()> {
    for _ in 0..body.array("node endpoints")? {
        body.i32("node id")?;
        body.string("host")?;
        body.i32("port")?;
        body.nullable_string("rack")?;
        body.skip_tagged_fields()?;
    }
    Ok(())
}
