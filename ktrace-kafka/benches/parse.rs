//! How fast fetched records are read, beside the `kafka-protocol` crate on the same bytes in the same run.
//!
//! Figures are medians of pairs: each round runs ktrace and the other, one after the other. Ratios are what counts; the
//! absolute numbers are this machine's.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use ktrace_kafka::codec::Decompressor;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::record::{Batches, Next, walk};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(60);

fn batch(count: usize, size: usize, compression: Compression) -> Bytes {
    let header = |name: &'static str, value: &str| {
        (StrBytes::from_static_str(name), Some(Bytes::copy_from_slice(value.as_bytes())))
    };
    let records: Vec<Record> = (0..count)
        .map(|i| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            sequence: i as i32,
            timestamp: 1_700_000_000_000 + i as i64,
            key: Some(Bytes::from(format!("key-{i}"))),
            value: Some((0..size).map(|at| (at * 31 + i) as u8).collect::<Vec<_>>().into()),
            headers: [
                header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                header("content-type", "application/json"),
                header("x-source", "bench"),
            ]
            .into_iter()
            .collect(),
        })
        .collect();
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &RecordEncodeOptions { version: 2, compression })
        .expect("the encoder takes its own records");
    out.freeze()
}

/// Reads every record and its trace context; the number of both.
fn ours(set: &[u8], decompressor: &mut Decompressor, extractor: &Extractor) -> (u64, u64) {
    let mut seen = (0, 0);
    for next in Batches::new(set) {
        let Next::Batch(batch) = next else { panic!("{next:?}") };
        let codec = batch.codec().expect("a known codec");
        let records = decompressor.decompress(codec, batch.records).expect("whole records");
        walk(&batch, records, extractor, |record| {
            seen.0 += 1;
            seen.1 += u64::from(record.context.context.is_some());
        });
    }
    seen
}

fn theirs(set: &Bytes) -> u64 {
    let sets = RecordBatchDecoder::decode_all(&mut set.clone()).expect("whole records");
    sets.iter().map(|set| set.records.len() as u64).sum()
}

/// Seconds for one run, over as many as fit a round.
fn time(mut run: impl FnMut()) -> f64 {
    let (start, mut runs) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        run();
        runs += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(runs)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("{:<28} {:>10} {:>10} {:>12} {:>8}", "records", "GB/s", "ns/record", "the other's", "ratio");
    for (name, count, size, compression) in [
        ("1 KB, none", 1000, 1000, Compression::None),
        ("100 B, none", 5000, 100, Compression::None),
        ("20 B, none", 10_000, 20, Compression::None),
        ("1 KB, gzip", 1000, 1000, Compression::Gzip),
        ("1 KB, snappy", 1000, 1000, Compression::Snappy),
        ("1 KB, lz4", 1000, 1000, Compression::Lz4),
        ("1 KB, zstd", 1000, 1000, Compression::Zstd),
    ] {
        let set = batch(count, size, compression);
        let plain = batch(count, size, Compression::None).len() as f64;
        let (mut decompressor, extractor) = (Decompressor::new(1 << 30), Extractor::default());
        assert_eq!(ours(&set, &mut decompressor, &extractor), (count as u64, count as u64));
        assert_eq!(theirs(&set), count as u64);
        let mut pairs = vec![];
        for _ in 0..ROUNDS {
            let mine = time(|| {
                black_box(ours(black_box(&set), &mut decompressor, &extractor));
            });
            let other = time(|| {
                black_box(theirs(black_box(&set)));
            });
            pairs.push((mine, other));
        }
        let mine = median(pairs.iter().map(|pair| pair.0).collect());
        let other = median(pairs.iter().map(|pair| pair.1).collect());
        let ratio = median(pairs.iter().map(|pair| pair.1 / pair.0).collect());
        println!(
            "{name:<28} {:>10.2} {:>10.1} {:>12.1} {ratio:>7.1}x",
            plain / mine / 1e9,
            mine * 1e9 / count as f64,
            other * 1e9 / count as f64,
        );
    }
}
