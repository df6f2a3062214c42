//! How fast Fetch exchanges become records with their trace context, beside the `kafka-protocol`
//! crate on the same bytes in the same run; and, where batches are compressed, beside their codec
//! alone.
//!
//! Both get the frame of a response and read all of it. ktrace gets it as [`Connection::push`]
//! takes it, with the request before it, and reads each record's trace context too; the other makes
//! records of it, and checks their CRC. Figures are medians of rounds, each of which runs all
//! contestants one after the other. Ratios are what counts; the absolute numbers are this
//! machine's.

#[path = "traffic/mod.rs"]
mod traffic;

use std::hint::black_box;
use std::time::{Duration, Instant};

use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Partition, Sink};
use traffic::{CASES, Case, Reader};

const ROUNDS: usize = 101;
const ROUND: Duration = Duration::from_millis(5);

/// Counts records, and those with a trace context.
#[derive(Default)]
struct Counted {
    records: u64,
    contexts: u64,
}

impl Sink for Counted {
    fn record(&mut self, _: &Head<'_>, _: &Partition<'_>, _: &Batch<'_>, record: &Record<'_>) {
        self.records += 1;
        self.contexts += u64::from(record.context.context.is_some());
    }
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

fn compare(case: &Case) {
    let traffic = case.traffic();
    let records = case.records as u64;
    let mut reader = Reader::default();
    let mut seen = Counted::default();
    reader.read(&traffic, case.segment, &mut seen);
    let contexts = if case.headers == 0 { 0 } else { records };
    assert_eq!((seen.records, seen.contexts), (records, contexts), "{}", case.name);
    assert_eq!(traffic::read_by_the_other(&traffic.response), records, "{}", case.name);
    let mut codec = traffic.codec_alone();
    let (mut mine, mut ratio, mut over) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let ours = time(|| reader.read(black_box(&traffic), case.segment, black_box(&mut seen)));
        let other = time(|| {
            black_box(traffic::read_by_the_other(black_box(&traffic.response)));
        });
        if let Some(codec) = &mut codec {
            over.push(ours / time(|| codec.run()));
        }
        mine.push(ours);
        ratio.push(other / ours);
    }
    let mine = median(mine);
    let over = if over.is_empty() { "-".into() } else { format!("{:+.0} %", (median(over) - 1.0) * 100.0) };
    println!(
        "{:<34} {:>8.1} {:>10.1} {:>9.1}x {over:>12}",
        case.name,
        traffic.plain_bytes as f64 / mine / 1e9,
        mine * 1e9 / case.records as f64,
        median(ratio),
    );
}

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    println!("{:<34} {:>8} {:>10} {:>10} {:>12}", "records", "GB/s", "ns/record", "the other", "codec alone");
    for case in CASES.iter().filter(|case| only.as_ref().is_none_or(|only| case.name.contains(only.as_str())))
    {
        compare(case);
    }
}
