//! Times from end to end, held against the spans of both ends.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::recall::Recall;
use crate::spans::Span;
use crate::truth::{Line, Place};

const NAME: &str = "ktrace.end_to_end_ms";

/// As precise as spans and attributes are written.
const PRECISION_MS: f64 = 0.01;

/// A producer's stamp may be so much later than the clock that is read in the kernel, by rounding
/// and by when it is read.
const STAMP_MS: f64 = 2.0;

/// Deliveries whose sending was seen, and how many of them have the end-to-end time.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// Those that came after their producer's response.
    pub late: Recall,
    /// Those that came before it.
    pub early: Recall,
    pub wrong: Vec<String>,
}

impl Delays {
    /// Looks at all of them.
    #[must_use]
    pub fn of(spans: &[Span]) -> Self {
        let mut sends: HashMap<Place, Vec<&Span>> = HashMap::new();
        for span in spans.iter().filter(|span| span.operation() == "send") {
            if let Some(place) = span.place() {
                sends.entry(place).or_default().push(span);
            }
        }
        let mut delays = Self::default();
        for poll in spans.iter().filter(|span| span.operation() == "poll") {
            // A topic that was created anew has other messages in the same places.
            if let Some([send]) = poll.place().and_then(|place| sends.get(&place)).map(Vec::as_slice) {
                delays.look(poll, send);
            }
        }
        delays
    }

    fn look(&mut self, poll: &Span, send: &Span) {
        let is_late = poll.end_unix_nanos > send.end_unix_nanos;
        let recall = if is_late { &mut self.late } else { &mut self.early };
        recall.expected += 1;
        let Some(told) = end_to_end_ms(poll) else { return };
        recall.found += 1;
        let is = poll.end_unix_nanos.saturating_sub(send.start_unix_nanos) as f64 / 1e6;
        if (told - is).abs() > PRECISION_MS {
            self.wrong.push(format!("{NAME} is {told}, not {is}: {poll:?}\n  of {send:?}"));
        }
    }

    /// All times that are shown are right; nearly all are shown, also of messages that came before
    /// the response.
    pub fn hold(&self) -> Result<()> {
        let nearly = |recall: Recall| recall.found * 100 >= recall.expected * 99;
        ensure!(
            self.wrong.is_empty() && self.late.expected > 0 && nearly(self.late) && nearly(self.early),
            "{self}"
        );
        Ok(())
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { late, early, wrong } = self;
        write!(
            f,
            "end to end: {}/{} of those after the response, {}/{} of those before it",
            late.found, late.expected, early.found, early.expected
        )?;
        wrong.iter().take(5).try_for_each(|case| write!(f, "\nwrong: {case}"))
    }
}

fn end_to_end_ms(poll: &Span) -> Option<f64> {
    poll.attributes.get(NAME).and_then(Value::as_f64)
}

/// What is untrue in a delivery's time, by the time that the producer itself gave the message: that
/// is older than the request, on one host. kafkajs's are of our making, and lie ahead.
pub fn fault(origin: &Line, poll: &Span) -> Option<String> {
    if origin.client.starts_with("kafkajs") {
        return None;
    }
    let created_ms = u64::try_from(origin.timestamp?).ok()?;
    let told = end_to_end_ms(poll)?;
    // Times of long ago are the test's own.
    let since_ms = (poll.end_unix_nanos as f64 / 1e6) - created_ms as f64;
    (since_ms < 3_600_000.0 && told > since_ms + STAMP_MS)
        .then(|| format!("{NAME} is {told}, but the message is {since_ms} ms old"))
}
