//! Words, columns and names of tests, held to what stands in `xtask/allowed.txt`. Without that file
//! nothing is allowed.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, bail};

use super::sources::{is, root, sources};
use super::{columns, names, ratchet, words};

const ALLOWED: &str = "xtask/allowed.txt";

/// Fails with all findings in files that have more of them than they may.
pub(super) fn check(bless: bool) -> Result<()> {
    let mut findings: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (path, text) in sources(|_| true)? {
        let file = path.display().to_string();
        let mut found = |kind: &str, list: Vec<(usize, String)>| {
            if !list.is_empty() {
                let lines = list.into_iter().map(|(line, what)| format!("{file}:{line}: {what}"));
                findings.insert((kind.to_owned(), file.clone()), lines.collect());
            }
        };
        found("word", words::unwanted(&path, &text)?);
        if is(&path, "rs") {
            found("column", columns::wide(&text)?);
            found("name", names::long(&text)?);
        }
    }
    let counts = findings.iter().map(|(at, lines)| (at.clone(), lines.len())).collect();
    let list = root().join(ALLOWED);
    if bless {
        return Ok(fs::write(list, ratchet::write(&counts))?);
    }
    let allowed = ratchet::read(&fs::read_to_string(list).unwrap_or_default())?;
    let risen = ratchet::risen(&counts, &allowed);
    if risen.is_empty() {
        let of = |kind: &str| {
            counts.iter().filter(|((is, _), _)| is == kind).map(|(_, count)| count).sum::<usize>()
        };
        println!(
            "allowed and still there: {} words, {} lines over {} columns, {} long names of tests",
            of("word"),
            of("column"),
            columns::MOST,
            of("name")
        );
        return Ok(());
    }
    for at @ (kind, file) in risen {
        let allowed = allowed.get(at).copied().unwrap_or(0);
        println!("{file}: {} of kind `{kind}`, of which {allowed} are allowed:", counts[at]);
        findings[at].iter().for_each(|line| println!("  {line}"));
    }
    bail!(
        "words: see the glossary in CONTRIBUTING.md; lines: at most {} columns; names of tests: at most {}",
        columns::MOST,
        names::MOST
    )
}
