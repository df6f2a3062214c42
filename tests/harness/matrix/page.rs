//! `docs/compatibility.md`: the part between two markers is written from whole runs, the rest by
//! hand.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::clients::{title, version};
use super::run::Side;
use super::{BROKERS, CODECS, Form, LIBRARIES, Mode, NEVER_ABORT, NOT_OFFERED, Run};
use crate::check::Recall;
use crate::clients::Library;

/// Below the source tree.
pub const PAGE: &str = "docs/compatibility.md";

const BEGIN: &str = "<!-- begin: written by `cargo xtask compatibility` -->\n";
const END: &str = "<!-- end -->\n";
const ABSENT: &str = "–";

/// The page as it is.
#[derive(Debug)]
pub struct Page {
    file: PathBuf,
    text: String,
}

impl Page {
    pub fn read() -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
        let text = fs::read_to_string(&file)?;
        Ok(Self { file, text })
    }

    /// The generated part, and where it is.
    fn part(&self) -> Result<(usize, &str)> {
        let from = self.text.find(BEGIN).context("no begin marker")? + BEGIN.len();
        let to = self.text.find(END).context("no end marker")?;
        Ok((from, self.text.get(from..to).context("the markers are in the wrong order")?))
    }

    /// Puts whole runs into it.
    pub fn write(&self, runs: &[Run]) -> Result<()> {
        let (from, old) = self.part()?;
        let mut text = self.text.clone();
        text.replace_range(from..from + old.len(), &render(runs, version)?);
        Ok(fs::write(&self.file, text)?)
    }

    /// An error if it does not say what these whole runs saw.
    pub fn says(&self, runs: &[Run]) -> Result<()> {
        let (_, part) = self.part()?;
        ensure!(
            part == render(runs, version)?,
            "{PAGE} says otherwise; `cargo xtask compatibility` writes it anew"
        );
        Ok(())
    }

    /// An error if it lacks a cell of a form, or reports a fault there.
    pub fn has(&self, form: Form) -> Result<()> {
        for broker in BROKERS {
            for cell in form.cells() {
                for side in Side::BOTH {
                    let told = self.figure(broker, side, cell.library, cell.codec, cell.mode)?;
                    ensure!(
                        told.parse::<u32>().is_ok_and(|count| count > 0),
                        "{PAGE} says {told:?} of {cell:?}, {}, on Kafka {broker}",
                        side.name()
                    );
                }
            }
        }
        Ok(())
    }

    fn figure(&self, broker: &str, side: Side, library: Library, codec: &str, mode: Mode) -> Result<&str> {
        let (_, part) = self.part()?;
        let (_, of_broker) = part.split_once(&format!("### Kafka {broker}\n")).context("no such broker")?;
        let of_broker = of_broker.split("### ").next().unwrap_or_default();
        let row = of_broker
            .lines()
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
            .find(|row| row.get(1) == Some(&title(library)) && row.get(3) == Some(&side.name()))
            .with_context(|| format!("no row of {library:?} {}", side.name()))?;
        let column = CODECS.iter().position(|known| *known == codec).context("no such codec")?;
        let turn = Mode::ALL.iter().position(|known| *known == mode).context("no such mode")?;
        let told = row.get(4 + column).and_then(|cell| cell.split(' ').nth(turn));
        told.with_context(|| format!("no figure of {library:?} {codec} {mode:?}"))
    }
}

fn render(runs: &[Run], version: impl Fn(Library) -> Result<String>) -> Result<String> {
    let mut text = String::new();
    for run in runs {
        let report = &run.report;
        let seen = report.sent.found + report.received.found;
        let all = report.sent.expected + report.received.expected;
        writeln!(
            text,
            "\n### Kafka {}\n\nRecall {:.2} % ({} messages sent, {} deliveries), {} wrong, {} invented, {} emitted twice.\n",
            run.broker,
            // floor: 100.00 is all of them
            (seen * 10_000 / all.max(1)) as f64 / 100.0,
            report.sent.expected,
            report.received.expected,
            report.wrong.len(),
            report.phantoms.len() + report.unlogged,
            report.repeated,
        )?;
        writeln!(text, "| client | version | | {} |", CODECS.join(" | "))?;
        writeln!(text, "| --- | --- | --- |{}", " --- |".repeat(CODECS.len()))?;
        for library in LIBRARIES {
            for side in Side::BOTH {
                let figures = CODECS.map(|codec| figures(run, side, library, codec));
                let (title, version) = (title(library), version(library)?);
                writeln!(text, "| {title} | {version} | {} | {} |", side.name(), figures.join(" | "))?;
            }
        }
    }
    writeln!(
        text,
        "\nNot offered by the client:{}",
        if NOT_OFFERED.is_empty() { " none of the cells." } else { "" }
    )?;
    for (cell, why) in NOT_OFFERED {
        writeln!(text, "- {}, {}, {}: {why}", title(cell.library), cell.codec, cell.mode.name())?;
    }
    let never_abort: Vec<&str> = NEVER_ABORT.iter().map(|library| title(*library)).collect();
    writeln!(text, "\nTransactions that are aborted are not offered by: {}.\n", never_abort.join(", "))?;
    Ok(text)
}

/// Of the three modes.
fn figures(run: &Run, side: Side, library: Library, codec: &str) -> String {
    let one = |mode| match run.figure(side, library, codec, mode) {
        None => ABSENT.into(),
        Some(Recall { found, expected }) if found == expected => expected.to_string(),
        Some(Recall { found, expected }) => format!("{found}/{expected}"),
    };
    Mode::ALL.map(one).join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{BEGIN, END, Page, render};
    use crate::check::{Recall, Report};
    use crate::matrix::run::Figures;
    use crate::matrix::{BROKERS, CODECS, Form, LIBRARIES, Mode, Run};

    /// All seen.
    fn run(broker: &'static str) -> Run {
        let mut figures = Figures::new();
        for library in LIBRARIES {
            for (codec, mode) in CODECS.into_iter().flat_map(|codec| Mode::ALL.map(|mode| (codec, mode))) {
                figures.insert((library.name(), codec, mode), Recall { found: 20, expected: 20 });
            }
        }
        let all = Recall { found: 3600, expected: 3600 };
        let report = Report { sent: all, received: all, ..Report::default() };
        Run { broker, report, sent: figures.clone(), received: figures, summary: Value::Null, lost: 0 }
    }

    fn page(runs: &[Run]) -> Page {
        let part = render(runs, |_| Ok("1.0".into())).expect("it is rendered");
        Page { file: "/nonexistent".into(), text: format!("by hand\n{BEGIN}{part}{END}by hand") }
    }

    #[test]
    fn a_page_has_what_was_written() {
        page(&BROKERS.map(run)).has(Form::Whole).expect("all cells are there");
        assert!(page(&[run(BROKERS[0])]).has(Form::Whole).is_err(), "a broker is missing");
    }

    #[test]
    fn a_fault_or_a_hole_is_told() {
        let key = (LIBRARIES[11].name(), CODECS[4], Mode::Transactional);
        for received in [false, true] {
            for faulty in [Some(Recall { found: 19, expected: 20 }), None] {
                let mut runs = BROKERS.map(run);
                let figures = if received { &mut runs[1].received } else { &mut runs[1].sent };
                match faulty {
                    Some(figure) => figures.insert(key, figure),
                    None => figures.remove(&key),
                };
                assert!(page(&runs).has(Form::Whole).is_err(), "{received} {faulty:?}");
            }
        }
    }
}
