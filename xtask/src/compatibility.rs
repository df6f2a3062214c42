//! The matrix of clients, codecs, brokers and modes, run as a whole, into `docs/compatibility.md`.

use anyhow::{Result, ensure};
use harness::matrix::{self, BROKERS, Form, PAGE, Page};
use harness::need;

pub fn write() -> Result<()> {
    ensure!(need::live("the matrix", &["kcat"]), "nothing was written");
    let page = Page::read()?;
    let mut runs = Vec::new();
    for broker in BROKERS {
        let run = matrix::run(broker, Form::Whole)?;
        println!("Kafka {broker}: {}", run.report);
        run.is_perfect()?;
        runs.push(run);
    }
    page.write(&runs)?;
    println!("{PAGE} is written");
    Ok(())
}
