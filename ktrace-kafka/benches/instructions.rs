//! How many instructions a record takes, counted by callgrind: the same on a busy machine as on an
//! idle one, so that a change shows that no clock would. Held against `instructions.txt`,
//! which `--bless` writes anew.
//!
//! The numbers are of one compiler and one processor's `memcpy`; elsewhere they are some percent
//! off.

#[path = "callgrind/mod.rs"]
mod callgrind;
#[path = "traffic/mod.rs"]
#[expect(dead_code, reason = "the other bench compares with others")]
mod traffic;

use std::hint::black_box;

use callgrind::counted;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Partition, Sink};
use traffic::{CASES, Case, Reader};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

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

/// One case, under callgrind: once to warm, once to count.
fn run(case: &Case) {
    let traffic = case.traffic();
    let (mut reader, mut seen) = (Reader::default(), Counted::default());
    let mut read = || reader.read(black_box(&traffic), case.segment, black_box(&mut seen));
    read();
    counted(&mut read);
    assert_eq!(seen.records, 2 * case.records as u64, "{}", case.name);
}

fn main() {
    let cases: Vec<_> = CASES.iter().map(|case| (case.name, case.records as u64)).collect();
    callgrind::table("record", KEPT, &cases, |name| {
        run(CASES.iter().find(|case| case.name == name).expect("a case"));
    });
}
