//! A record set: bytes as they come, or a batch that is built from them and then damaged in some
//! places.

use std::cell::RefCell;

use ktrace_kafka::context::Extractor;
use ktrace_kafka::internal::{Batches, Decompressor, Inner, Message, Next, walk};
use ktrace_kafka::record::{Batch, Codec};
use ktrace_testkit::varint;

use super::context::key;
use super::input::Input;
use super::watch::check;

/// The set is built.
const BUILT: u8 = 1;

thread_local! {
    static EXTRACTOR: Extractor = Extractor::default();
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new(64 << 10));
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.u8() & BUILT == 0 {
        read(input.0);
        return;
    }
    let (mut set, records) = build(&mut input);
    assert_eq!(read(&set), records, "what was built is read");
    while !input.is_empty() {
        let at = usize::from(input.u16()) % set.len();
        set[at] = input.u8();
        if input.u8() == 0 {
            set.truncate(at);
        }
        read(&set);
        if set.is_empty() {
            break;
        }
    }
}

/// Reads all that is there; how many records batches had.
fn read(set: &[u8]) -> u64 {
    let (mut seen, mut records) = (0_usize, 0);
    for next in Batches::new(set) {
        seen += 1;
        assert!(seen <= set.len());
        match next {
            Next::Batch(batch) => records += EXTRACTOR.with(|extractor| read_batch(&batch, extractor)),
            Next::Message(message) => read_message(&message),
            Next::UnknownMagic(magic) => assert!(!(0..=2).contains(&magic)),
            Next::Cut | Next::Malformed => {}
        }
    }
    records
}

fn read_batch(batch: &Batch<'_>, extractor: &Extractor) -> u64 {
    let Some(codec) = batch.codec() else { return 0 };
    let _ = (batch.marker(), batch.is_transactional());
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let Ok(records) = decompressor.decompress(codec, batch.records) else { return 0 };
        let mut bytes = 0;
        let walked = walk(batch, records, extractor, |record| {
            check(record);
            bytes += record.key.map_or(0, <[u8]>::len) + record.value_len().unwrap_or(0);
            bytes += record
                .headers
                .iter()
                .map(|(key, value)| key.len() + value.unwrap_or(&[]).len())
                .sum::<usize>();
        });
        assert!(bytes <= records.len(), "no byte is reported twice");
        assert!(walked.records <= records.len() as u64);
        walked.records
    })
}

fn read_message(message: &Message<'_>) {
    let set = message.value.unwrap_or_default();
    let plain = match message.codec() {
        None => return,
        Some(Codec::None) => {
            check(&message.record(&message.batch(None), 0));
            return;
        }
        Some(codec) => DECOMPRESSOR.with_borrow_mut(|d| d.decompress(codec, set).map(<[u8]>::to_vec)),
    };
    let Ok(plain) = plain else { return };
    for inner in [Inner::read(&plain), Inner::read(&plain).and_then(|inner| inner.in_log(message))] {
        let Ok(inner) = inner else { continue };
        let batch = message.batch(Some(inner.extent()));
        let mut count = 0;
        for (message, place) in inner.messages().zip(0..) {
            check(&message.record(&batch, place));
            count += 1;
        }
        assert_eq!(count, batch.count);
    }
}

/// Nullable bytes as records have them; 255 stands for null.
fn bytes<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    let len = input.u8();
    (len != 255).then(|| input.take(usize::from(len)))
}

fn nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

/// A good batch, uncompressed, and how many records it has.
fn build(input: &mut Input<'_>) -> (Vec<u8>, u64) {
    let count = input.u8() % 8;
    let mut records = vec![];
    for _ in 0..count {
        let mut record = vec![0];
        varint(&mut record, input.i64() >> (input.u8() & 63));
        varint(&mut record, i64::from(input.u8()));
        nullable(&mut record, bytes(input));
        nullable(&mut record, bytes(input));
        let headers = input.u8() % 8;
        varint(&mut record, i64::from(headers));
        for _ in 0..headers {
            nullable(&mut record, Some(key(input)));
            nullable(&mut record, bytes(input));
        }
        varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let mut set = input.i64().to_be_bytes().to_vec();
    set.extend((49 + records.len() as u32).to_be_bytes());
    set.extend([0, 0, 0, 0, 2, 0, 0, 0, 0]);
    // Any attributes but a codec.
    set.extend((input.u16() & !7).to_be_bytes());
    set.extend(input.u32().to_be_bytes());
    for _ in 0..3 {
        set.extend(input.i64().to_be_bytes());
    }
    set.extend(input.u16().to_be_bytes());
    set.extend(input.u32().to_be_bytes());
    set.extend(i32::from(count).to_be_bytes());
    set.extend(records);
    (set, u64::from(count))
}
