//! What a run has seen and lost, as told at its end: `--summary` and the last lines of `replay`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::export::printable;
use crate::losses::{Lossy, Reason, keep_lossiest};
use crate::worker::{Shared, Totals, Waits};

/// One JSON object; every count is 0 where nothing was seen, and a reason is there only where it occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub connections: u64,
    /// Of them, those that were not read, because their other end is shown, here or by another agent.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
    pub segments: u64,
    /// TCP payload that passed the sockets.
    pub bytes: u64,
    pub frames: u64,
    pub exchanges: u64,
    pub batches: u64,
    pub records: u64,
    /// Spans that filters and sampling have let through.
    pub spans: u64,
    /// Frames of raw SASL tokens, which are never kept.
    pub sasl_tokens: u64,
    /// Bytes that no program has read, as it had closed its end before they came.
    #[serde(skip_serializing_if = "is_zero")]
    pub unread_bytes: u64,
    /// Bytes at the ends of requests and responses that their schemas do not have, which clients and brokers pass over too.
    #[serde(skip_serializing_if = "is_zero")]
    pub surplus_bytes: u64,
    /// Packets of capture files whose bytes are in the file already: on another interface, before and after a translation of
    /// addresses, or sent again.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicate_packets: u64,
    /// TLS connections that were not read, by service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<String, u64>,
    /// Of them, those that were to be read, by service, and by reason and cipher: `tls_no_key chacha20`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tls_unread: BTreeMap<String, BTreeMap<String, u64>>,
    /// TLS connections that were read, by service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tls_read: BTreeMap<String, u64>,
    /// Records of TLS that were opened.
    #[serde(skip_serializing_if = "is_zero")]
    pub tls_records: u64,
    /// Connections that were given up as none of Kafka's, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_kafka: BTreeMap<&'static str, u64>,
    /// Messages that carry ktrace's own telemetry and were left out, by topic.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub own_telemetry: BTreeMap<String, u64>,
    /// What brokers refused, by operation and error: `Fetch TOPIC_AUTHORIZATION_FAILED`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// How long brokers made clients wait, by operation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub throttled: BTreeMap<&'static str, Waits>,
    /// What was not shown, or not all of it.
    pub lost: BTreeMap<Reason, u64>,
    /// Of `lost.link_type`, packets by their link type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub link_types: BTreeMap<String, u64>,
    /// The connections that lost most bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lossy: Vec<Lossy>,
    /// What was refused, as Kafka does not write it.
    pub malformed: BTreeMap<Reason, u64>,
    /// Of `malformed.context`, those of each format of trace context.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub malformed_contexts: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Adds what a worker has seen. What all workers have lost comes with [`Summary::add_shared`].
    pub fn add(&mut self, totals: &Totals) {
        self.connections += totals.connections;
        self.left_out += totals.left_out;
        self.segments += totals.segments;
        self.bytes += totals.bytes;
        self.frames += totals.frames;
        self.exchanges += totals.exchanges;
        self.batches += totals.batches;
        self.records += totals.records;
        self.sasl_tokens += totals.sasl_tokens;
        self.unread_bytes += totals.unread_bytes;
        self.surplus_bytes += totals.surplus_bytes;
        self.tls_records += totals.tls_records;
        for (services, more) in [(&mut self.tls, &totals.tls), (&mut self.tls_read, &totals.tls_read)] {
            for (service, count) in more {
                *services.entry(service.clone()).or_default() += count;
            }
        }
        for (service, reasons) in &totals.tls_unread {
            let of = self.tls_unread.entry(service.clone()).or_default();
            for (reason, count) in reasons {
                *of.entry(reason.clone()).or_default() += count;
            }
        }
        for (reason, count) in &totals.not_kafka {
            *self.not_kafka.entry(reason).or_default() += count;
        }
        keep_lossiest(&mut self.lossy, totals.lossy.iter().cloned());
        for (format, count) in &totals.malformed_contexts {
            *self.malformed_contexts.entry(format).or_default() += count;
        }
    }

    /// Adds what all workers have counted together: spans, losses, refusals, and how long clients had to wait.
    pub fn add_shared(&mut self, shared: &Shared) {
        self.spans += shared.spans();
        self.add_lost(shared.losses());
        for (reason, count) in shared.malformed().filter(|(_, count)| *count > 0) {
            *self.malformed.entry(reason).or_default() += count;
        }
        for (topic, count) in shared.own_telemetry() {
            *self.own_telemetry.entry(topic).or_default() += count;
        }
        for ((operation, error), count) in shared.refused() {
            *self.refused.entry(format!("{operation} {error}")).or_default() += count;
        }
        for (operation, waits) in shared.throttled() {
            let of = self.throttled.entry(operation).or_default();
            of.responses += waits.responses;
            of.ms += waits.ms;
        }
    }

    /// Adds losses by reason; a count of 0 leaves no trace.
    pub fn add_lost(&mut self, losses: impl IntoIterator<Item = (Reason, u64)>) {
        for (reason, count) in losses.into_iter().filter(|(_, count)| *count > 0) {
            *self.lost.entry(reason).or_default() += count;
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections, {} segments, {} bytes, {} frames, {} exchanges",
            self.connections, self.segments, self.bytes, self.frames, self.exchanges
        )?;
        write!(f, "{} batches, {} records, {} spans", self.batches, self.records, self.spans)?;
        if !self.tls.is_empty() {
            let services: Vec<_> = self
                .tls
                .iter()
                .map(|(service, count)| format!("{count} of {}", printable(service)))
                .collect();
            write!(f, "\nTLS connections, not read: {}", services.join(", "))?;
        }
        if !self.tls_read.is_empty() {
            let services: Vec<_> = self
                .tls_read
                .iter()
                .map(|(service, count)| format!("{count} of {}", printable(service)))
                .collect();
            write!(f, "\nTLS connections, read: {}; {} records", services.join(", "), self.tls_records)?;
        }
        if !self.link_types.is_empty() {
            let types: Vec<_> =
                self.link_types.iter().map(|(link, count)| format!("{count} of {link}")).collect();
            write!(f, "\npackets of link types that are not read: {}", types.join(", "))?;
        }
        let passed_over = [
            (self.surplus_bytes, "surplus_bytes"),
            (self.duplicate_packets, "duplicate_packets"),
            (self.unread_bytes, "unread_bytes"),
        ];
        let passed_over: Vec<_> = passed_over
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !passed_over.is_empty() {
            write!(f, "\nnot lost, passed over: {}", passed_over.join(", "))?;
        }
        if !self.own_telemetry.is_empty() {
            let topics: Vec<_> = self
                .own_telemetry
                .iter()
                .map(|(topic, count)| format!("{count} in {}", printable(topic)))
                .collect();
            write!(f, "\nktrace's own telemetry, left out: {}", topics.join(", "))?;
        }
        if !self.refused.is_empty() {
            let refused: Vec<_> =
                self.refused.iter().map(|(what, count)| format!("{count} {what}")).collect();
            write!(f, "\nrefused: {}", refused.join(", "))?;
        }
        if !self.throttled.is_empty() {
            let waits = |(operation, waits): (&&str, &Waits)| {
                format!("{} {operation} by {} ms in all", waits.responses, waits.ms)
            };
            write!(f, "\nthrottled: {}", self.throttled.iter().map(waits).collect::<Vec<_>>().join(", "))?;
        }
        list(f, "not Kafka", &self.not_kafka)?;
        list(f, "lost", &self.lost)?;
        list(f, "malformed", &self.malformed)?;
        list(f, "malformed contexts", &self.malformed_contexts)?;
        if [self.not_kafka.is_empty(), self.lost.is_empty(), self.malformed.is_empty()] != [true; 3] {
            write!(f, "\nktrace explain REASON says what each means, and what to do")?;
        }
        Ok(())
    }
}

