//! How many instructions a record takes, counted by callgrind: the same on a busy machine as on an idle one, so that a
//! change shows that no clock would tell. Held against `instructions.txt`, which `--bless` writes anew.
//!
//! The numbers are of one compiler and one processor's `memcpy`; elsewhere they are some percent off.

#[path = "traffic/mod.rs"]
#[expect(dead_code, reason = "the other bench compares with others")]
mod traffic;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;

use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Partition, Sink};
use traffic::{CASES, Case, Reader, Traffic};

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

/// What is counted: callgrind knows it by this name.
#[inline(never)]
fn counted_read(reader: &mut Reader, traffic: &Traffic, segment: usize, seen: &mut Counted) {
    reader.read(black_box(traffic), segment, black_box(seen));
}

/// One case, under callgrind: once to warm, once to count.
fn run(case: &Case) {
    let traffic = case.traffic();
    let (mut reader, mut seen) = (Reader::default(), Counted::default());
    reader.read(&traffic, case.segment, &mut seen);
    counted_read(&mut reader, &traffic, case.segment, &mut seen);
    assert_eq!(seen.records, 2 * case.records as u64, "{}", case.name);
}

/// Instructions of one record.
fn count(case: &Case) -> f64 {
    let me = std::env::current_exe().expect("a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_read*", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--case", case.name])
        .output()
        .expect("valgrind");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let total = told.lines().find_map(|line| line.split_once("Collected : "));
    let total: f64 = total.and_then(|(_, number)| number.trim().parse().ok()).expect("callgrind's count");
    assert!(total > 0.0, "the counted function was not found");
    total / case.records as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--case") {
        let name = arguments.get(at + 1).expect("a name");
        return run(CASES.iter().find(|case| case.name == name).expect("a case"));
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    let kept: HashMap<&str, f64> = kept
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, count)| Some((name, count.trim().parse().ok()?)))
        .collect();
    let mut lines = String::new();
    println!("{:<36} {:>12} {:>10}", "instructions of one record", "now", "since");
    for case in CASES {
        let now = count(case);
        let since = kept
            .get(case.name)
            .map_or("new".into(), |before| format!("{:+.1} %", (now / before - 1.0) * 100.0));
        println!("{:<36} {now:>12.1} {since:>10}", case.name);
        lines += &format!("{}: {now:.1}\n", case.name);
    }
    if arguments.iter().any(|argument| argument == "--bless") {
        std::fs::write(KEPT, lines).expect("a file");
    }
}
