//! The command line: `--name value` pairs, the same names as in the other clients.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::ClientConfig;

pub struct Options(HashMap<String, String>);

impl Options {
    pub fn new(arguments: impl Iterator<Item = String>) -> Self {
        let all: Vec<String> = arguments.collect();
        let pairs = all.as_chunks::<2>().0.iter();
        Self(pairs.map(|[name, value]| (name.trim_start_matches("--").into(), value.clone())).collect())
    }

    pub fn get<'a>(&'a self, name: &str, otherwise: &'a str) -> &'a str {
        self.0.get(name).map_or(otherwise, String::as_str)
    }

    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.0.get(name).map_or(otherwise, |value| value.parse().expect("a number"))
    }

    /// How long it stays connected when it is done.
    pub fn stay(&self) -> Duration {
        Duration::from_millis(self.number("stay-ms", 0))
    }

    /// What every client takes.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.get("bootstrap", ""))
            .set("client.id", self.get("client-id", ""));
        self.secure(&mut config);
        config
    }

    /// TLS where `--ca` names the certificate to trust, with the client's own one and its key in
    /// `--identity`, and SASL by `--sasl MECHANISM:USER:PASSWORD`.
    fn secure(&self, config: &mut ClientConfig) {
        let (authority, identity) = (self.get("ca", ""), self.get("identity", ""));
        if authority.is_empty() {
            return;
        }
        config.set("security.protocol", "ssl").set("ssl.ca.location", authority);
        if !identity.is_empty() {
            config.set("ssl.certificate.location", identity).set("ssl.key.location", identity);
        }
        let mut sasl = self.get("sasl", "").splitn(3, ':');
        if let (Some(mechanism), Some(user), Some(password)) = (sasl.next(), sasl.next(), sasl.next()) {
            config.set("security.protocol", "sasl_ssl").set("sasl.mechanism", mechanism);
            config.set("sasl.username", user).set("sasl.password", password);
        }
    }
}
