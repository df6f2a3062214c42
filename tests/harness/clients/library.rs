//! The client libraries.

/// Which client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    Java,
    /// Java with the OpenTelemetry Java agent, which puts a `traceparent` into every message.
    JavaAgent,
    /// Java of [`crate::tools::KAFKA_OLD_VERSION`].
    JavaOld,
    /// confluent-kafka.
    Python,
    /// The same with OpenTelemetry's instrumentation, which puts a `traceparent` into every
    /// message; so with the others.
    PythonInstrumented,
    KafkaPython,
    KafkaPythonInstrumented,
    Sarama,
    /// With otelsarama.
    SaramaInstrumented,
    Kafkajs,
    KafkajsInstrumented,
    Kcat,
    /// The Rust crate.
    Rdkafka,
    /// The one for asyncio.
    Aiokafka,
    /// Produce and Fetch requests over rustls with ring. It has no group and does not compress.
    Rustls,
    /// The same with aws-lc-rs.
    RustlsAwsLc,
}

impl Library {
    /// Short, and different for each.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::JavaAgent => "java-agent",
            Self::JavaOld => "java-old",
            Self::Python => "python",
            Self::PythonInstrumented => "python-otel",
            Self::KafkaPython => "kafka-python",
            Self::KafkaPythonInstrumented => "kafka-python-otel",
            Self::Sarama => "sarama",
            Self::SaramaInstrumented => "sarama-otel",
            Self::Kafkajs => "kafkajs",
            Self::KafkajsInstrumented => "kafkajs-otel",
            Self::Kcat => "kcat",
            Self::Rdkafka => "rdkafka",
            Self::Aiokafka => "aiokafka",
            Self::Rustls => "rustls",
            Self::RustlsAwsLc => "rustls-aws-lc",
        }
    }

    /// Whether its instrumentation puts a `traceparent` into every message.
    #[must_use]
    pub const fn is_instrumented(self) -> bool {
        matches!(
            self,
            Self::JavaAgent
                | Self::PythonInstrumented
                | Self::KafkaPythonInstrumented
                | Self::SaramaInstrumented
                | Self::KafkajsInstrumented
        )
    }
}
