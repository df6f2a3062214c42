//! Holds inferred links against what the services logged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::{Case, SERVICES, WARM_UP, case};
use crate::check::Recall;
use crate::spans::{Link, Span};
use crate::truth::{Line, Place, Truth};

/// Links that say what made a process send a message, where no header does.
pub fn inferred(span: &Span) -> impl Iterator<Item = &Link> {
    span.links.iter().filter(|link| link.attributes.contains_key("ktrace.inferred"))
}

/// How many messages a service has sent in a case, and how many of them have a right link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub all: Recall,
    /// Of those that are [settled](Claims::settled).
    pub settled: Recall,
    /// Links that are wrong.
    pub wrong: usize,
}

/// What was claimed.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub shares: BTreeMap<(Case, &'static str), Share>,
    /// Messages behind the first [`WARM_UP`] of a service to a topic, and behind those whose cause
    /// it got before it had sent anything: until then nothing can be claimed.
    pub settled: HashSet<Place>,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
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
                None if inferred(span).next().is_some() => claims.wrong.push(format!("no send: {span:?}")),
                None => {}
            }
        }
        let early = Early::new(spans);
        let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
        for line in &truth.sent {
            let number = numbers.entry((&line.service, &line.topic)).or_default();
            *number += usize::from(!early.is(line));
            let is_settled = *number > WARM_UP;
            claims.settled.extend(line.place().filter(|_| is_settled));
            let span = line.place().and_then(|place| sends.remove(&place));
            let judged = span.map_or(Ok(false), |span| judge(line, span, &by_id));
            let is_right = judged == Ok(true);
            let is_wrong = judged.is_err();
            claims.wrong.extend(judged.err());
            let of = SERVICES.iter().find(|service| **service == line.service);
            let (Some(case), Some(service)) = (case(&line.topic), of) else { continue };
            let share = claims.shares.entry((case, service)).or_default();
            count(&mut share.all, is_right);
            if is_settled {
                count(&mut share.settled, is_right);
            }
            share.wrong += usize::from(is_wrong);
        }
        for span in sends.into_values().filter(|span| inferred(span).next().is_some()) {
            claims.wrong.push(format!("of a message that nobody logged: {span:?}"));
        }
        claims
    }

    /// No link is wrong.
    #[must_use]
    pub fn are_true(&self) -> bool {
        self.wrong.is_empty()
    }

    /// How many links there are, wrong ones too.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shares.values().map(|share| share.all.found).sum::<usize>() + self.wrong.len()
    }

    #[must_use]
    pub fn share(&self, case: Case, service: &'static str) -> Share {
        self.shares.get(&(case, service)).copied().unwrap_or_default()
    }
}

/// What services got before they had sent anything.
struct Early<'a> {
    /// When each delivery was there, by message and who got it.
    delivered: HashMap<(Place, &'a str), u64>,
    /// When each service first sent something.
    began: HashMap<&'a str, u64>,
}

impl<'a> Early<'a> {
    fn new(spans: &'a [Span]) -> Self {
        let mut early = Self { delivered: HashMap::new(), began: HashMap::new() };
        for span in spans {
            if span.operation() == "send" {
                let began = early.began.entry(span.service()).or_insert(u64::MAX);
                *began = span.start_unix_nanos.min(*began);
            } else if let Some(place) = span.place().filter(|_| span.operation() == "poll") {
                early.delivered.insert((place, span.service()), span.end_unix_nanos);
            }
        }
        early
    }

    /// Whether a message that caused this one was there so early.
    fn is(&self, line: &Line) -> bool {
        let service = line.service.as_str();
        let began = self.began.get(service).copied().unwrap_or_default();
        line.because.iter().any(|cause| {
            self.delivered.get(&(cause.clone(), service)).is_some_and(|delivered| *delivered < began)
        })
    }
}

/// Whether it has a link; an error where that is wrong.
fn judge(line: &Line, span: &Span, by_id: &HashMap<(&str, &str), &Span>) -> Result<bool, String> {
    let links: Vec<&Link> = inferred(span).collect();
    let [link] = links[..] else {
        return if links.is_empty() { Ok(false) } else { Err(format!("several links: {span:?}")) };
    };
    let Some(cause) = by_id.get(&(link.trace_id.as_str(), link.span_id.as_str())) else {
        return Err(format!("a link to a span that there is not: {span:?}"));
    };
    if cause.operation() != "poll" || cause.service() != span.service() {
        return Err(format!("a link to no delivery to its own process: {span:?}"));
    }
    if line.header("traceparent").is_some() && cause.trace_id == span.trace_id {
        return Err(format!("a link that headers make needless: {span:?}"));
    }
    let place = cause.place();
    if place.as_ref().is_some_and(|place| line.because.contains(place)) {
        return Ok(true);
    }
    let (key, because) = (&line.key, &line.because);
    Err(format!("{:?} with key {key:?} was sent because of {because:?} and not {place:?}", line.place()))
}

fn count(recall: &mut Recall, is_found: bool) {
    recall.expected += 1;
    recall.found += usize::from(is_found);
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((case, service), Share { all, settled, wrong }) in &self.shares {
            if *service == SERVICES[0] {
                continue;
            }
            let ratio = |recall: &Recall| format!("{} of {}", recall.found, recall.expected);
            let (case, all, settled) = (case.name(), ratio(all), ratio(settled));
            writeln!(f, "  {case:<10} {service:<8} {all:>11}, {settled:>11} settled, {wrong} wrong")?;
        }
        self.wrong.iter().take(5).try_for_each(|wrong| writeln!(f, "wrong: {wrong}"))
    }
}
