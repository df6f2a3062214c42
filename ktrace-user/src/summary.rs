//! What a run has seen and lost, as told at its end: `--summary` and the last lines of `replay`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::export::printable;
use crate::worker::{Lossy, Totals, keep_lossiest};

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
    /// TLS connections, which are not read, by service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<String, u64>,
    pub lost: BTreeMap<&'static str, u64>,
    /// The connections that lost most bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lossy: Vec<Lossy>,
    pub malformed: BTreeMap<&'static str, u64>,
    /// Of `malformed.context`, those of each format of trace context.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub malformed_contexts: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Adds what a worker has seen.
    pub fn add(&mut self, totals: &Totals) {
        self.connections += totals.connections;
        self.left_out += totals.left_out;
        self.segments += totals.segments;
        self.bytes += totals.bytes;
        self.frames += totals.frames;
        self.exchanges += totals.exchanges;
        self.batches += totals.batches;
        self.records += totals.records;
        self.add_lost(totals.lost.iter().map(|(reason, count)| (*reason, *count)));
        self.sasl_tokens += totals.sasl_tokens;
        self.unread_bytes += totals.unread_bytes;
        for (service, count) in &totals.tls {
            *self.tls.entry(service.clone()).or_default() += count;
        }
        keep_lossiest(&mut self.lossy, totals.lossy.iter().cloned());
        for (reason, count) in &totals.malformed {
            *self.malformed.entry(reason).or_default() += count;
        }
        for (format, count) in &totals.malformed_contexts {
            *self.malformed_contexts.entry(format).or_default() += count;
        }
    }

    /// Adds losses by reason; a count of 0 leaves no trace.
    pub fn add_lost(&mut self, losses: impl IntoIterator<Item = (&'static str, u64)>) {
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
            write!(f, "\nTLS connections, not read yet: {}", services.join(", "))?;
        }
        for (what, reasons) in [
            ("lost", &self.lost),
            ("malformed", &self.malformed),
            ("malformed contexts", &self.malformed_contexts),
        ] {
            if !reasons.is_empty() {
                let reasons: Vec<_> =
                    reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                write!(f, "\n{what}: {}", reasons.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json() {
        let mut summary = Summary { spans: 2, ..Summary::default() };
        summary.add(&Totals { records: 3, bytes: 900, connections: 1, ..Totals::default() });
        summary.add_lost([("snaplen", 4), ("ip_fragment", 0)]);
        assert_eq!(
            summary.to_string(),
            "1 connections, 0 segments, 900 bytes, 0 frames, 0 exchanges\n0 batches, 3 records, 2 spans\nlost: 4 snaplen"
        );
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            r#"{"connections":1,"segments":0,"bytes":900,"frames":0,"exchanges":0,"batches":0,"records":3,"spans":2,"sasl_tokens":0,"lost":{"snaplen":4},"malformed":{}}"#
        );
    }
}