/// A line of counts, if there are any.
fn list<K: fmt::Display>(f: &mut fmt::Formatter<'_>, what: &str, counts: &BTreeMap<K, u64>) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let counts: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    write!(f, "\n{what}: {}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_waits_are_told_where_there_are_any() {
        let summary = Summary {
            refused: [("Fetch TOPIC_AUTHORIZATION_FAILED".to_owned(), 3)].into(),
            throttled: [("Produce", Waits { responses: 2, ms: 250 })].into(),
            ..Summary::default()
        };
        let text = summary.to_string();
        assert!(text.ends_with(
            "\nrefused: 3 Fetch TOPIC_AUTHORIZATION_FAILED\nthrottled: 2 Produce by 250 ms in all"
        ));
        let json = serde_json::to_string(&summary).unwrap();
        assert!(json.contains(
            r#""refused":{"Fetch TOPIC_AUTHORIZATION_FAILED":3},"throttled":{"Produce":{"responses":2,"ms":250}}"#
        ));
    }

    #[test]
    fn text_and_json() {
        let mut summary = Summary { spans: 2, ..Summary::default() };
        summary.add(&Totals { records: 3, bytes: 900, connections: 1, ..Totals::default() });
        summary.add_lost([(Reason::Snaplen, 4), (Reason::IpFragment, 0)]);
        assert_eq!(
            summary.to_string(),
            "1 connections, 0 segments, 900 bytes, 0 frames, 0 exchanges\n0 batches, 3 records, 2 spans\nlost: 4 snaplen\n\
             ktrace explain REASON says what each means, and what to do"
        );
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            r#"{"connections":1,"segments":0,"bytes":900,"frames":0,"exchanges":0,"batches":0,"records":3,"spans":2,"sasl_tokens":0,"lost":{"snaplen":4},"malformed":{}}"#
        );
    }

    #[test]
    fn what_is_left_out_is_named_by_topic() {
        let own_telemetry = [("otlp_metrics".to_owned(), 1), ("otlp_spans".to_owned(), 42)].into();
        let summary = Summary { own_telemetry, ..Summary::default() };
        let text = summary.to_string();
        assert_eq!(
            text.lines().last(),
            Some("ktrace's own telemetry, left out: 1 in otlp_metrics, 42 in otlp_spans")
        );
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["own_telemetry"], serde_json::json!({"otlp_metrics": 1, "otlp_spans": 42}));
    }
}
