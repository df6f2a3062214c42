//! The table of the APIs whose bodies are read: one line an API.
//!
//! An API is a file of this folder: structs for its request and its response, and what the two tell. Which versions
//! there are says [`Api::newest`].

use super::add_offsets_to_txn::AddOffsetsToTxn;
use super::add_partitions_to_txn::AddPartitionsToTxn;
use super::api::Api;
use super::api_versions::ApiVersions;
use super::consumer_group_heartbeat::ConsumerGroupHeartbeat;
use super::describe_topic_partitions::DescribeTopicPartitions;
use super::end_txn::EndTxn;
use super::event::Tell;
use super::exchange::{Exchange, Tells, TellsOfResponse, check, whole};
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
use super::reader::{Reader, Result};
use super::sasl_authenticate::SaslAuthenticate;
use super::sasl_handshake::SaslHandshake;
use super::share_acknowledge::ShareAcknowledge;
use super::share_fetch::ShareFetch;
use super::share_group_heartbeat::ShareGroupHeartbeat;
use super::streams_group_heartbeat::StreamsGroupHeartbeat;
use super::sync_group::SyncGroup;
use super::txn_offset_commit::TxnOffsetCommit;

static READ: &[Entry] = &[
    Entry::records::<Produce>(Records::Produced),
    Entry::records::<Fetch>(Records::Fetched),
    Entry::records::<ShareFetch>(Records::ShareFetched),
    Entry::of_response::<Metadata>(),
    Entry::of_response::<DescribeTopicPartitions>(),
    Entry::of_both::<ApiVersions>(),
    Entry::of_both::<FindCoordinator>(),
    Entry::of_both::<JoinGroup>(),
    Entry::of_both::<SyncGroup>(),
    Entry::of_both::<Heartbeat>(),
    Entry::of_both::<LeaveGroup>(),
    Entry::of_both::<ConsumerGroupHeartbeat>(),
    Entry::of_both::<ShareGroupHeartbeat>(),
    Entry::of_both::<StreamsGroupHeartbeat>(),
    Entry::of_both::<OffsetCommit>(),
    Entry::of_both::<OffsetFetch>(),
    Entry::of_both::<ListOffsets>(),
    Entry::of_both::<InitProducerId>(),
    Entry::of_both::<AddPartitionsToTxn>(),
    Entry::of_both::<AddOffsetsToTxn>(),
    Entry::of_both::<EndTxn>(),
    Entry::of_both::<TxnOffsetCommit>(),
    Entry::of_both::<ShareAcknowledge>(),
    Entry::of_both::<SaslHandshake>(),
    Entry::of_response::<SaslAuthenticate>(),
];

/// What is done with an exchange of an API.
#[derive(Clone, Copy)]
pub enum Telling {
    /// Its records are told, by what the connection knows beside.
    Records(Records),
    /// Its request and response tell events.
    OfBoth(for<'a> fn(i16, Reader<'a>, Reader<'a>, &mut Tell<'_>) -> Result<Surplus>),
    /// Its response does.
    OfResponse(fn(i16, Reader<'_>, &mut Tell<'_>) -> Result<Surplus>),
}

/// Whose records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    Produced,
    Fetched,
    ShareFetched,
}

/// One line of the table.
pub struct Entry {
    key: i16,
    request: fn(i16, &mut Reader<'_>) -> Result<()>,
    response: fn(i16, &mut Reader<'_>) -> Result<()>,
    throttled_since: i16,
    telling: Telling,
}

impl Entry {
    /// The entry of an API, `None` if its bodies are not read.
    #[must_use]
    pub fn of(key: i16) -> Option<&'static Self> {
        READ.iter().find(|entry| entry.key == key)
    }

    /// What is told of an exchange.
    #[must_use]
    pub fn telling(&self) -> Telling {
        self.telling
    }

    /// Whether a request is wanted when its response comes.
    #[must_use]
    pub fn keeps_requests(&self) -> bool {
        matches!(self.telling, Telling::Records(_) | Telling::OfBoth(_))
    }

    /// How long the client has to wait by its quota, in milliseconds, where a response that reads to its end says so in its
    /// first field.
    #[must_use]
    pub fn throttle_ms(&self, version: i16, body: Reader<'_>) -> Option<u32> {
        if version < self.throttled_since {
            return None;
        }
        let ms = { body }.i32("throttle time").ok()?;
        let ms = u32::try_from(ms).ok().filter(|ms| *ms > 0)?;
        (self.response)(version, &mut { body }).ok().map(|()| ms)
    }

    /// Reads a request's body, and leaves it where the schema ends, or where it ends to be one.
    pub fn check_request(&self, api: &Api, version: i16, body: &mut Reader<'_>) -> Result<()> {
        api.check(version)?;
        (self.request)(version, body)
    }

    /// Reads a response's body, and leaves it where the schema ends, or where it ends to be one.
    pub fn check_response(&self, api: &Api, version: i16, body: &mut Reader<'_>) -> Result<()> {
        api.check(version)?;
        (self.response)(version, body)
    }

    const fn new<E: Exchange>(telling: Telling) -> Self {
        Self {
            key: E::KEY,
            request: |version, body| check::<E::Request<'_>>(version, body),
            response: |version, body| check::<E::Response<'_>>(version, body),
            throttled_since: E::THROTTLED_SINCE,
            telling,
        }
    }

    const fn records<E: Exchange>(records: Records) -> Self {
        Self::new::<E>(Telling::Records(records))
    }

    const fn of_both<E: Tells>() -> Self {
        Self::new::<E>(Telling::OfBoth(tell_of_both::<E>))
    }

    const fn of_response<E: TellsOfResponse>() -> Self {
        Self::new::<E>(Telling::OfResponse(tell_of_response::<E>))
    }
}

/// Bytes behind the bodies of an exchange that their schemas do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    pub request: usize,
    pub response: usize,
}

fn tell_of_both<'a, E: Tells>(
    version: i16,
    request: Reader<'a>,
    response: Reader<'a>,
    tell: &mut Tell<'_>,
) -> Result<Surplus> {
    let ((asked, request), (answered, response)) = (whole(version, request)?, whole(version, response)?);
    E::tell(&asked, &answered, tell);
    Ok(Surplus { request, response })
}

fn tell_of_response<E: TellsOfResponse>(
    version: i16,
    response: Reader<'_>,
    tell: &mut Tell<'_>,
) -> Result<Surplus> {
    let (answered, response) = whole(version, response)?;
    E::tell(&answered, tell);
    Ok(Surplus { request: 0, response })
}
