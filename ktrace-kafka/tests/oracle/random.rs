//! Random fields, the same for the same message.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use crate::Case;

/// A message of the encoder: all fields named, those that a version lacks left as they are.
macro_rules! message {
    ($g:ident, $type:ty { $($field:ident $(if $has:expr)? => $value:expr),* $(,)? }) => {{
        let mut message = <$type>::default();
        $(if true $(&& $has)? { message.$field = $value; })*
        message.unknown_tagged_fields = $g.tags();
        message
    }};
}
pub(crate) use message;

/// See the module. SplitMix64.
pub struct Random {
    state: u64,
    pub key: ApiKey,
    pub version: i16,
}

impl Random {
    pub fn new(key: ApiKey, version: i16, round: u64) -> Self {
        let state = ((key as u64) << 48) ^ ((version as u64) << 32) ^ round;
        Self { state, key, version }
    }

    pub fn u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.u64() % bound
    }

    /// Any, or one of the odd ones.
    pub fn i64(&mut self) -> i64 {
        match self.below(8) {
            0 => -1,
            1 => i64::MAX,
            2 => i64::MIN,
            3 => 0,
            _ => self.u64() as i64,
        }
    }

    pub fn i32(&mut self) -> i32 {
        match self.below(8) {
            0 => -1,
            1 => i32::MAX,
            2 => i32::MIN,
            3 => 0,
            _ => self.u64() as i32,
        }
    }

    pub fn i16(&mut self) -> i16 {
        self.u64() as i16
    }

    pub fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    /// An error code, mostly none.
    pub fn error(&mut self) -> i16 {
        if self.below(3) == 0 { self.below(120) as i16 } else { 0 }
    }

    /// Text of any script, perhaps empty.
    pub fn text(&mut self) -> String {
        let chars = ['a', 'Z', '0', '-', '.', ' ', 'é', 'ж', '詳', '🦀', '\u{0}', '"'];
        let len = if self.below(20) == 0 { 200 } else { self.below(12) };
        (0..len).map(|_| chars[self.below(12) as usize]).collect()
    }

    pub fn string(&mut self) -> StrBytes {
        StrBytes::from_string(self.text())
    }

    pub fn nullable_string(&mut self) -> Option<StrBytes> {
        self.bool().then(|| self.string())
    }

    pub fn bytes(&mut self) -> Bytes {
        (0..self.below(20)).map(|_| self.u64() as u8).collect()
    }

    pub fn id(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(self.u64()) << 64 | u128::from(self.u64()))
    }

    /// A topic's name, another one for each `index`.
    pub fn topic(&mut self, index: usize) -> TopicName {
        TopicName(StrBytes::from_string(format!(
            "{index}{}",
            self.text().chars().take(50).collect::<String>()
        )))
    }

    /// Some, or none.
    pub fn list<T>(&mut self, mut make: impl FnMut(&mut Self, usize) -> T) -> Vec<T> {
        (0..self.below(4) as usize).map(|index| make(self, index)).collect()
    }

    pub fn nullable_list<T>(&mut self, make: impl FnMut(&mut Self, usize) -> T) -> Option<Vec<T>> {
        if self.below(4) == 0 { None } else { Some(self.list(make)) }
    }

    /// Other partition numbers for each `index`.
    pub fn partition(&mut self, index: usize) -> i32 {
        index as i32 * 1000 + self.below(1000) as i32
    }

    /// Sometimes the other way round.
    pub fn shuffled<T>(&mut self, mut list: Vec<T>) -> Vec<T> {
        if self.below(4) == 0 {
            list.reverse();
        }
        list
    }

    pub fn is_flexible(&self) -> bool {
        self.key.request_header_version(self.version) >= 2
    }

    /// Tagged fields of a release to come.
    pub fn tags(&mut self) -> BTreeMap<i32, Bytes> {
        let mut tags = BTreeMap::new();
        if self.is_flexible() && self.below(4) == 0 {
            for _ in 0..=self.below(2) {
                let tag = 50 + self.below(500) as i32;
                tags.insert(tag, self.bytes());
            }
        }
        tags
    }

    pub fn case(
        &mut self,
        request: &impl Encodable,
        response: &impl Encodable,
        expected: Vec<String>,
    ) -> Case {
        let (key, version, id) = (self.key, self.version, self.u64() as i32);
        let mut head = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(self.nullable_string().map(|id| StrBytes::from_string(id.replace('\0', ""))));
        head.unknown_tagged_fields = self.tags();
        let (request, request_body) =
            message_of(&head, key.request_header_version(version), request, version);
        let mut head = ResponseHeader::default().with_correlation_id(id);
        let header_version = key.response_header_version(version);
        if header_version >= 1 {
            head.unknown_tagged_fields = self.tags();
        }
        let (response, response_body) = message_of(&head, header_version, response, version);
        let request_counts =
            !matches!(key, ApiKey::Metadata | ApiKey::DescribeTopicPartitions | ApiKey::SaslAuthenticate);
        Case { request, response, bodies_at: (request_body, response_body), request_counts, expected }
    }
}

/// A message with its size, and where its body begins.
fn message_of(
    head: &impl Encodable,
    header_version: i16,
    body: &impl Encodable,
    version: i16,
) -> (Vec<u8>, usize) {
    let mut bytes = BytesMut::new();
    head.encode(&mut bytes, header_version).unwrap();
    let at = bytes.len() + 4;
    body.encode(&mut bytes, version).unwrap();
    (ktrace_testkit::framed(&bytes), at)
}
