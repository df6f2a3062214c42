//! A broker with TLS listeners, and the clients that speak to one of them.

use std::path::Path;

use anyhow::Result;

use super::{Authority, Listener, Listeners, Mechanism, Security};
use crate::broker::{Broker, Settings};
use crate::clients::{Client, Consume, Library, Produce};
use crate::ports;

#[derive(Debug)]
pub struct Server {
    pub broker: Broker,
    pub authority: Authority,
    pub listeners: Listeners,
}

impl Server {
    /// With its files in `dir`.
    pub fn start<const N: usize>(dir: &Path, listeners: [Listener; N]) -> Result<Self> {
        Self::start_with(dir, listeners, Settings::default())
    }

    /// The same with other settings than the default; its ports and listeners are not among them.
    pub fn start_with<const N: usize>(
        dir: &Path,
        listeners: [Listener; N],
        settings: Settings,
    ) -> Result<Self> {
        let [port] = ports::free()?;
        let authority = Authority::new(dir)?;
        let listeners = Listeners::new(&authority, listeners)?;
        let broker = Broker::start(dir, &Settings { port, tls: Some(listeners.clone()), ..settings })?;
        Ok(Self { broker, authority, listeners })
    }

    #[must_use]
    pub fn party(&self, library: Library, listener: Listener) -> Party {
        Party {
            library,
            name: format!("{}-{}", library.name(), listener.name().to_lowercase()),
            bootstrap: self.listeners.bootstrap(listener),
            security: Security::new(&self.authority, listener),
            // kcat has no such option
            arguments: if library == Library::Kcat { Vec::new() } else { STAY.map(str::to_owned).to_vec() },
        }
    }
}

/// As those in production, clients do not end with their last message.
const STAY: [&str; 2] = ["--stay-ms", "1000"];

/// A client library at a listener.
#[derive(Clone, Debug)]
pub struct Party {
    library: Library,
    /// The beginning of its services' names.
    pub name: String,
    bootstrap: String,
    security: Security,
    arguments: Vec<String>,
}

impl Party {
    #[must_use]
    pub fn with_sasl(self, mechanism: Mechanism) -> Self {
        Self { security: self.security.with_sasl(mechanism), ..self }
    }

    #[must_use]
    pub fn with_key_log(self, file: &Path) -> Self {
        Self { security: self.security.with_key_log(file), ..self }
    }

    /// Further arguments of its program.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|one| (*one).to_owned()));
        self
    }

    /// By way of a proxy.
    #[must_use]
    pub fn by(self, proxy: &str) -> Self {
        Self { bootstrap: proxy.to_owned(), ..self }
    }

    /// Two of the same library at the same listener need different names.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Starts a producer, `NAME-out`; `change` says what it does.
    pub fn produce(
        &self,
        dir: &Path,
        topic: &str,
        change: impl for<'a> FnOnce(Produce<'a>) -> Produce<'a>,
    ) -> Result<Client> {
        let service = format!("{}-out", self.name);
        let what = change(Produce::new(self.library, &self.bootstrap, topic, &service));
        self.started(|extra| what.start_with(dir, extra))
    }

    /// Starts a consumer, `NAME-in`, which is also its group.
    pub fn consume(&self, dir: &Path, topics: &[&str], expect: usize) -> Result<Client> {
        let service = format!("{}-in", self.name);
        let (service, group) = (service.as_str(), service.as_str());
        let (library, bootstrap) = (self.library, self.bootstrap.as_str());
        let what = Consume { library, bootstrap, topics, service, group, expect };
        self.started(|extra| what.start_with(dir, extra))
    }

    fn started(&self, start: impl FnOnce(&[&str]) -> Result<Client>) -> Result<Client> {
        let arguments = self.security.arguments(self.library);
        let all: Vec<&str> = arguments.iter().chain(&self.arguments).map(String::as_str).collect();
        start(&all)
    }
}
