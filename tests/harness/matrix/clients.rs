//! The clients of the matrix, as its page names them.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::cell::Cell;
use crate::clients::Library;
use crate::tools;

/// Its rows.
pub const LIBRARIES: [Library; 12] = [
    Library::Java,
    Library::JavaAgent,
    Library::Python,
    Library::PythonInstrumented,
    Library::KafkaPython,
    Library::KafkaPythonInstrumented,
    Library::Sarama,
    Library::SaramaInstrumented,
    Library::Kafkajs,
    Library::KafkajsInstrumented,
    Library::Kcat,
    Library::Rdkafka,
];

/// Cells that a client cannot do, and why.
pub const NOT_OFFERED: &[(Cell, &str)] = &[];

/// Clients whose transactions can only be committed.
pub const NEVER_ABORT: &[Library] = &[Library::Kcat];

/// As on the page.
pub(super) const fn title(library: Library) -> &'static str {
    match library {
        Library::Java => "Java `kafka-clients`",
        Library::JavaAgent => "the same under the OpenTelemetry Java agent",
        Library::JavaOld => "Java `kafka-clients` of before 4.0",
        Library::Python => "`confluent-kafka` (Python)",
        Library::PythonInstrumented => "the same with `opentelemetry-instrumentation-confluent-kafka`",
        Library::KafkaPython => "`kafka-python`",
        Library::KafkaPythonInstrumented => "the same with `opentelemetry-instrumentation-kafka-python`",
        Library::Sarama => "sarama (Go)",
        Library::SaramaInstrumented => "the same with otelsarama",
        Library::Kafkajs => "kafkajs (Node)",
        Library::KafkajsInstrumented => "the same with `@opentelemetry/instrumentation-kafkajs`",
        Library::Kcat => "kcat",
        Library::Rdkafka => "rdkafka (Rust)",
        Library::Aiokafka => "`aiokafka`",
        Library::Rustls => "rustls with ring",
        Library::RustlsAwsLc => "rustls with aws-lc-rs",
    }
}

/// The version, of the instrumentation where it is the row's own, as pinned; kcat is the host's.
pub(super) fn version(library: Library) -> Result<String> {
    let python = include_str!("../../tools/python/requirements.txt");
    let node = include_str!("../../clients/node/package.json");
    let go = include_str!("../../clients/go/go.mod");
    let (text, before) = match library {
        Library::Java => return Ok(tools::KAFKA_VERSION.into()),
        Library::JavaOld => return Ok(tools::KAFKA_OLD_VERSION.into()),
        Library::Kcat => return kcat(),
        Library::JavaAgent => (
            include_str!("../../tools/javaagent/pom.xml"),
            "<artifactId>opentelemetry-javaagent</artifactId>\n      <version>",
        ),
        Library::Python => (python, "\nconfluent-kafka=="),
        Library::PythonInstrumented => (python, "opentelemetry-instrumentation-confluent-kafka=="),
        Library::KafkaPython => (python, "\nkafka-python=="),
        Library::KafkaPythonInstrumented => (python, "opentelemetry-instrumentation-kafka-python=="),
        Library::Sarama => (go, "github.com/IBM/sarama v"),
        Library::SaramaInstrumented => (go, "github.com/dnwe/otelsarama v0.0.0-"),
        Library::Kafkajs => (node, "\"kafkajs\": \""),
        Library::KafkajsInstrumented => (node, "\"@opentelemetry/instrumentation-kafkajs\": \""),
        Library::Rdkafka => (include_str!("../../clients/rust/Cargo.toml"), "rdkafka = { version = \"="),
        Library::Aiokafka => (python, "\naiokafka=="),
        Library::Rustls | Library::RustlsAwsLc => {
            (include_str!("../../clients/rustls/Cargo.toml"), "rustls = { version = \"=")
        }
    };
    word_after(text, before).with_context(|| format!("no version of {library:?}"))
}

/// `1.7.1, librdkafka 2.0.2`.
fn kcat() -> Result<String> {
    let said = Command::new("kcat").arg("-V").output().context("cannot run kcat")?.stdout;
    let said = String::from_utf8_lossy(&said);
    let word = |before| word_after(&said, before).with_context(|| format!("kcat said {said}"));
    Ok(format!("{}, librdkafka {}", word("\nVersion ")?, word("librdkafka ")?))
}

fn word_after(text: &str, before: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    Some(rest.chars().take_while(|c| word(*c)).collect())
}

#[cfg(test)]
mod tests {
    use super::{LIBRARIES, title, version};
    use crate::clients::Library;

    #[test]
    fn all_have_a_version_and_a_name_of_their_own() {
        for (number, library) in LIBRARIES.into_iter().enumerate() {
            assert!(LIBRARIES[..number].iter().all(|other| title(*other) != title(library)));
            if library != Library::Kcat {
                let version = version(library).unwrap_or_default();
                assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{library:?}: {version:?}");
            }
        }
    }
}
