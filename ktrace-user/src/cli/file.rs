//! The configuration file: TOML, one key an option, named as its long flag.
//!
//! Its values become the options' defaults, so the options' own definitions check them.

use std::path::Path;

use clap::{Arg, Args as _, Command};
use toml::{Table, Value};

use super::Failure;
use super::observe::FullScreen;
use super::pipeline::{Live, Pipeline, Printed, Told};

/// `command` with the file's values as defaults of every verb that has the option.
pub fn with_defaults(command: Command, path: &Path) -> Result<Command, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::failed(
            format_args!("cannot read configuration file {name}: {error}"),
            "check --config and KTRACE_CONFIG",
        )
    })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
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
        let is_flag = all.get_arguments().any(|arg| arg.get_long() == Some(key) && is_flag(arg));
        let values = texts(value).or_else(|| Some(vec![value.as_bool().filter(|_| is_flag)?.to_string()]));
        let kinds = if is_flag { "true or false" } else { "text, a number or a list of those" };
        let values = values.ok_or_else(|| Failure::Usage {
            what: format!("{name}: key `{key}` must be {kinds}"),
            advice: format!("see --{key} in ktrace run --help"),
        })?;
        for verb in ["run", "observe", "replay"] {
            command = command.mut_subcommand(verb, |verb| {
                if !verb.get_arguments().any(|arg| arg.get_long() == Some(key)) {
                    return verb;
                }
                verb.mut_args(|arg| {
                    if arg.get_long() == Some(key) { arg.default_values(values.clone()) } else { arg }
                })
            });
        }
    }
    Ok(command)
}

/// Every option that any of the pipeline's verbs has. One file may serve all three.
fn all() -> Command {
    let all = Live::augment_args(Pipeline::augment_args(Command::new("")));
    FullScreen::augment_args(Told::augment_args(Printed::augment_args(all)))
}

/// An option that needs no value.
fn is_flag(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|values| values.min_values() == 0)
}

fn keys(all: &Command) -> Vec<String> {
    let long = all.get_arguments().filter_map(|arg| arg.get_long());
    long.filter(|name| !matches!(*name, "config" | "help")).map(str::to_owned).collect()
}

/// An option's values; those of the form KEY=NAME may stand as a table.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Float(number) => Some(vec![number.to_string()]),
        Value::Array(values) => {
            let texts = values.iter().map(|value| match value {
                Value::Array(_) | Value::Table(_) => None,
                value => texts(value)?.pop(),
            });
            texts.collect()
        }
        Value::Table(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
            pairs.collect()
        }
        _ => None,
    }
}
