//! What the user says of TLS: where keys come from, and which connections may be opened.

use std::path::PathBuf;
use std::str::FromStr;

use crate::capture::PortSet;
use crate::patterns::Patterns;

/// Where keys of TLS connections come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsSource {
    /// TLS connections are counted, and not read.
    #[default]
    Off,
    /// The memory of the process whose connection it is.
    Memory,
    /// A key log that programs write (`SSLKEYLOGFILE`).
    KeyLog(PathBuf),
}

/// Why a source was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsSourceError {
    #[error("not off, memory or keylog:FILE")]
    Unknown,
    #[error("keylog: needs a file, as in keylog:/run/keys.log")]
    NoFile,
}

impl FromStr for TlsSource {
    type Err = TlsSourceError;

    fn from_str(text: &str) -> Result<Self, TlsSourceError> {
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            None if text == "memory" => Ok(Self::Memory),
            None if text == "keylog" => Err(TlsSourceError::NoFile),
            Some(("keylog", "")) => Err(TlsSourceError::NoFile),
            Some(("keylog", file)) => Ok(Self::KeyLog(file.into())),
            _ => Err(TlsSourceError::Unknown),
        }
    }
}

/// How TLS connections are read.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    pub source: TlsSource,
    /// With [`TlsSource::Memory`]: secrets are also seen where libraries derive them, by probes on
    /// these.
    pub uprobes: bool,
    /// CPU time that searches for keys may take, as a share of one core.
    pub cpu: f64,
    /// Only connections of these services are opened.
    pub services: Patterns,
    /// Only connections of processes below these cgroups are opened, unless there are none;
    /// [`Process`](crate::seen::Process) knows whether it is below one.
    pub cgroups: Vec<PathBuf>,
    /// Only connections to these ports are opened. `auto` stands for those that are Kafka's by
    /// convention, and those that responses have named as brokers'.
    pub ports: PortSet,
}

impl TlsOptions {
    /// 2 % of a core: a search of a client takes 1 to 100 ms, one of a broker with a large heap
    /// some seconds.
    pub const USUAL_CPU: f64 = 0.02;

    /// Whether any connection may be opened.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.source != TlsSource::Off
    }
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            source: TlsSource::Off,
            uprobes: false,
            cpu: Self::USUAL_CPU,
            services: Patterns::default(),
            cgroups: Vec::new(),
            ports: PortSet::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        for (text, source) in [
            ("off", Ok(TlsSource::Off)),
            ("memory", Ok(TlsSource::Memory)),
            ("keylog:/run/keys.log", Ok(TlsSource::KeyLog("/run/keys.log".into()))),
            ("keylog:a:b", Ok(TlsSource::KeyLog("a:b".into()))),
            ("keylog", Err(TlsSourceError::NoFile)),
            ("keylog:", Err(TlsSourceError::NoFile)),
            ("", Err(TlsSourceError::Unknown)),
            ("Memory", Err(TlsSourceError::Unknown)),
            ("memory:1", Err(TlsSourceError::Unknown)),
            ("/run/keys.log", Err(TlsSourceError::Unknown)),
        ] {
            assert_eq!(text.parse(), source, "{text}");
        }
    }
}
