//! The fidelity matrix: clients × codecs × brokers × modes. With `KTRACE_FULL` all of it, else a
//! part that has every client, mode and codec; `docs/compatibility.md` shows what the whole of it
//! came to.

use anyhow::Result;
use harness::clients::Library;
use harness::matrix::{BROKERS, Form, NEVER_ABORT, NOT_OFFERED, Page, run};
use harness::need;

#[test]
fn every_client_with_every_codec_in_every_mode() -> Result<()> {
    if !need::live("matrix", &["java", "kcat", "node", "go"]) {
        return Ok(());
    }
    let whole = need::is_full();
    let form = if whole { Form::Whole } else { Form::Short };
    let mut runs = Vec::new();
    for broker in BROKERS {
        let run = run(broker, form)?;
        eprintln!("Kafka {broker}: {}", run.report);
        runs.push(run);
    }
    runs.iter().try_for_each(|run| run.is_perfect())?;
    if whole { Page::read()?.says(&runs) } else { Ok(()) }
}

/// It cannot grow unseen.
#[test]
fn clients_offer_all_but() {
    assert_eq!(NOT_OFFERED, []);
    assert_eq!(NEVER_ABORT, [Library::Kcat]);
}

#[test]
fn the_page_has_the_matrix() -> Result<()> {
    Page::read()?.has(Form::Whole)
}
