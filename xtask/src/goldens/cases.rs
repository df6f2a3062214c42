//! What is recorded: not every combination, but every client with each broker, and each codec,
//! message format and feature at least once.

use harness::clients::Library::{self, Java, JavaOld, KafkaPython, Kafkajs, Kcat, Python, Sarama};

/// One capture.
pub struct Case {
    /// The broker's version, then what it is.
    pub name: &'static str,
    pub produce: &'static [Out],
    pub consume: &'static [In],
    /// Of the broker.
    pub properties: &'static str,
}

/// One producer.
#[derive(Clone, Copy)]
pub struct Out {
    pub library: Library,
    pub codec: &'static str,
    pub headers: &'static str,
    pub acks: &'static str,
    pub extra: &'static [&'static str],
}

/// One consumer.
#[derive(Clone, Copy)]
pub struct In {
    pub library: Library,
    /// How many of the messages that were sent it does not get.
    pub but: usize,
    pub extra: &'static [&'static str],
}

const fn case(name: &'static str, produce: &'static [Out], consume: &'static [In]) -> Case {
    Case { name, produce, consume, properties: "" }
}

/// With unusual headers, keys and values.
const fn edges(library: Library, codec: &'static str) -> Out {
    Out { library, codec, headers: "edges", acks: "all", extra: &["--edges", "true"] }
}

/// kcat gives all messages of a run the same headers, and all have a key.
const fn kcat(codec: &'static str, headers: &'static str, extra: &'static [&'static str]) -> Out {
    Out { library: Kcat, codec, headers, acks: "all", extra }
}

const fn by(library: Library) -> In {
    In { library, but: 0, extra: &[] }
}

const fn by_with(library: Library, extra: &'static [&'static str]) -> In {
    In { library, but: 0, extra }
}

/// Two transactions of four messages; the second is aborted.
const fn transactional(library: Library, codec: &'static str) -> Out {
    Out {
        extra: &["--edges", "true", "--transactional-id", "t", "--transaction", "4"],
        ..edges(library, codec)
    }
}

const fn read_committed(library: Library) -> In {
    In { library, but: 4, extra: &["--isolation-level", "read_committed"] }
}

/// librdkafka as of before API versions could be asked for: message sets of magic 0. It speaks no
/// magic 1 with a broker that knows more.
const MAGIC_0: [&str; 4] = ["-X", "api.version.request=false", "-X", "broker.version.fallback=0.9.0.1"];
/// The same for confluent-kafka.
const SET_MAGIC_0: [&str; 2] = ["--set", "api.version.request=false,broker.version.fallback=0.9.0.1"];

/// Go and Python alone as of Kafka 0.10: message sets of magic 1.
const MAGIC_1: [&str; 2] = ["--protocol", "0.10.2.0"];
const EDGES_MAGIC_1: [&str; 4] = ["--edges", "true", "--protocol", "0.10.2.0"];

/// Message sets know no headers and no idempotence.
const fn old_edges(library: Library, codec: &'static str, extra: &'static [&'static str]) -> Out {
    Out { library, codec, headers: "none", acks: "1", extra }
}

pub const CASES: &[Case] = &[
    case("4.3.0/java", &[edges(Java, "none")], &[by(Java)]),
    case("4.3.0/java-transactions", &[transactional(Java, "lz4")], &[read_committed(Java), by(Java)]),
    case(
        "4.3.0/java-consumer-protocol",
        &[edges(Java, "zstd")],
        &[by_with(Java, &["--group-protocol", "consumer"])],
    ),
    case("4.3.0/java-share-group", &[edges(Java, "gzip")], &[by_with(Java, &["--group-protocol", "share"])]),
    case("4.3.0/java-acks-0", &[Out { acks: "0", ..edges(Java, "snappy") }], &[by(Java)]),
    case("4.3.0/confluent", &[edges(Python, "zstd")], &[by(Python)]),
    case(
        "4.3.0/confluent-consumer-protocol",
        &[edges(Python, "lz4")],
        &[by_with(Python, &["--set", "group.protocol=consumer"])],
    ),
    case("4.3.0/kafka-python", &[edges(KafkaPython, "gzip")], &[by(KafkaPython)]),
    case("4.3.0/sarama", &[edges(Sarama, "snappy")], &[by(Sarama)]),
    case("4.3.0/kafkajs", &[edges(Kafkajs, "gzip")], &[by(Kafkajs)]),
    case("4.3.0/kcat", &[kcat("lz4", "b3-multi", &[])], &[by(Kcat)]),
    // one fetch with batches of many hands
    case(
        "4.3.0/mixed",
        &[
            edges(Java, "gzip"),
            edges(Python, "snappy"),
            edges(KafkaPython, "lz4"),
            edges(Sarama, "zstd"),
            edges(Kafkajs, "none"),
        ],
        &[by(Java), by(Python)],
    ),
    case("3.9.1/java", &[edges(JavaOld, "lz4")], &[by(JavaOld)]),
    case("3.9.1/java-transactions", &[transactional(JavaOld, "gzip")], &[read_committed(JavaOld)]),
    Case {
        properties: "log.message.timestamp.type=LogAppendTime",
        ..case("3.9.1/java-log-append-time", &[edges(JavaOld, "zstd")], &[by(JavaOld)])
    },
    case("3.9.1/confluent", &[edges(Python, "snappy")], &[by(Python)]),
    case("3.9.1/kafka-python", &[edges(KafkaPython, "zstd")], &[by(KafkaPython)]),
    case("3.9.1/sarama", &[edges(Sarama, "lz4")], &[by(Sarama)]),
    case("3.9.1/kafkajs", &[edges(Kafkajs, "snappy")], &[by(Kafkajs)]),
    case("3.9.1/kcat", &[kcat("gzip", "traceparent", &[])], &[by(Kcat)]),
    case(
        "3.9.1/kcat-magic-0",
        &[
            kcat("none", "none", &MAGIC_0),
            kcat("gzip", "none", &MAGIC_0),
            kcat("snappy", "none", &MAGIC_0),
            kcat("lz4", "none", &MAGIC_0),
        ],
        &[by_with(Kcat, &MAGIC_0)],
    ),
    case(
        "3.9.1/confluent-magic-0",
        &[old_edges(Python, "gzip", &["--edges", "true", SET_MAGIC_0[0], SET_MAGIC_0[1]])],
        &[by_with(Python, &SET_MAGIC_0)],
    ),
    case(
        "3.9.1/sarama-magic-0",
        &[old_edges(Sarama, "snappy", &["--edges", "true", "--protocol", "0.9.0.1"])],
        // sarama's group consumers begin with 0.10.2
        &[by_with(Sarama, &MAGIC_1)],
    ),
    case(
        "3.9.1/kafka-python-magic-1",
        &[
            old_edges(KafkaPython, "none", &EDGES_MAGIC_1),
            old_edges(KafkaPython, "snappy", &EDGES_MAGIC_1),
            old_edges(KafkaPython, "lz4", &EDGES_MAGIC_1),
        ],
        &[by_with(KafkaPython, &MAGIC_1)],
    ),
    case(
        "3.9.1/sarama-magic-1",
        &[
            old_edges(Sarama, "none", &EDGES_MAGIC_1),
            old_edges(Sarama, "gzip", &EDGES_MAGIC_1),
            old_edges(Sarama, "snappy", &EDGES_MAGIC_1),
            old_edges(Sarama, "lz4", &EDGES_MAGIC_1),
        ],
        &[by_with(Sarama, &MAGIC_1)],
    ),
];
