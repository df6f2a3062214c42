//! What stands in the record sets of an exchange: batches, and the messages of before them,
//! decompressed and counted.

use super::inflation::Inflating;
use super::scratch::Scratch;
use crate::codec::{Codec, CodecError, Decompressor, Shape, Watch};
use crate::counters::{Counters, Lost, Malformed};
use crate::protocol::produce::Appended;
use crate::record::inner::Inner;
use crate::record::message::Message;
use crate::record::set::Next;
use crate::record::walk::walk;
use crate::record::{Batch, Record};

/// A place in a record set: how many records stood before it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    records: i32,
    /// Everything before it could be read, so the number is right.
    is_sure: bool,
}

impl Place {
    /// The beginning of a set.
    pub const START: Self = Self { records: 0, is_sure: true };

    /// One more record was read.
    pub fn pass(&mut self) {
        self.records = self.records.saturating_add(1);
    }

    /// Something was not read, or not to its end.
    pub fn lose(&mut self) {
        self.is_sure = false;
    }

    fn offset(self, appended: Option<Appended>) -> i64 {
        appended
            .filter(|_| self.is_sure)
            .map_or(-1, |appended| appended.base_offset.saturating_add(i64::from(self.records)))
    }
}

/// Whose offsets the messages of a set get.
#[derive(Clone, Copy, Debug)]
pub enum Offsets {
    /// The log's, which stand in the set.
    Log,
    /// Those that the broker gave, by the order in the set, whatever the producer wrote
    /// (`LogValidator.java`). −1 where the broker gave none, or the order is not known.
    Given(Option<Appended>),
}

/// The broker's time of append takes the place of the producer's times, where it gives one.
pub fn stamp(batch: &mut Batch<'_>, appended: Appended) {
    if appended.log_append_time_ms >= 0 {
        batch.attributes |= 0x08;
        batch.max_timestamp_ms = appended.log_append_time_ms;
    }
}

/// Counts what is neither a batch nor a message.
pub fn count_unread(next: &Next<'_>, counters: &mut Counters) {
    match next {
        // The slice of the log ends there, as it may.
        Next::Batch(_) | Next::Message(_) | Next::Cut => {}
        Next::UnknownMagic(_) => counters.lose(Lost::UnsupportedMagic),
        Next::Malformed => counters.refuse(Malformed::Batch),
    }
}

/// Gives what stands next in a fetched set, with the offsets of the log.
pub fn read_fetched(
    next: &Next<'_>,
    place: &mut Place,
    scratch: &mut Scratch,
    mut each: impl FnMut(&Batch<'_>, &Record<'_>),
) {
    count_unread(next, &mut scratch.counters);
    match next {
        Next::Batch(batch) => {
            read_batch(batch, scratch, |record| {
                place.pass();
                each(batch, record);
            });
        }
        Next::Message(message) => read_message(message, Offsets::Log, place, scratch, each),
        Next::Cut | Next::UnknownMagic(_) | Next::Malformed => {}
    }
}

/// Gives the records of a batch; whether all of them could be read.
pub fn read_batch(batch: &Batch<'_>, scratch: &mut Scratch, mut each: impl FnMut(&Record<'_>)) -> bool {
    let Scratch { counters, decompressor, extractor, inflating, .. } = scratch;
    let codec = batch.codec();
    let compressed = Compressed { codec, bytes: batch.records, shape: Shape::Records(batch.count) };
    let Some(records) = decompressed(&compressed, decompressor, inflating, counters) else {
        return false;
    };
    let walked = walk(batch, records, extractor, |record| {
        if !record.context.malformed.is_empty() {
            counters.refuse_contexts(extractor.names(record.context.malformed));
        }
        each(record);
    });
    counters.records = counters.records.saturating_add(walked.records);
    if codec != Some(Codec::None) {
        inflating.charge(records.len(), usize::try_from(walked.records).unwrap_or(usize::MAX));
    }
    if !walked.whole {
        counters.refuse(Malformed::Record);
    }
    walked.whole
}

