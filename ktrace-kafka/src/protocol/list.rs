//! Structs and arrays of structs, read where they lie.
//!
//! A [`List`] is read once to its end when the struct around it is, so that nothing in it can fail
//! later, and again as often as it is looked through. Nothing is allocated for it.

use std::marker::PhantomData;

use super::reader::{Reader, Result};
use super::topic::Topic;

/// A struct, from its first field to its tagged fields.
pub trait Struct<'a>: Sized {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self>;
}

impl<'a> Struct<'a> for i32 {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("element")
    }
}

impl<'a> Struct<'a> for i64 {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i64("element")
    }
}

impl<'a> Struct<'a> for &'a str {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.string("element")
    }
}

/// An array whose elements are there and whole.
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    elements: Reader<'a>,
    count: usize,
    version: i16,
    of: PhantomData<fn() -> T>,
}

impl<'a, T: Struct<'a>> List<'a, T> {
    /// No element.
    #[must_use]
    pub fn empty() -> Self {
        Self { elements: Reader::new(&[], false), count: 0, version: 0, of: PhantomData }
    }

    /// Reads an array to its end, null as none.
    pub fn read(version: i16, body: &mut Reader<'a>, what: &'static str) -> Result<Self> {
        Ok(Self::read_nullable(version, body, what)?.unwrap_or_else(Self::empty))
    }

    /// Reads an array to its end, unless it is null.
    pub fn read_nullable(version: i16, body: &mut Reader<'a>, what: &'static str) -> Result<Option<Self>> {
        let Some(count) = body.nullable_array(what)? else { return Ok(None) };
        let elements = *body;
        for _ in 0..count {
            T::read(version, body)?;
        }
        Ok(Some(Self { elements, count, version, of: PhantomData }))
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + Clone + use<'a, T> {
        let (mut elements, version) = (self.elements, self.version);
        (0..self.count).map_while(move |_| T::read(version, &mut elements).ok())
    }
}

/// What is said of a topic's partitions. The topic is named by its id from version `IDS_SINCE` on
/// (KIP-516).
#[derive(Clone, Copy, Debug)]
pub struct OfTopic<'a, P, const IDS_SINCE: i16> {
    pub topic: Topic<'a>,
    pub partitions: List<'a, P>,
}

/// For APIs that name topics by their names in all versions.
pub const NO_IDS: i16 = i16::MAX;

/// A topic by its name, or from version `IDS_SINCE` on by its id.
pub fn topic<'a, const IDS_SINCE: i16>(version: i16, body: &mut Reader<'a>) -> Result<Topic<'a>> {
    if version >= IDS_SINCE {
        body.uuid("topic id").map(Topic::Id)
    } else {
        body.topic("topic").map(Topic::Name)
    }
}

impl<'a, P: Struct<'a>, const IDS_SINCE: i16> Struct<'a> for OfTopic<'a, P, IDS_SINCE> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let topic = topic::<IDS_SINCE>(version, body)?;
        let partitions = List::read(version, body, "partitions")?;
        body.skip_tagged_fields()?;
        Ok(Self { topic, partitions })
    }
}

impl<'a, P: Struct<'a>, const IDS_SINCE: i16> List<'a, OfTopic<'a, P, IDS_SINCE>> {
    /// All partitions of all topics.
    pub fn partitions(&self) -> impl Iterator<Item = (Topic<'a>, P)> + Clone + use<'a, P, IDS_SINCE>
    where
        P: Clone,
    {
        self.iter().flat_map(|of| of.partitions.iter().map(move |partition| (of.topic, partition)))
    }
}
