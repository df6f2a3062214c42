//! `ktrace man`: the manual page, all verbs in one.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Failure};

pub fn run() -> Result<ExitCode, Failure> {
    let page = page().map_err(|error| Failure::failed(error, "report this"))?;
    Failure::of_printing(io::stdout().lock().write_all(&page))
}

fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    for verb in command.get_subcommands() {
        writeln!(page, ".SH \"KTRACE {}\"", verb.get_name().to_uppercase())?;
        let man = Man::new(verb.clone());
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    writeln!(page, ".SH \"EXIT STATUS\"\n0 done; 1 failed; 2 usage; 3 this host cannot capture")?;
    Ok(page)
}