/// Gives a message, or those inside if it is a wrapper, each with the batch that stands for it; all
/// or nothing.
pub fn read_message(
    message: &Message<'_>,
    offsets: Offsets,
    place: &mut Place,
    scratch: &mut Scratch,
    mut each: impl FnMut(&Batch<'_>, &Record<'_>),
) {
    let Scratch { counters, decompressor, inflating, .. } = scratch;
    let codec = message.codec();
    let compressed = Compressed { codec, bytes: message.value.unwrap_or_default(), shape: Shape::Messages };
    let Some(set) = decompressed(&compressed, decompressor, inflating, counters) else {
        return place.lose();
    };
    let inner = (codec != Some(Codec::None)).then(|| match offsets {
        Offsets::Log => Inner::read(set)?.in_log(message),
        Offsets::Given(_) => Inner::read(set),
    });
    let inner = inner.transpose();
    if codec != Some(Codec::None) {
        inflating.charge(set.len(), inner.as_ref().map_or(0, |inner| inner.as_ref().map_or(0, Inner::len)));
    }
    let Ok(inner) = inner else {
        counters.refuse(Malformed::Record);
        return place.lose();
    };
    let mut batch = message.batch(inner.as_ref().map(Inner::extent));
    if let Offsets::Given(Some(appended)) = offsets {
        batch.base_offset = place.offset(Some(appended));
        stamp(&mut batch, appended);
    }
    let mut give = |message: Message<'_>| {
        let mut record = message.record(&batch, place.records);
        if let Offsets::Given(appended) = offsets {
            record.offset = place.offset(appended);
        }
        each(&batch, &record);
        place.pass();
        counters.records = counters.records.saturating_add(1);
    };
    match &inner {
        Some(inner) => inner.messages().for_each(give),
        None => give(*message),
    }
}

/// A batch that would have come to a fraction of the limit, had it gone on as it began, counts as a
/// bomb. A fraction, as a decoder has read some blocks more than it has written.
const BOMBS_PART: usize = 8;

/// Records as they are on the wire.
struct Compressed<'a> {
    codec: Option<Codec>,
    bytes: &'a [u8],
    shape: Shape,
}

/// What a codec makes of records, which are counted as a batch or as refused. What comes out may be
/// cut short where it cannot be records to its end; what fails is charged here, what does not by
/// who reads it.
fn decompressed<'a>(
    compressed: &Compressed<'a>,
    decompressor: &'a mut Decompressor,
    inflating: &mut Inflating,
    counters: &mut Counters,
) -> Option<&'a [u8]> {
    let Compressed { codec, bytes, shape } = *compressed;
    let Some(codec) = codec else {
        counters.refuse(Malformed::Batch);
        return None;
    };
    counters.batches = counters.batches.saturating_add(1);
    if codec != Codec::None && inflating.is_spent() {
        counters.refuse(Malformed::DecompressionBomb);
        return None;
    }
    if codec == Codec::None {
        return Some(bytes);
    }
    let watch = Watch::new(shape, inflating.allowance());
    let failed = decompressor.decompress_watched(codec, bytes, watch).err();
    // What fails in the end has cost as much.
    inflating.spend(decompressor.written());
    let Some(failed) = failed else { return decompressor.output() };
    // The records before what is none are given, as of a batch that is not compressed.
    let would_be_bomb = decompressor.extrapolated(bytes.len()) > decompressor.limit() / BOMBS_PART;
    if failed == CodecError::NotRecords && !would_be_bomb {
        return decompressor.output();
    }
    inflating.charge(decompressor.written(), decompressor.counted());
    match failed {
        CodecError::TooLarge | CodecError::NotRecords => counters.refuse(Malformed::DecompressionBomb),
        CodecError::Damaged => counters.refuse(Malformed::Compression),
        CodecError::NoRoom => counters.lose(Lost::MemoryLimit),
        CodecError::Useless => counters.lose(Lost::InflationLimit),
    }
    None
}
