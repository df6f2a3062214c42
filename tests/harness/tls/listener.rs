//! The listeners of a broker that speak TLS, each on a port of its own beside the plaintext one.

use std::fmt::Write as _;

use anyhow::Result;

use super::authority::{Authority, STORE_PASSWORD};
use super::sasl::{PASSWORD, USER};
use crate::ports;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// TLS 1.3 and 1.2, as Kafka has it by default: with clients of these days, 1.3.
    Tls13,
    /// TLS 1.2 alone.
    Tls12,
    /// Who connects has to show a certificate.
    Mutual,
    /// SASL, with all of [`super::Mechanism`].
    Sasl,
    /// TLS 1.3 with `ChaCha20-Poly1305` alone.
    ChaCha20,
    /// TLS 1.2 with AES-128 in GCM alone; the brokers' own choice is AES-256.
    Aes128,
    /// TLS 1.2 with AES in CBC alone.
    Cbc,
}

impl Listener {
    pub const ALL: [Self; 7] =
        [Self::Tls13, Self::Tls12, Self::Mutual, Self::Sasl, Self::ChaCha20, Self::Aes128, Self::Cbc];

    /// Kafka's name of it, different for each.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls13 => "TLS13",
            Self::Tls12 => "TLS12",
            Self::Mutual => "MUTUAL",
            Self::Sasl => "SASL",
            Self::ChaCha20 => "CHACHA20",
            Self::Aes128 => "AES128",
            Self::Cbc => "CBC",
        }
    }

    const fn protocol(self) -> &'static str {
        if matches!(self, Self::Sasl) { "SASL_SSL" } else { "SSL" }
    }

    /// What only this one has, without the listener's prefix.
    fn properties(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Tls13 => Vec::new(),
            Self::Tls12 => vec![("ssl.enabled.protocols", "TLSv1.2".into())],
            Self::Mutual => vec![("ssl.client.auth", "required".into())],
            Self::Sasl => vec![
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".into()),
                (
                    "plain.sasl.jaas.config",
                    format!(
                        "org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"
                    ),
                ),
                ("scram-sha-256.sasl.jaas.config", SCRAM.into()),
                ("scram-sha-512.sasl.jaas.config", SCRAM.into()),
            ],
            Self::ChaCha20 => suites("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
            Self::Aes128 => suites("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
            // Go offers the second alone
            Self::Cbc => suites(
                "TLSv1.2",
                "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
            ),
        }
    }
}

/// Its users are in the broker's metadata, from the beginning ([`Listeners::users`]).
const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";

fn suites(version: &str, suites: &str) -> Vec<(&'static str, String)> {
    vec![("ssl.enabled.protocols", version.into()), ("ssl.cipher.suites", suites.into())]
}

/// Those of one broker.
#[derive(Clone, Debug)]
pub struct Listeners {
    authority: Authority,
    listeners: Vec<(Listener, u16)>,
}

impl Listeners {
    /// On free ports.
    pub fn new<const N: usize>(authority: &Authority, listeners: [Listener; N]) -> Result<Self> {
        let listeners = listeners.into_iter().zip(ports::free::<N>()?).collect();
        Ok(Self { authority: authority.clone(), listeners })
    }

    /// The port of one; 0, which no client reaches, where the broker has no such listener.
    #[must_use]
    pub fn port(&self, listener: Listener) -> u16 {
        self.listeners.iter().find(|(known, _)| *known == listener).map_or(0, |(_, port)| *port)
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn bootstrap(&self, listener: Listener) -> String {
        format!("127.0.0.1:{}", self.port(listener))
    }

    /// All ports, as the agent takes them.
    #[must_use]
    pub fn ports(&self) -> String {
        self.listeners.iter().map(|(_, port)| port.to_string()).collect::<Vec<_>>().join(",")
    }

    /// What is added to the broker's `listeners`, and to those that it advertises.
    pub(crate) fn addresses(&self) -> String {
        self.listeners.iter().fold(String::new(), |mut all, (listener, port)| {
            let _ = write!(all, ",{}://127.0.0.1:{port}", listener.name());
            all
        })
    }

    /// The lines that they need in the broker's properties.
    pub(crate) fn properties(&self) -> String {
        let mut text =
            String::from("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT");
        for (listener, _) in &self.listeners {
            let _ = write!(text, ",{}:{}", listener.name(), listener.protocol());
        }
        let (store, trust) = (self.authority.broker_store(), self.authority.certificate());
        let _ = write!(
            text,
            "
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password={STORE_PASSWORD}
ssl.key.password={STORE_PASSWORD}
ssl.truststore.type=PEM
ssl.truststore.location={}
",
            store.display(),
            trust.display()
        );
        for (listener, _) in &self.listeners {
            for (name, value) in listener.properties() {
                let _ = writeln!(text, "listener.name.{}.{name}={value}", listener.name().to_lowercase());
            }
        }
        text
    }

    /// Arguments that format the storage of a new broker, so that it knows the users of SCRAM.
    pub(crate) fn users(&self) -> Vec<String> {
        if self.port(Listener::Sasl) == 0 {
            return Vec::new();
        }
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .into_iter()
            .flat_map(|mechanism| {
                ["--add-scram".into(), format!("{mechanism}=[name={USER},password={PASSWORD}]")]
            })
            .collect()
    }
}
