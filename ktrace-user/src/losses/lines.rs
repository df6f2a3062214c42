//! The lines about losses while a run lasts: one when losing begins, and one when it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::table::Reason;

/// Losing has ended when nothing was lost for this long. Shorter, and a ring that overflows now and then would
/// be reported again and again; longer, and the line comes when the cause is out of sight.
const QUIET: Duration = Duration::from_secs(5);

/// Makes the lines. `now` is the time of any clock that is not set back.
#[derive(Debug, Default)]
pub struct LossLines {
    /// Counts before the current loss.
    before: BTreeMap<Reason, u64>,
    /// Counts at the last look.
    last: BTreeMap<Reason, u64>,
    /// When something was lost last, while losing goes on.
    rose: Option<Duration>,
    /// Reasons whose line has said where to read on: once for each is enough.
    explained: BTreeSet<Reason>,
}

impl LossLines {
    /// Looks at all counts so far, and returns the line that is due.
    pub fn look(&mut self, now: Duration, counts: impl IntoIterator<Item = (Reason, u64)>) -> Option<String> {
        let counts: BTreeMap<_, _> = counts.into_iter().collect();
        let before = std::mem::replace(&mut self.last, counts);
        if rises(&before, &self.last).next().is_some() {
            return match self.rose.replace(now) {
                Some(_) => None,
                None => {
                    let mut line = format!("losing data:{}", listed(rises(&before, &self.last)));
                    let new = rises(&before, &self.last).map(|(reason, _)| reason);
                    let new: Vec<_> = new.filter(|reason| self.explained.insert(*reason)).collect();
                    if !new.is_empty() {
                        line += "; what to do: ktrace explain";
                        new.iter().for_each(|reason| line.extend([" ", reason.name()]));
                    }
                    self.before = before;
                    Some(line)
                }
            };
        }
        let rose = self.rose?;
        if now.saturating_sub(rose) < QUIET {
            return None;
        }
        self.end()
    }

    /// The run ends, and with it the current loss.
    pub fn end(&mut self) -> Option<String> {
        self.rose.take()?;
        Some(format!("loss has ended, in all:{}", listed(rises(&self.before, &self.last))))
    }
}

fn rises<'a>(
    before: &'a BTreeMap<Reason, u64>,
    after: &'a BTreeMap<Reason, u64>,
) -> impl Iterator<Item = (Reason, u64)> + 'a {
    let rise = |(reason, count): (&Reason, &u64)| {
        let rise = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
        (rise > 0).then_some((*reason, rise))
    };
    after.iter().filter_map(rise)
}

fn listed(losses: impl Iterator<Item = (Reason, u64)>) -> String {
    losses.fold(String::new(), |mut text, (reason, count)| {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma} {count} {reason}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_the_beginning_and_one_at_the_end() {
        let mut lines = LossLines::default();
        let mut look = |s, ring, gap| {
            lines.look(Duration::from_secs(s), [(Reason::RingFull, ring), (Reason::GapBytes, gap)])
        };
        assert_eq!(look(0, 0, 0), None);
        let first = "losing data: 5 ring_full; what to do: ktrace explain ring_full";
        assert_eq!(look(1, 5, 0).unwrap(), first);
        assert_eq!(look(2, 9, 700), None);
        assert_eq!(look(6, 9, 700), None, "not quiet for long enough");
        assert_eq!(look(7, 9, 700).unwrap(), "loss has ended, in all: 700 gap_bytes, 9 ring_full");
        assert_eq!(look(20, 9, 700), None);
        let second = "losing data: 1 gap_bytes, 2 ring_full; what to do: ktrace explain gap_bytes";
        assert_eq!(look(21, 11, 701).unwrap(), second);
        assert_eq!(lines.end().unwrap(), "loss has ended, in all: 1 gap_bytes, 2 ring_full");
        assert_eq!(lines.end(), None);
    }
}
