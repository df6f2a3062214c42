//! What a client needs so that it speaks to a TLS listener: options of the clients' programs, or
//! librdkafka's settings for kcat, which has no others.

use std::path::{Path, PathBuf};

use super::authority::Authority;
use super::listener::Listener;
use super::sasl::{Mechanism, PASSWORD, USER};
use crate::clients::Library;

#[derive(Clone, Debug)]
pub struct Security {
    authority: PathBuf,
    identity: Option<PathBuf>,
    sasl: Option<Mechanism>,
    key_log: Option<PathBuf>,
}

impl Security {
    /// What this listener asks for, with SASL by PLAIN.
    #[must_use]
    pub fn new(authority: &Authority, listener: Listener) -> Self {
        Self {
            authority: authority.certificate(),
            identity: (listener == Listener::Mutual).then(|| authority.client()),
            sasl: (listener == Listener::Sasl).then_some(Mechanism::Plain),
            key_log: None,
        }
    }

    #[must_use]
    pub fn with_sasl(self, mechanism: Mechanism) -> Self {
        Self { sasl: Some(mechanism), ..self }
    }

    /// The client writes its secrets there, as NSS does. Those in Python and in Go can.
    #[must_use]
    pub fn with_key_log(self, file: &Path) -> Self {
        Self { key_log: Some(file.to_owned()), ..self }
    }

    /// Further arguments of a client ([`crate::clients::Produce::start_with`]).
    #[must_use]
    pub fn arguments(&self, library: Library) -> Vec<String> {
        if library == Library::Kcat {
            return self.librdkafka().into_iter().flat_map(|setting| ["-X".into(), setting]).collect();
        }
        let text = |path: &PathBuf| path.display().to_string();
        let sasl = |mechanism: Mechanism| format!("{}:{USER}:{PASSWORD}", mechanism.name());
        [
            ("--ca", Some(text(&self.authority))),
            ("--identity", self.identity.as_ref().map(text)),
            ("--sasl", self.sasl.map(sasl)),
            ("--key-log", self.key_log.as_ref().map(text)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some([name.to_owned(), value?]))
        .flatten()
        .collect()
    }

    fn librdkafka(&self) -> Vec<String> {
        let protocol = if self.sasl.is_some() { "sasl_ssl" } else { "ssl" };
        let mut all = vec![
            format!("security.protocol={protocol}"),
            format!("ssl.ca.location={}", self.authority.display()),
        ];
        if let Some(identity) = &self.identity {
            let identity = identity.display();
            all.push(format!("ssl.certificate.location={identity}"));
            all.push(format!("ssl.key.location={identity}"));
        }
        if let Some(mechanism) = self.sasl {
            all.push(format!("sasl.mechanism={}", mechanism.name()));
            all.push(format!("sasl.username={USER}"));
            all.push(format!("sasl.password={PASSWORD}"));
        }
        all
    }
}
