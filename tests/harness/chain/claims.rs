//! Holds inferred links against what the services logged.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{Case, SERVICES, WARM_UP, case};
use crate::check::Recall;
use crate::spans::{Link, Span};
use crate::truth::{Line, Place, Truth};

/// Links that say what made a process send a message, where no header does.
pub fn inferred(span: &Span) -> impl Iterator<Item = &Link> {
    span.links.iter().filter(|link| link.attributes.contains_key("ktrace.inferred"))
}

/// How many messages of a service in a case there were, and how many of them have a right link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub all: Recall,
    /// Behind the first [`WARM_UP`] of the service to the topic.
    pub settled: Recall,
}

/// What was claimed.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub shares: BTreeMap<(Case, &'static str), Share>,
    /// By case, and the first in words.
    pub wrong: BTreeMap<Option<Case>, usize>,
    pub cases: Vec<String>,
}

impl Claims {
    /// Compares. Own messages of a service count as its other ones do.
    #[must_use]
    pub fn check(truth: &Truth, spans: &[Span]) -> Self {
        let mut claims = Self::default();
        let by_id: HashMap<(&str, &str), &Span> =
            spans.iter().map(|span| ((span.trace_id.as_str(), span.span_id.as_str()), span)).collect();
        let mut sends: HashMap<Place, &Span> = HashMap::new();
        for span in spans {
            let place = span.place().filter(|_| span.operation() == "send");
            match place {
                Some(place) => drop(sends.insert(place, span)),
                None if inferred(span).next().is_some() => claims.add_wrong(span, "is no send"),
                None => {}
            }
        }
        let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
        for line in &truth.sent {
            let number = numbers.entry((&line.service, &line.topic)).or_default();
            *number += 1;
            let span = line.place().and_then(|place| sends.remove(&place));
            let is_claimed = span.is_some_and(|span| claims.judge(line, span, &by_id));
            let of = SERVICES[1..].iter().find(|service| **service == line.service);
            let (Some(case), Some(service)) = (case(&line.topic), of) else { continue };
            let share = claims.shares.entry((case, service)).or_default();
            count(&mut share.all, is_claimed);
            if *number > WARM_UP {
                count(&mut share.settled, is_claimed);
            }
        }
        for span in sends.into_values().filter(|span| inferred(span).next().is_some()) {
            claims.add_wrong(span, "is of a message that nobody logged");
        }
        claims
    }

    /// Whether it has a link, and a right one.
    fn judge(&mut self, line: &Line, span: &Span, by_id: &HashMap<(&str, &str), &Span>) -> bool {
        let mut links = inferred(span);
        let Some(link) = links.next() else { return false };
        let why = if links.next().is_some() {
            Some("has several inferred links".to_owned())
        } else if line.header("traceparent").is_some() {
            Some("has headers that name its trace".to_owned())
        } else {
            fault(line, span, by_id.get(&(&link.trace_id, &link.span_id)).copied())
        };
        if let Some(why) = &why {
            self.add_wrong(span, &format!("{why}; it was sent because of {:?}", line.because));
        }
        why.is_none()
    }

    fn add_wrong(&mut self, span: &Span, why: &str) {
        *self.wrong.entry(span.topic().and_then(case)).or_default() += 1;
        if self.cases.len() < 10 {
            self.cases.push(format!("{why}: {span:?}"));
        }
    }

    /// No link is wrong.
    #[must_use]
    pub fn are_true(&self) -> bool {
        self.wrong.is_empty()
    }

    /// How many links there are, wrong ones too.
    #[must_use]
    pub fn count(&self) -> usize {
        let right: usize = self.shares.values().map(|share| share.all.found).sum();
        right + self.wrong.values().sum::<usize>()
    }

    #[must_use]
    pub fn share(&self, case: Case, service: &'static str) -> Share {
        self.shares.get(&(case, service)).copied().unwrap_or_default()
    }
}

/// What is untrue of a link to this span.
fn fault(line: &Line, span: &Span, cause: Option<&Span>) -> Option<String> {
    let Some(cause) = cause else { return Some("links to a span that there is not".into()) };
    if cause.operation() != "poll" || cause.service() != span.service() {
        return Some(format!("links to no delivery to its own process: {cause:?}"));
    }
    let place = cause.place();
    let is_right = place.as_ref().is_some_and(|place| line.because.contains(place));
    (!is_right).then(|| format!("links to {place:?}"))
}

fn count(recall: &mut Recall, is_found: bool) {
    recall.expected += 1;
    recall.found += usize::from(is_found);
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((case, service), Share { all, settled }) in &self.shares {
            let wrong = self.wrong.get(&Some(*case)).copied().unwrap_or_default();
            writeln!(
                f,
                "  {:<10} {service:<8} {:>4} of {:<4} behind the first {WARM_UP} {:>4} of {:<4} wrong in the case {wrong}",
                case.name(),
                all.found,
                all.expected,
                settled.found,
                settled.expected
            )?;
        }
        self.cases.iter().try_for_each(|case| writeln!(f, "wrong: it {case}"))
    }
}
