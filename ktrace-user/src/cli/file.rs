//! The configuration file: TOML, one key an option, named as its long flag.
//!
//! Its values become the options' defaults, so the options' own definitions check them.

use std::path::Path;

use clap::{Arg, Args as _, Command};
use toml::{Table, Value};

use super::Failure;
use super::observe::FullScreen;
use super::pipeline::{Live, Pipeline, Printed, SummaryArgs};

/// `command`, with the file's values as the defaults of every verb that has the option.
pub fn with_defaults(command: Command, path: &Path) -> Result<Command, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::failed(
            format_args!("cannot read configuration file {name}: {error}"),
            "check --config and KTRACE_CONFIG",
        )
    })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Failure::Usage {
            what: format!("{name}, line {line}: {}", error.message().replace('\n', " ")),
            advice: "write TOML: one key a line, such as ports = \"9092-9094\"".to_owned(),
        }
    })?;
    let all = all();
    let keys = keys(&all);
    let mut command = command;
    for (key, value) in &table {
        if !keys.contains(key) {
            return Err(Failure::Usage {
                what: format!("{name}: unknown key `{key}`"),
                advice: format!("known keys are: {}", keys.join(", ")),
            });
        }
        let takes = all.get_arguments().find(|arg| arg.get_long() == Some(key)).map_or(Takes::One, takes);
        let values = takes.values(value).ok_or_else(|| Failure::Usage {
            what: format!("{name}: key `{key}` must be {}", takes.name()),
            advice: format!("see --{key} in ktrace run --help"),
        })?;
        for verb in ["run", "observe", "replay"] {
            command = command.mut_subcommand(verb, |verb| {
                if !verb.get_arguments().any(|arg| arg.get_long() == Some(key)) {
                    return verb;
                }
                verb.mut_args(|arg| match arg.get_long() == Some(key) {
                    // One value, in which the commas are.
                    true if takes == Takes::List && arg.get_value_delimiter().is_none() => {
                        arg.default_values([values.join(",")])
                    }
                    true => arg.default_values(values.clone()),
                    false => arg,
                })
            });
        }
    }
    Ok(command)
}

/// Every option of `run`, `observe` and `replay`, so that one file may serve all three.
fn all() -> Command {
    let all = Live::augment_args(Pipeline::augment_args(Command::new("")));
    FullScreen::augment_args(SummaryArgs::augment_args(Printed::augment_args(all)))
}

/// What an option's key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// `true` or `false`.
    Truth,
    /// One value.
    One,
    /// One value, or a list of them.
    List,
    /// The same, or a table: KEY=NAME each.
    Pairs,
}

/// Derived from the option's own definition: it takes a list if it takes commas on the command
/// line.
fn takes(arg: &Arg) -> Takes {
    let needs_none = arg.get_num_args().is_some_and(|values| values.min_values() == 0);
    let names = arg.get_value_names().unwrap_or_default();
    match arg.get_value_delimiter() {
        _ if needs_none => Takes::Truth,
        Some(_) if names.iter().any(|name| name.contains('=')) => Takes::Pairs,
        Some(_) => Takes::List,
        // One value, in which the commas are.
        None if names.iter().any(|name| name == "LIST") => Takes::List,
        None => Takes::One,
    }
}

impl Takes {
    fn name(self) -> &'static str {
        match self {
            Self::Truth => "true or false",
            Self::One => "text or a number, and no list",
            Self::List => "text, a number or a list of those",
            Self::Pairs => "text, a list of texts or a table of those",
        }
    }

    /// The values as flags have them.
    fn values(self, value: &Value) -> Option<Vec<String>> {
        match (self, value) {
            (Self::Truth, Value::Boolean(truth)) => Some(vec![truth.to_string()]),
            (Self::List | Self::Pairs, Value::Array(values)) => values.iter().map(text).collect(),
            (Self::Pairs, Value::Table(pairs)) => {
                let pairs = pairs.iter().map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
                pairs.collect()
            }
            (_, value) => Some(vec![text(value)?]),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn keys(all: &Command) -> Vec<String> {
    let long = all.get_arguments().filter_map(|arg| arg.get_long());
    long.filter(|name| !matches!(*name, "config" | "help")).map(str::to_owned).collect()
}
