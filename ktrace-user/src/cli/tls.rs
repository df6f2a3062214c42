//! The options of TLS, of `run`, `observe` and `doctor`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::Failure;
use super::values::share;
use crate::capture::PortSet;
use crate::patterns::Patterns;
use crate::worker::{TlsOptions, TlsSource};

/// Whether TLS is read, and of whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub struct Tls {
    /// Where keys of TLS connections come from: memory, that of the processes whose connections
    /// they are, which ktrace then reads as a debugger may; keylog:FILE, a log that programs write
    /// (SSLKEYLOGFILE); off, TLS is counted and not read
    #[arg(long, value_name = "SOURCE", env = "KTRACE_TLS", default_value = "off")]
    pub tls: TlsSource,
    /// With --tls memory: also see secrets where OpenSSL and Go derive them, by breakpoints in the
    /// libraries and executables of programs that speak Kafka. For ChaCha20, and processes that end
    /// at once. Takes CAP_PERFMON, before Linux 6.6 CAP_SYS_ADMIN
    #[arg(
        long, env = "KTRACE_TLS_UPROBES", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = BoolishValueParser::new(), hide_default_value = true
    )]
    pub tls_uprobes: bool,
    /// CPU time that searches for keys may take, as a share of one core: 0.02 or 2%
    #[arg(long, value_name = "SHARE", env = "KTRACE_TLS_CPU", default_value = "2%", value_parser = share)]
    pub tls_cpu: f64,
    /// Open only TLS connections of these services; ! in front leaves out. Repeatable, or separated
    /// by commas
    #[arg(long, value_name = "GLOB", env = "KTRACE_TLS_SERVICE", value_delimiter = ',')]
    pub tls_service: Vec<String>,
    /// Open only TLS connections of processes below this cgroup directory. Repeatable, or separated
    /// by commas
    #[arg(long, value_name = "PATH", env = "KTRACE_TLS_CGROUP", value_delimiter = ',')]
    pub tls_cgroup: Vec<PathBuf>,
    /// Open only TLS connections to these ports; auto is those that are Kafka's by convention, and
    /// those that brokers name [default: all of --ports]
    #[arg(long, value_name = "LIST", env = "KTRACE_TLS_PORTS")]
    pub tls_ports: Option<PortSet>,
}

impl Tls {
    /// How TLS connections are read. `ports`: of the whole run.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a pattern that is none, a cgroup that is none, and ports that `ports`
    /// leaves out. A key log is opened, and so looked at, where it is followed.
    pub fn options(&self, ports: &PortSet) -> Result<TlsOptions, Failure> {
        let usage = |what: String, advice: &str| Failure::Usage { what, advice: advice.to_owned() };
        let services = Patterns::new(&self.tls_service)
            .map_err(|error| usage(format!("--tls-service: {error}"), "patterns know *, ? and [abc]"))?;
        for dir in &self.tls_cgroup {
            if !dir.join("cgroup.procs").exists() {
                return Err(usage(
                    format!("--tls-cgroup: {} is no cgroup", dir.display()),
                    "name a directory of the cgroup tree, as `findmnt -t cgroup2` and `systemd-cgls` show it",
                ));
            }
        }
        let ports = match &self.tls_ports {
            None => ports.clone(),
            Some(narrowed) => narrowed.within(ports).map_err(|left_out| {
                usage(
                    format!("--tls-ports: port {left_out} is not among those of --ports ({ports})"),
                    "give it with --ports, too, or leave it out",
                )
            })?,
        };
        if self.tls_uprobes && self.tls != TlsSource::Memory {
            return Err(usage(
                "--tls-uprobes: that goes with --tls memory, and --tls is another".to_owned(),
                "give --tls memory, or leave it out",
            ));
        }
        Ok(TlsOptions {
            source: self.tls.clone(),
            uprobes: self.tls_uprobes,
            cpu: self.tls_cpu,
            services,
            cgroups: self.tls_cgroup.clone(),
            ports,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn options(arguments: &[&str], ports: &str) -> Result<TlsOptions, Option<(String, String)>> {
        let command = Tls::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|_| None)?;
        let tls = Tls::from_arg_matches(&matches).map_err(|_| None)?;
        tls.options(&ports.parse().unwrap()).map_err(|failure| match failure {
            Failure::Usage { what, advice } => Some((what, advice)),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn off_unless_it_is_asked_for() {
        let off = options(&[], "9092").unwrap();
        assert!(!off.is_on() && off.ports.contains(9092) && !off.ports.is_auto());
        assert!((off.cpu - TlsOptions::USUAL_CPU).abs() < 1e-9);
        let on =
            options(&["--tls", "memory", "--tls-cpu", "10%", "--tls-service", "a*,!ab"], "auto").unwrap();
        assert!(on.is_on() && on.ports.is_auto() && (on.cpu - 0.1).abs() < 1e-9);
        assert!(!on.uprobes && options(&["--tls", "memory", "--tls-uprobes"], "auto").unwrap().uprobes);
        assert!(on.services.keep(|| Some("ac")) && !on.services.keep(|| Some("ab")));
        let narrowed = options(&["--tls", "memory", "--tls-ports", "9093"], "9092-9094").unwrap();
        assert!(narrowed.ports.contains(9093) && !narrowed.ports.contains(9092));
    }

    #[test]
    fn what_cannot_be_is_one_line_with_advice() {
        for (arguments, ports, says) in [
            (&["--tls", "memory", "--tls-ports", "443"][..], "9092", "port 443"),
            (&["--tls", "memory", "--tls-ports", "auto,443"], "9092", "port 443"),
            (&["--tls", "memory", "--tls-service", "["], "auto", "--tls-service: "),
            (&["--tls", "memory", "--tls-cgroup", "/proc"], "auto", "/proc is no cgroup"),
            (&["--tls-uprobes"], "auto", "--tls-uprobes"),
        ] {
            let (what, advice) = options(arguments, ports).unwrap_err().unwrap();
            assert!(what.contains(says) && !what.contains('\n') && !advice.is_empty(), "{what}: {advice}");
        }
        for arguments in [["--tls", "yes"], ["--tls", "keylog:"], ["--tls-cpu", "0"], ["--tls-ports", "x"]] {
            assert!(options(&arguments, "auto").is_err_and(|error| error.is_none()), "{arguments:?}");
        }
    }
}
