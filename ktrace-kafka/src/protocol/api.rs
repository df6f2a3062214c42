//! One API of the protocol: its name, its versions, and how its bodies are read.

use super::bodies::{Bodies, Records};
use super::exchange::{Emits, EmitsOfResponse, Exchange};
use super::reader::{ParseError, Result};

/// One API of the protocol.
#[derive(Debug)]
pub struct Api {
    /// The number that requests name it by.
    pub key: i16,
    /// As in Kafka's message schemas: `Produce`.
    pub name: &'static str,
    /// The newest version known.
    pub newest: i16,
    /// The first flexible version (KIP-482); `i16::MAX` for never.
    pub flexible: i16,
    bodies: Option<Bodies>,
}

impl Api {
    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// An error for versions that no known release has.
    pub fn check(&self, version: i16) -> Result<()> {
        if version <= self.newest { Ok(()) } else { Err(ParseError::Unsupported(self.name)) }
    }

    /// Whether the response's header has tagged fields; ApiVersions never has, so that any client
    /// can read it.
    #[must_use]
    pub fn response_header_is_flexible(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != key::API_VERSIONS
    }

    /// How its bodies are read, `None` if they are not. No part of the API.
    #[doc(hidden)]
    #[must_use]
    pub fn bodies(&self) -> Option<&Bodies> {
        self.bodies.as_ref()
    }

    /// An API whose bodies are not read.
    pub(super) const fn new(key: i16, name: &'static str, newest: i16, flexible: i16) -> Self {
        Self { key, name, newest, flexible, bodies: None }
    }

    /// An API whose exchanges hold records; the connection knows how they are read.
    pub(super) const fn records<E: Exchange>(self, records: Records) -> Self {
        Self { bodies: Some(Bodies::with_records::<E>(records)), ..self }
    }

    /// An API whose request and response are read together.
    pub(super) const fn events<E: Emits>(self) -> Self {
        Self { bodies: Some(Bodies::with_events::<E>()), ..self }
    }

    /// An API whose response alone is read.
    pub(super) const fn events_of_response<E: EmitsOfResponse>(self) -> Self {
        Self { bodies: Some(Bodies::with_events_of_response::<E>()), ..self }
    }
}

/// Keys of the APIs that have a part in how a connection is read.
pub mod key {
    /// Produce.
    pub const PRODUCE: i16 = 0;
    /// Fetch.
    pub const FETCH: i16 = 1;
    /// Metadata.
    pub const METADATA: i16 = 3;
    /// OffsetCommit.
    pub const OFFSET_COMMIT: i16 = 8;
    /// SaslHandshake.
    pub const SASL_HANDSHAKE: i16 = 17;
    /// ApiVersions.
    pub const API_VERSIONS: i16 = 18;
    /// InitProducerId.
    pub const INIT_PRODUCER_ID: i16 = 22;
    /// TxnOffsetCommit.
    pub const TXN_OFFSET_COMMIT: i16 = 28;
    /// SaslAuthenticate.
    pub const SASL_AUTHENTICATE: i16 = 36;
    /// DescribeTopicPartitions.
    pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
    /// ShareFetch.
    pub const SHARE_FETCH: i16 = 78;
    /// ShareAcknowledge.
    pub const SHARE_ACKNOWLEDGE: i16 = 79;
}
