//! Findings that were there when a check was made: as many of a kind as a file has may stay, and no
//! more.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// What a kind of finding is counted by: the kind, and the file.
pub(super) type Counts = BTreeMap<(String, String), usize>;

/// Lines of `count kind file`.
pub(super) fn read(text: &str) -> Result<Counts> {
    let line = |line: &str| -> Result<_> {
        let (count, rest) = line.split_once(' ').context("no count")?;
        let (kind, file) = rest.split_once(' ').context("no kind")?;
        Ok(((kind.to_owned(), file.to_owned()), count.parse()?))
    };
    text.lines().map(|text| line(text).with_context(|| text.to_owned())).collect()
}

pub(super) fn write(counts: &Counts) -> String {
    counts.iter().fold(String::new(), |mut text, ((kind, file), count)| {
        _ = writeln!(text, "{count} {kind} {file}");
        text
    })
}

/// The files that have more than they may, by kind.
pub(super) fn risen<'a>(found: &'a Counts, allowed: &Counts) -> Vec<&'a (String, String)> {
    let is_over =
        |(at, count): &(&'a (String, String), &usize)| **count > allowed.get(*at).copied().unwrap_or(0);
    found.iter().filter(is_over).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Counts {
        read(text).unwrap()
    }

    #[test]
    fn counts_may_go_down_and_not_up() {
        let allowed = counts("2 word a.md\n1 column b.rs\n");
        assert!(risen(&counts("2 word a.md\n"), &allowed).is_empty());
        let over = counts("3 word a.md\n1 word b.rs\n1 column b.rs\n");
        let files: Vec<_> =
            risen(&over, &allowed).into_iter().map(|(kind, file)| format!("{kind} {file}")).collect();
        assert_eq!(files, ["word a.md", "word b.rs"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "1 column b.rs\n2 word a.md\n";
        assert_eq!(write(&counts(text)), text);
        assert!(read("word a.md").is_err());
    }
}
