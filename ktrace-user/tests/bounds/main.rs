//! The table of bounds in `docs/ARCHITECTURE.md` is written from the constants in the source.
//!
//! A row of [`TABLE`] names its constants by file and name; their values are read there, private ones too. A
//! constant that has moved, or has another value than the page, fails here.

mod constant;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use constant::{Kind, value};
use ktrace_user::losses::Reason;
use table::TABLE;

/// A row of the page.
struct Row {
    what: &'static str,
    /// With `{}` for each constant.
    bound: &'static str,
    /// What the value counts, the file (in this crate's `src`, or from the root on), the constant's name.
    constants: &'static [(Kind, &'static str, &'static str)],
    /// What happens over the limit.
    over: &'static str,
    /// What it is counted as.
    reasons: &'static [Reason],
}

const fn row(
    what: &'static str,
    bound: &'static str,
    constants: &'static [(Kind, &'static str, &'static str)],
    over: &'static str,
    reasons: &'static [Reason],
) -> Row {
    Row { what, bound, constants, over, reasons }
}

/// Rewrites the table instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- bounds -->\n";
const END: &str = "<!-- end -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// As the page shows a value: `131 072`, `16 MiB`, `0.25 s`.
fn shown(kind: Kind, value: u64) -> String {
    match kind {
        Kind::Count if value < 10_000 => value.to_string(),
        Kind::Count => {
            let digits = value.to_string();
            let first = digits.len() % 3;
            let mut groups: Vec<_> =
                digits.as_bytes()[first..].chunks(3).map(String::from_utf8_lossy).collect();
            if first > 0 {
                groups.insert(0, digits[..first].into());
            }
            groups.join(" ")
        }
        Kind::Bytes => {
            let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
            match units
                .into_iter()
                .find(|(unit, _)| value > 1024 && value >= *unit && value.is_multiple_of(*unit / 2))
            {
                Some((unit, name)) => format!("{} {name}", value as f64 / unit as f64),
                None => format!("{value} bytes"),
            }
        }
        Kind::Time if value.is_multiple_of(60_000_000_000) && value > 120_000_000_000 => {
            format!("{} min", value / 60_000_000_000)
        }
        Kind::Time => format!("{} s", value as f64 / 1e9),
    }
}

fn rendered(row: &Row) -> String {
    let mut bound = row.bound.to_owned();
    for (kind, file, name) in row.constants {
        assert!(bound.contains("{}"), "{}: more constants than places", row.what);
        bound = bound.replacen("{}", &shown(*kind, value(&root(), file, name)), 1);
    }
    assert!(!bound.contains("{}"), "{}: more places than constants", row.what);
    let reasons: Vec<_> = row.reasons.iter().map(|reason| format!("`{reason}`")).collect();
    let over = match (row.over, reasons.join(", ")) {
        ("", reasons) => reasons,
        (over, reasons) if reasons.is_empty() => over.to_owned(),
        (over, reasons) => format!("{over} ({reasons})"),
    };
    format!("| {} | {bound} | {over} |\n", row.what)
}

#[test]
fn the_documentation_has_the_same_table() {
    let path = root().join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut table = "| what | bound | over the limit |\n| --- | --- | --- |\n".to_owned();
    for row in TABLE {
        let _ = write!(table, "{}", rendered(row));
    }
    let from = page.find(BEGIN).expect("where the table begins") + BEGIN.len();
    let len = page[from..].find(END).expect("where the table ends");
    let mut fresh = page.clone();
    fresh.replace_range(from..from + len, &table);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, fresh).unwrap();
    } else {
        assert!(
            page == fresh,
            "the table of bounds is out of date: {UPDATE}=1 cargo test -p ktrace-user --test bounds"
        );
    }
}

/// Each reason that a bound can cause has its row.
#[test]
fn every_eviction_has_a_bound() {
    let bound: Vec<Reason> = TABLE.iter().flat_map(|row| row.reasons).copied().collect();
    for reason in Reason::all().filter(|reason| reason.name().ends_with("_forgotten")) {
        assert!(bound.contains(&reason), "no row says which bound leads to {reason}");
    }
}

#[test]
fn values_are_shown_as_people_write_them() {
    for (kind, value, text) in [
        (Kind::Count, 64, "64"),
        (Kind::Count, 4096, "4096"),
        (Kind::Count, 131_072, "131 072"),
        (Kind::Count, 4_194_304, "4 194 304"),
        (Kind::Bytes, 7 << 19, "3.5 MiB"),
        (Kind::Bytes, 1 << 30, "1 GiB"),
        (Kind::Bytes, 1024, "1024 bytes"),
        (Kind::Time, 250_000_000, "0.25 s"),
        (Kind::Time, 600_000_000_000, "10 min"),
    ] {
        assert_eq!(shown(kind, value), text);
    }
}
