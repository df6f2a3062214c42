//! `ktrace explain [REASON]...`: what a reason of the summary, of metrics or of a message means,
//! and what to do.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anstyle::Style;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use serde_json::json;

use super::Failure;
use super::doctor::Output;
use crate::export::{self, printable};
use crate::losses::{Group, Reason, Row, TABLE};

/// Names that are offered for one that is unknown.
const MAX_ALIKE: usize = 3;
/// Names less alike than this are another word, and not a misspelling.
const ALIKE: f64 = 0.8;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Reasons as the summary, metrics and messages name them, such as ring_full [default: a list
    /// of all]
    #[arg(value_name = "REASON", value_parser = Names, hide_possible_values = true)]
    reasons: Vec<String>,
    /// How the reasons are printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Output,
}

/// Takes any word, so that an unknown one gets an answer of its own; completions offer the names.
#[derive(Clone)]
struct Names;

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(TABLE.iter().map(|row| PossibleValue::new(row.name).help(row.meaning))))
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let wanted: Result<Vec<_>, _> = args.reasons.iter().map(|name| find(name)).collect();
    let wanted = wanted?;
    let rows: Vec<&Row> =
        if wanted.is_empty() { TABLE.iter().collect() } else { wanted.iter().map(|one| one.row()).collect() };
    Failure::of_printing(match args.output {
        Output::Json => {
            let reasons: Vec<_> = rows.into_iter().map(as_json).collect();
            let text = export::json(&json!({ "reasons": reasons })).unwrap_or_default();
            writeln!(std::io::stdout().lock(), "{text}")
        }
        Output::Text => {
            let text = if wanted.is_empty() { list() } else { explained(&rows) };
            write!(anstream::stdout().lock(), "{text}")
        }
    })
}

/// The reason of this name. The summary's path to it (`malformed.frame`) is a name, too.
fn find(name: &str) -> Result<Reason, Failure> {
    let last = name.rsplit('.').next().unwrap_or(name);
    Reason::named(last).ok_or_else(|| {
        let all = "ktrace explain lists all";
        let alike = alike(last);
        let advice = if alike.is_empty() {
            all.to_owned()
        } else {
            format!("did you mean {}? {all}", alike.join(", "))
        };
        Failure::Usage { what: format!("no reason is named {}", printable(name)), advice }
    })
}

/// Names that may have been meant, the likeliest first: those that hold the word, then those that
/// are spelled like it.
fn alike(word: &str) -> Vec<&'static str> {
    let score = |name: &'static str| {
        let holds = word.len() > 2 && name.contains(word);
        (if holds { 2.0 } else { strsim::jaro_winkler(word, name) }, name)
    };
    let mut scores: Vec<_> =
        TABLE.iter().map(|row| score(row.name)).filter(|(score, _)| *score > ALIKE).collect();
    scores.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scores.into_iter().take(MAX_ALIKE).map(|(_, name)| name).collect()
}

/// Each reason in full.
fn explained(rows: &[&Row]) -> String {
    let bold = Style::new().bold();
    let mut out = String::new();
    for row in rows {
        let Row { reason, name, unit, at, live, meaning, remedy, .. } = row;
        if !out.is_empty() {
            out.push('\n');
        }
        let metric = reason.metric().map(|metric| format!(", and metric {metric}")).unwrap_or_default();
        let live = if *live { "; reported as soon as it begins" } else { "" };
        let _ = write!(
            out,
            "{bold}{name}{bold:#}: {meaning}\n\
             \x20 what to do  {remedy}\n\
             \x20 counts      {}, where they arise: {}\n\
             \x20 listed      {} in the summary{metric}{live}\n",
            unit.name(),
            at.name(),
            path(row),
        );
    }
    out
}

/// Where the summary has it.
fn path(row: &Row) -> String {
    match row.group {
        Group::Lost => format!("lost.{}", row.name),
        Group::Malformed => format!("malformed.{}", row.name),
        Group::NotKafka => format!("not_kafka.{}", row.name),
        Group::LeftOut => row.name.to_owned(),
    }
}

/// All reasons, a line each.
fn list() -> String {
    let (bold, width) = (Style::new().bold(), TABLE.iter().map(|row| row.name.len()).max().unwrap_or(0));
    let mut out = String::new();
    for (group, title) in [
        (Group::Lost, "Lost: not shown, or shown with less"),
        (Group::Malformed, "Malformed: refused, as Kafka does not write it so"),
        (Group::NotKafka, "Not Kafka: connections that are something else"),
        (Group::LeftOut, "Left out, and no loss"),
    ] {
        let blank = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{blank}{bold}{title}{bold:#}");
        for Row { name, meaning, .. } in TABLE.iter().filter(|row| row.group == group) {
            let _ = writeln!(out, "  {name:width$}  {meaning}");
        }
    }
    out += "\nktrace explain REASON says what to do about one.\n";
    out
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "reason": row.name,
        "summary": path(row),
        "metric": row.reason.metric(),
        "counts": row.unit.name(),
        "where": row.at.name(),
        "live": row.live,
        "meaning": row.meaning,
        "what_to_do": row.remedy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text() {
        let text = explained(&[Reason::RingFull.row(), Reason::SurplusBytes.row()]);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "ring_full: A piece of a packet found no room in its ring: the agent did not read in time.\n\
             \x20 what to do  Make the rings larger (--ring-size, of all together) or more (--rings), give it \
             CPU time, or capture less (--ports, --cgroup).\n\
             \x20 counts      pieces of packets, where they arise: kernel\n\
             \x20 listed      lost.ring_full in the summary, and metric ktrace.lost.events; \
             reported as soon as it begins\n\
             \n\
             surplus_bytes: Bytes follow the body of a request or response; clients and brokers skip them too.\n\
             \x20 what to do  Nothing needs to be done.\n\
             \x20 counts      bytes, where they arise: parser\n\
             \x20 listed      surplus_bytes in the summary\n"
        );
    }

    #[test]
    fn the_list_has_every_reason_once() {
        let list = anstream::adapter::strip_str(&list()).to_string();
        for Row { name, .. } in TABLE {
            let lines = list.lines().filter(|line| line.trim_start().split(' ').next() == Some(name));
            assert_eq!(lines.count(), 1, "{name}");
        }
    }

    #[test]
    fn names_are_found_by_path_and_similar_ones_offered() {
        assert_eq!(find("malformed.frame").unwrap(), Reason::Frame);
        assert_eq!(find("lost.ring_full").unwrap(), Reason::RingFull);
        for (word, first) in
            [("ring_ful", "ring_full"), ("queue", "export_queue_full"), ("snaplenn", "snaplen")]
        {
            assert_eq!(alike(word).first(), Some(&first), "{word}");
        }
        assert!(alike("xyzzy").is_empty() && alike("").is_empty());
        assert!(alike("tls").len() <= MAX_ALIKE);
    }
}
