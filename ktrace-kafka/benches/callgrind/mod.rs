//! Instructions counted by callgrind: a table of cases, each beside its count in a file, which
//! `--bless` writes anew.
//!
//! A case runs in a process of its own, which is this program again: `--case NAME`.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

/// What is counted: callgrind knows it by this name.
#[inline(never)]
pub fn counted(act: &mut dyn FnMut()) {
    act();
}

/// Runs a case under callgrind, or all of them; `unit` is what the counts are of. Each case has a
/// name, and how many of the unit it takes; `run` does what it is, once to warm and then once in
/// [`counted`].
pub fn table(unit: &str, kept: &str, cases: &[(&str, u64)], run: impl FnOnce(&str)) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--case") {
        return run(arguments.get(at + 1).expect("a name"));
    }
    let before = fs::read_to_string(kept).unwrap_or_default();
    let before: HashMap<&str, f64> = before
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, count)| Some((name, count.trim().parse().ok()?)))
        .collect();
    let mut lines = String::new();
    println!("{:<36} {:>12} {:>10}", format!("instructions of one {unit}"), "now", "since");
    for (name, units) in cases {
        let now = count(name) / *units as f64;
        let since =
            before.get(name).map_or("new".into(), |before| format!("{:+.1} %", (now / before - 1.0) * 100.0));
        println!("{name:<36} {now:>12.1} {since:>10}");
        lines += &format!("{name}: {now:.1}\n");
    }
    if arguments.iter().any(|argument| argument == "--bless") {
        fs::write(kept, lines).expect("a file");
    }
}

/// Instructions of a case.
fn count(case: &str) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*callgrind*counted*", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--case", case])
        .output()
        .expect("valgrind");
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reported}");
    let total = reported.lines().find_map(|line| line.split_once("Collected : "));
    let total: f64 = total.and_then(|(_, number)| number.trim().parse().ok()).expect("callgrind's count");
    assert!(total > 0.0, "the counted function was not found");
    total
}
