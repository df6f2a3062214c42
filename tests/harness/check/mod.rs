//! Holds the agent's spans against the clients' truth.
//!
//! Messages are matched by topic, partition and offset, deliveries also by who got them: by group
//! where the span names one, else by client id, else by service. A span is *wrong* when a message
//! matches and the span says something untrue, a *phantom* when no such message exists. Spans of
//! the same hop beyond the first are *repeated*; deliveries that no client logged are *unlogged*:
//! the library fetched ahead and its client ended.

mod context;
pub mod delays;
mod recall;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;

use self::delays::Delays;
pub use self::recall::Recall;
use crate::spans::{Kind, Span};
use crate::truth::{Line, Place, Truth};

/// What was compared and what did not hold.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub sent: Recall,
    pub received: Recall,
    pub missed: Vec<String>,
    pub wrong: Vec<String>,
    pub phantoms: Vec<String>,
    pub repeated: usize,
    pub unlogged: usize,
    pub delays: Delays,
}

impl Report {
    /// Every span is true; some may be missing.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.wrong.is_empty() && self.phantoms.is_empty()
    }

    /// Every span is true, none is missing, and there was something to find.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        self.is_true()
            && self.repeated == 0
            && self.sent.is_full()
            && self.received.is_full()
            && self.sent.expected > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, .. } = self;
        writeln!(
            f,
            "sent {}/{}, received {}/{},",
            sent.found, sent.expected, received.found, received.expected
        )?;
        writeln!(
            f,
            "wrong {}, phantom {}, repeated {}, unlogged {}",
            self.wrong.len(),
            self.phantoms.len(),
            self.repeated,
            self.unlogged
        )?;
        writeln!(f, "{}", self.delays)?;
        for (what, cases) in [("missed", &self.missed), ("wrong", &self.wrong), ("phantom", &self.phantoms)] {
            for case in cases.iter().take(5) {
                writeln!(f, "{what}: {case}")?;
            }
        }
        Ok(())
    }
}

/// Compares. `truth` is [resolved](Truth::resolve): sent messages without a place count as missed.
#[must_use]
pub fn check(truth: &Truth, spans: &[Span]) -> Report {
    let mut report = Report::default();
    let mut hops = sort(truth, spans, &mut report);
    identities(spans, &mut report);
    report.delays = Delays::of(spans);
    report.wrong.extend(report.delays.wrong.iter().cloned());

    let mut sends: HashMap<Place, &Span> = HashMap::new();
    for line in &truth.sent {
        report.sent.expected += 1;
        let found = line.place().and_then(|place| Some((hops.sends.remove(&place)?, place)));
        let Some((found, place)) = found else {
            report.missed.push(format!("send of {}", name(line)));
            continue;
        };
        report.sent.found += 1;
        report.repeated += found.len() - 1;
        judge(line, found[0], send_faults(line, found[0]), &mut report);
        sends.insert(place, found[0]);
    }

    let origins: HashMap<Place, &Line> =
        truth.sent.iter().filter_map(|line| Some((line.place()?, line))).collect();
    let mut logged: HashSet<(Place, &str)> = HashSet::new();
    for line in &truth.received {
        report.received.expected += 1;
        let Some(place) = line.place() else { continue };
        logged.insert((place.clone(), line.service.as_str()));
        let polls = hops.polls.entry(place.clone()).or_default();
        // two members of a group may have fetched it, and one of them have had no time to log it
        let own = polls.iter().position(|poll| is_of(poll, line) && poll.service() == line.service);
        let Some(at) = own.or_else(|| polls.iter().position(|poll| is_of(poll, line))) else {
            report.missed.push(format!("poll by {} of {}", line.service, name(line)));
            continue;
        };
        let poll = polls.remove(at);
        report.received.found += 1;
        // the sent message has the context, as the receiver's library may change headers in memory
        let origin = origins.get(&place).copied().unwrap_or(line);
        let mut faults = poll_faults(line, origin, poll, sends.get(&place).copied());
        if !truth.append_timed.contains(&line.topic) {
            faults.extend(delays::fault(origin, poll));
        }
        judge(line, poll, faults, &mut report);
    }
    for (place, polls) in &hops.polls {
        for poll in polls {
            if logged.contains(&(place.clone(), poll.service())) {
                report.repeated += 1;
            } else {
                report.unlogged += 1;
            }
        }
    }
    report
}

/// Spans of messages that exist, by place.
#[derive(Default)]
struct Hops<'a> {
    sends: HashMap<Place, Vec<&'a Span>>,
    polls: HashMap<Place, Vec<&'a Span>>,
}

