//! Environment variables that begin with `KTRACE_`: one for each option, and `KTRACE_LOG`.
//!
//! An unknown name is an error, like an unknown key of the configuration file: it is a misspelled
//! option, and would otherwise be ignored.
#![expect(unsafe_code, reason = "the environment is changed before any thread is started")]

use std::ffi::OsString;

use clap::Command;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Failure;
use crate::export::is_of_a_service;

const PREFIX: &str = "KTRACE_";
/// The variable that sets what the agent's own log shows.
pub const LOG: &str = "KTRACE_LOG";
/// Variables of the end-to-end tests, which start agents in their own environment.
const OF_TESTS: [&str; 3] = ["KTRACE_BIN", "KTRACE_FULL", "KTRACE_KEEP"];
const OF_TESTS_PREFIX: &str = "KTRACE_TEST_";

/// Removes empty variables of ktrace: manifests have empty defaults, which mean "not set".
pub fn forget_empty() {
    for (name, value) in std::env::vars_os() {
        if value.is_empty() && name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            // SAFETY: the program has one thread yet.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// # Errors
/// [`Failure::Usage`] names the first variable that `command` does not know, and the most similar
/// known one.
pub fn check(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    command: &Command,
) -> Result<(), Failure> {
    let mut known = vec![LOG.to_owned()];
    for verb in command.get_subcommands() {
        let names = verb.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
        known.extend(names.map(str::to_owned));
    }
    known.sort();
    known.dedup();
    let ours = variables.into_iter().map(|(name, value)| (lossy(name), lossy(value)));
    let mut unknown: Vec<_> = ours
        .filter(|(name, value)| {
            name.starts_with(PREFIX)
                && !known.contains(name)
                && !is_service(name, value)
                && !OF_TESTS.contains(&name.as_str())
                && !name.starts_with(OF_TESTS_PREFIX)
        })
        .collect();
    unknown.sort();
    let Some((name, _)) = unknown.first() else { return Ok(()) };
    let alike = |known: &&String| strsim::jaro_winkler(name, known);
    let like = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    let advice = match like.filter(|like| alike(like) > 0.85) {
        Some(like) => format!("did you mean {like}? ktrace run --help has all names"),
        None => "ktrace run --help has all names; unset it, or give it another prefix".to_owned(),
    };
    let name = crate::export::printable(name);
    Err(Failure::Usage { what: format!("the environment variable {name} is none of ktrace's"), advice })
}

/// Whether Kubernetes set the variable. It gives every container the addresses of services: a
/// service named `ktrace` appears as `KTRACE_PORT=tcp://10.0.0.1:4317`. A plain number in
/// `KTRACE_PORT` is a misspelled `KTRACE_PORTS`.
fn is_service(name: &str, value: &str) -> bool {
    is_of_a_service(name)
        && (!name.ends_with("_PORT")
            || name.ends_with("_SERVICE_PORT")
            || is_of_protocol(name)
            || value.contains("://"))
}

/// `KTRACE_PORT_4317_TCP_PORT` is a plain number, and is set by Kubernetes all the same.
fn is_of_protocol(name: &str) -> bool {
    ["_TCP_PORT", "_UDP_PORT", "_SCTP_PORT"].iter().any(|end| name.ends_with(end))
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// The filter that `KTRACE_LOG` asks for; without it, warnings.
///
/// # Errors
/// [`Failure::Usage`] where the value is not a list of levels, with or without targets.
pub fn log_filter() -> Result<EnvFilter, Failure> {
    match std::env::var_os(LOG).map(lossy).filter(|set| !set.trim().is_empty()) {
        Some(set) => parse_log(&set),
        None => Ok(EnvFilter::new("warn")),
    }
}

fn parse_log(set: &str) -> Result<EnvFilter, Failure> {
    // tracing takes a bare word that is no level for a target, and shows everything of it. That is
    // almost always a misspelled level.
    let stray = set.split(',').map(str::trim).find(|part| {
        let bare = !part.contains(['=', '[', ':']) && !part.is_empty();
        bare && part.parse::<LevelFilter>().is_err()
    });
    let wrong = |what: String| Failure::Usage {
        what: format!("{LOG}={}: {what}", crate::export::printable(set)),
        advice: "give off, error, warn, info, debug or trace, or TARGET=LEVEL, separated by commas"
            .to_owned(),
    };
    match stray {
        Some(stray) => Err(wrong(format!("{} is no level", crate::export::printable(stray)))),
        None => EnvFilter::try_new(set).map_err(|error| wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    fn refused(name: &str, value: &str) -> Option<(String, String)> {
        match check([(name.into(), value.into())], &Cli::command()) {
            Ok(()) => None,
            Err(Failure::Usage { what, advice }) => Some((what, advice)),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn unknown_names_are_refused_with_what_was_meant() {
        for (name, value, meant) in [
            ("KTRACE_PORT", "9092", "KTRACE_PORTS"),
            ("KTRACE_TOPICS", "a", "KTRACE_TOPIC"),
            ("KTRACE_SLOWER_THEN", "1s", "KTRACE_SLOWER_THAN"),
            ("KTRACE_RINGSIZE", "16M", "KTRACE_RING_SIZE"),
            ("KTRACE_LOGS", "info", "KTRACE_LOG"),
        ] {
            let (what, advice) = refused(name, value).unwrap();
            assert!(what.contains(name) && advice.contains(&format!("mean {meant}?")), "{what}: {advice}");
        }
        assert!(refused("KTRACE_XYZZY", "1").unwrap().1.contains("--help"));
    }

    #[test]
    fn what_kubernetes_gives_for_a_service_is_harmless() {
        for (name, value) in [
            ("KTRACE_SERVICE_HOST", "10.0.0.1"),
            ("KTRACE_SERVICE_PORT", "4317"),
            ("KTRACE_SERVICE_PORT_OTLP_GRPC", "4317"),
            ("KTRACE_PORT", "tcp://10.0.0.1:4317"),
            ("KTRACE_PORT_4317_TCP", "tcp://10.0.0.1:4317"),
            ("KTRACE_PORT_4317_TCP_PROTO", "tcp"),
            ("KTRACE_PORT_4317_TCP_PORT", "4317"),
            ("KTRACE_PORT_4317_TCP_ADDR", "10.0.0.1"),
            ("KTRACE_METRICS_PORT_9090_UDP_PORT", "9090"),
            ("KTRACE_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("KTRACE_PORTS", "9092"),
            ("KTRACE_LOG", "info"),
            ("KTRACE_TEST_ANYTHING", "1"),
            ("PATH", "/bin"),
        ] {
            assert_eq!(refused(name, value), None, "{name}");
        }
    }

    #[test]
    fn what_the_log_shows_is_read_or_refused() {
        for good in ["info", "WARN", "ktrace_user::export=debug,warn", "off", "ktrace_user=info, error"] {
            assert!(parse_log(good).is_ok(), "{good}");
        }
        for wrong in ["loud", "info,verbose", "ktrace_user=loud", "ktrace_user=info=debug"] {
            assert!(parse_log(wrong).is_err(), "{wrong}");
        }
    }
}
