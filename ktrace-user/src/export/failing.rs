//! Requests that fail: standard error says when a series of failures begins and ends, the agent's
//! log has each.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::top;
use super::transport::{Next, Refusal};

/// The least time between two lines. A series of failures that begins sooner is reported when this
/// time is over, if it still lasts: a collector that comes and goes must not fill the log.
const PAUSE: Duration = Duration::from_secs(30);

/// The failures of one signal.
#[derive(Debug)]
pub(super) struct Failing {
    signal: &'static str,
    /// Where it goes.
    to: String,
    /// What happens to data that the collector refuses for now, as a line says it.
    meanwhile: &'static str,
    row: Option<Row>,
    /// When a line was printed last.
    said: Option<Instant>,
}

/// Failures since the last success.
#[derive(Debug)]
struct Row {
    since: Instant,
    why: String,
    failures: u64,
    /// How many were lost when the series began.
    lost_before: u64,
    said: bool,
    /// A line has said that the collector will never take them.
    said_for_good: bool,
}

impl Failing {
    pub fn new(signal: &'static str, to: String, meanwhile: &'static str) -> Self {
        Self { signal, to, meanwhile, row: None, said: None }
    }

    /// A request has failed; `lost` is the count so far. Returns the line to print, if one is due.
    #[must_use]
    pub fn refused(&mut self, refusal: &Refusal, lost: u64, now: Instant) -> Option<String> {
        let Self { signal, to, meanwhile, .. } = self;
        tracing::info!("OTLP export of {signal} to {to} has failed: {}", refusal.why);
        let row = self.row.get_or_insert_with(|| Row {
            since: now,
            why: String::new(),
            failures: 0,
            lost_before: lost,
            said: false,
            said_for_good: false,
        });
        row.failures += 1;
        row.why.clone_from(&refusal.why);
        let for_good = matches!(refusal.next, Next::GiveUp | Next::Smaller);
        let news = !row.said || (for_good && !row.said_for_good);
        let too_soon = self.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE);
        if !news || (too_soon && !row.said) {
            return None;
        }
        row.said = true;
        row.said_for_good |= for_good;
        self.said = Some(now);
        Some(match refusal.next {
            Next::Again(_) => format!("{signal} cannot be exported to {to}: {}; {meanwhile}", row.why),
            Next::Smaller | Next::GiveUp => format!("{to} refuses {signal}, which are lost: {}", row.why),
        })
    }

    /// A request has succeeded. Returns the line to print, if one is due.
    #[must_use]
    pub fn taken(&mut self, lost: u64, now: Instant) -> Option<String> {
        let row = self.row.take()?;
        let Self { signal, to, .. } = self;
        let lost = lost.saturating_sub(row.lost_before);
        let seconds = now.saturating_duration_since(row.since).as_secs();
        let mut line = format!("{signal} are exported to {to} again, after {seconds} s and ");
        // A String does not fail.
        let _ = match row.failures {
            1 => write!(line, "one failure"),
            failures => write!(line, "{failures} failures"),
        };
        if lost > 0 {
            let _ = write!(line, "; {lost} {signal} were lost");
        }
        tracing::info!("{line}");
        if !row.said {
            return None;
        }
        self.said = Some(now);
        Some(line)
    }

    /// Since when requests fail, if they do.
    pub fn since(&self) -> Option<Instant> {
        self.row.as_ref().map(|row| row.since)
    }

    /// Why the last request failed, if it did.
    pub fn why(&self) -> Option<&str> {
        self.row.as_ref().map(|row| &*row.why)
    }
}

/// Prints a line on standard error, unless a full screen is shown there.
pub(super) fn say(line: Option<String>) {
    if let Some(line) = line
        && !top::is_taken()
    {
        eprintln!("ktrace: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(why: &str) -> Refusal {
        Refusal::unanswered(why.to_owned())
    }

    #[test]
    fn a_row_is_said_at_its_ends_with_counts() {
        let mut failing = Failing::new("spans", "http://c".to_owned(), "they wait");
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(failing.taken(0, at(0)), None);
        let line = failing.refused(&again("away"), 0, at(1));
        assert_eq!(line.as_deref(), Some("spans cannot be exported to http://c: away; they wait"));
        assert_eq!(failing.refused(&again("still"), 3, at(2)), None);
        assert_eq!((failing.why(), failing.since()), (Some("still"), Some(at(1))));
        let line = failing.taken(3, at(91));
        assert_eq!(
            line.as_deref(),
            Some("spans are exported to http://c again, after 90 s and 2 failures; 3 spans were lost")
        );
        assert_eq!((failing.taken(3, at(92)), failing.why()), (None, None));
    }

    #[test]
    fn a_failure_that_flaps_is_reported_seldom_a_lasting_one_always() {
        let mut failing = Failing::new("spans", "http://c".to_owned(), "they wait");
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(failing.refused(&again("away"), 0, at(0)).is_some() && failing.taken(0, at(1)).is_some());
        assert!(failing.refused(&again("away"), 0, at(2)).is_none() && failing.taken(0, at(3)).is_none());
        assert!(failing.refused(&again("away"), 0, at(4)).is_none());
        assert!(failing.refused(&again("away"), 0, at(40)).is_some());
    }

    #[test]
    fn that_it_will_never_take_them_is_said_even_in_a_row() {
        let mut failing = Failing::new("spans", "http://c".to_owned(), "they wait");
        let never = Refusal { why: "UNAUTHENTICATED".to_owned(), next: Next::GiveUp, answered: true };
        let now = Instant::now();
        assert!(failing.refused(&again("away"), 0, now).is_some());
        let line = failing.refused(&never, 0, now);
        assert_eq!(line.as_deref(), Some("http://c refuses spans, which are lost: UNAUTHENTICATED"));
        assert_eq!(failing.refused(&never, 7, now), None);
    }
}