fn sort<'a>(truth: &Truth, spans: &'a [Span], report: &mut Report) -> Hops<'a> {
    let known: HashSet<Place> = truth.sent.iter().chain(&truth.received).filter_map(Line::place).collect();
    let mut hops = Hops::default();
    for span in spans {
        let by_place = match span.operation() {
            "send" => &mut hops.sends,
            "poll" => &mut hops.polls,
            _ => continue,
        };
        match span.place() {
            None => report.wrong.push(format!("names no topic, partition and offset: {span:?}")),
            Some(place) if !known.contains(&place) => report.phantoms.push(format!("{span:?}")),
            Some(place) => by_place.entry(place).or_default().push(span),
        }
    }
    hops
}

/// Ids are well-formed and no two spans have the same; of one topic, messages without context have
/// a trace each.
fn identities(spans: &[Span], report: &mut Report) {
    let hex = |id: &str, length: usize| {
        id.len() == length
            && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            && id.bytes().any(|digit| digit != b'0')
    };
    let mut seen: HashMap<(&str, &str), &Span> = HashMap::new();
    let mut derived: HashMap<(&str, &str), &Span> = HashMap::new();
    for span in spans {
        if !hex(&span.trace_id, 32) || !hex(&span.span_id, 16) {
            report.wrong.push(format!("ids are not hexadecimal: {span:?}"));
        }
        if let Some(first) = seen.insert((&span.trace_id, &span.span_id), span) {
            report.wrong.push(format!("two spans with one id: {first:?}\n  and {span:?}"));
        }
        if span.is_derived()
            && span.operation() == "send"
            && let Some(first) = derived.insert((&span.trace_id, &span.name), span)
        {
            report.wrong.push(format!("two messages in one derived trace: {first:?}\n  and {span:?}"));
        }
    }
}

fn is_of(poll: &Span, line: &Line) -> bool {
    if let Some(group) = poll.text("messaging.consumer.group.name") {
        return line.group.as_deref() == Some(group);
    }
    match poll.text("messaging.client.id") {
        Some(client) => client == line.client_id,
        None => poll.service() == line.service,
    }
}

/// What is untrue in a `send` span, in words.
fn send_faults(line: &Line, span: &Span) -> Vec<String> {
    let mut faults = Faults::default();
    faults.same("name", span.name.as_str(), format!("send {}", line.topic).as_str());
    faults.same("service", span.service(), line.service.as_str());
    if let Some(context) = context::of(line) {
        faults.same("kind", span.kind, Kind::Client);
        faults.same("trace id", span.trace_id.as_str(), context.trace_id.as_str());
        faults.same("parent", span.parent_span_id.as_deref(), Some(context.span_id.as_str()));
        faults.same("derived", span.is_derived(), false);
    } else {
        faults.same("kind", span.kind, Kind::Producer);
        faults.same("parent", span.parent_span_id.as_deref(), None);
        faults.same("derived", span.is_derived(), true);
    }
    faults.times(span);
    faults.0
}

/// What is untrue in a `poll` span; `send` is the span of the same message's sending, if there is
/// one.
fn poll_faults(line: &Line, origin: &Line, span: &Span, send: Option<&Span>) -> Vec<String> {
    let mut faults = Faults::default();
    faults.same("name", span.name.as_str(), format!("poll {}", line.topic).as_str());
    faults.same("service", span.service(), line.service.as_str());
    faults.same("kind", span.kind, Kind::Consumer);
    let context = context::of(origin);
    faults.same("derived", span.is_derived(), context.is_none());
    if let Some(context) = &context {
        faults.same("trace id", span.trace_id.as_str(), context.trace_id.as_str());
        faults.same("parent", span.parent_span_id.as_deref(), Some(context.span_id.as_str()));
    }
    match send {
        Some(send) => {
            if context.is_none() {
                faults.same("trace id", span.trace_id.as_str(), send.trace_id.as_str());
                faults.same("parent", span.parent_span_id.as_deref(), Some(send.span_id.as_str()));
            }
            let linked =
                span.links.iter().any(|link| link.trace_id == send.trace_id && link.span_id == send.span_id);
            faults.same("link to the send span", linked, true);
        }
        None => faults.same("has a link", !span.links.is_empty(), true),
    }
    faults.times(span);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn same<T: PartialEq + fmt::Debug>(&mut self, what: &str, is: T, should_be: T) {
        if is != should_be {
            self.0.push(format!("{what} is {is:?}, not {should_be:?}"));
        }
    }

    fn times(&mut self, span: &Span) {
        self.same("ends before its start", span.end_unix_nanos < span.start_unix_nanos, false);
        self.same("has a time", span.start_unix_nanos > 0, true);
    }
}

fn judge(line: &Line, span: &Span, faults: Vec<String>, report: &mut Report) {
    if !faults.is_empty() {
        report.wrong.push(format!("{}: {span:?}\n  of {line:?}", faults.join("; ")));
    }
}

fn name(line: &Line) -> String {
    let number = |n: Option<i64>| n.map_or("?".into(), |n: i64| n.to_string());
    let Line { topic, partition, offset, client, .. } = line;
    format!(
        "{topic}[{}]@{} (key {:?}, {client})",
        number(partition.map(i64::from)),
        number(*offset),
        line.key
    )
}
