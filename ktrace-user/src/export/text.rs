//! One line a message, for people.

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ktrace_kafka::context::TraceId;

use super::escape::printable;
use super::format::Format;
use crate::span::{INFERRED, Link, Span, Value};

/// Lines that are written at once: some 64 KiB, which stay in the processor's cache until then.
const LINES: usize = 512;

/// Colours, used on a terminal only.
pub(super) const SERVICE: Style = Style::new().bold();
pub(super) const SENT: Style = AnsiColor::Green.on_default();
pub(super) const RECEIVED: Style = AnsiColor::Cyan.on_default();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const FAILED: Style = AnsiColor::Red.on_default().bold();

/// The format `text`. Columns grow with what they hold, up to a bound, so that lines stay under
/// each other.
pub(super) struct Text {
    zone: TimeZone,
    /// The last second that was shown, and its text: most spans are of the same second as the one
    /// before.
    second: Option<(u64, String)>,
    colours: bool,
    service: Column,
    target: Column,
}

struct Column {
    width: usize,
    most: usize,
}

impl Column {
    /// Pads `text` and one more; a longer one widens the column from here on.
    fn pad(&mut self, text: &str) -> String {
        let length = text.chars().count();
        self.width = self.width.max(length.min(self.most));
        " ".repeat(self.width.saturating_sub(length).saturating_add(1))
    }
}

impl Text {
    /// Times in `zone`.
    pub fn new(zone: TimeZone, colours: bool) -> Self {
        let service = Column { width: 11, most: 32 };
        let target = Column { width: 16, most: 48 };
        Self { zone, second: None, colours, service, target }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        paint(self.colours, style, text)
    }

    fn line(&mut self, span: &Span<'_>) -> String {
        let operation = text(span, "messaging.operation.name").unwrap_or(span.name);
        let (arrow, style) = arrow(operation);
        let service = printable(span.resource.service_name());
        let target = target(span);
        let target = printable(&target);
        let derived = matches!(get(span, "ktrace.derived"), Some(Value::Bool(true)));
        let mark = if derived { "~" } else { "" };
        let time = self.time(span.end_ns);
        let mut line = format!(
            "{} {}{}{} {}{}{operation:<7} {}",
            self.paint(FAINT, &time),
            self.paint(SERVICE, &service),
            self.service.pad(&service),
            self.paint(style, arrow),
            target,
            self.target.pad(&target),
            self.paint(FAINT, &format!("trace={mark}{}", short(span.trace_id))),
        );
        for word in tail(span, operation) {
            line.push(' ');
            line.push_str(&printable(&word));
        }
        if let Some(error) = text(span, "error.type") {
            line.push(' ');
            line.push_str(&self.paint(FAILED, &printable(error)));
        }
        line
    }

    pub(super) fn time(&mut self, nanos: u64) -> String {
        let (second, milliseconds) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
        if self.second.as_ref().is_none_or(|(known, _)| *known != second) {
            let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone());
            self.second = Some((second, time.strftime("%H:%M:%S").to_string()));
        }
        let shown = self.second.as_ref().map_or("", |(_, shown)| shown);
        format!("{shown}.{milliseconds:03}")
    }
}

impl Format for Text {
    fn write(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>, out: &mut Vec<u8>) {
        for span in spans.take(LINES) {
            // A Vec does not fail.
            let _ = writeln!(out, "{}", self.line(&span));
        }
    }
}

/// How an operation is shown.
pub(super) fn arrow(operation: &str) -> (&'static str, Style) {
    match operation {
        "send" => ("→", SENT),
        "poll" => ("←", RECEIVED),
        _ => ("·", FAINT),
    }
}

pub(super) fn paint(colours: bool, style: Style, text: &str) -> String {
    if colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// `topic[partition]@offset`, as much of it as is known.
pub(super) fn target(span: &Span<'_>) -> String {
    // What is refused as a whole has no topic.
    let mut target = text(span, "messaging.destination.name").unwrap_or("-").to_owned();
    if let Some(partition) = text(span, "messaging.destination.partition.id") {
        let _ = write!(target, "[{partition}]");
    }
    if let Some(Value::Int(offset)) = get(span, "messaging.kafka.offset") {
        let _ = write!(target, "@{offset}");
    }
    target
}

/// What a line says of this operation.
fn tail(span: &Span<'_>, operation: &str) -> Vec<String> {
    let group = || text(span, "messaging.consumer.group.name").map(|group| format!("group={group}"));
    let nanos = span.end_ns.saturating_sub(span.start_ns);
    // Precise enough: these are durations of a few digits.
    let took = || Some(milliseconds(nanos as f64 / 1e6));
    let words = match operation {
        "poll" => [
            time(span, "ktrace.queue_time_ms", "queue"),
            time(span, "ktrace.end_to_end_ms", "e2e"),
            group(),
            match get(span, "ktrace.lag") {
                Some(Value::Int(lag)) => Some(format!("lag={lag}")),
                _ => None,
            },
        ],
        "send" => [took(), text(span, "ktrace.acks").map(|acks| format!("acks={acks}")), None, None],
        _ => [took(), group(), None, None],
    };
    let key = text(span, "messaging.kafka.message.key").map(|key| format!("key={key}"));
    words.into_iter().chain(unusual(span)).chain([key]).flatten().collect()
}

/// Attributes that few spans have.
pub(super) fn unusual(span: &Span<'_>) -> [Option<String>; 14] {
    let number = |name: &str, short: &str| match get(span, name) {
        Some(Value::Int(number)) => Some(format!("{short}={number}")),
        _ => None,
    };
    let flag = |name: &str, word: &str| get(span, name).map(|_| word.to_owned());
    [
        number("ktrace.attempts", "attempts"),
        number("ktrace.delivery.count", "delivery"),
        flag("ktrace.uncommitted", "uncommitted"),
        flag("ktrace.catching_up", "catching-up"),
        flag("ktrace.duplicate", "duplicate"),
        flag("ktrace.timestamp.implausible", "implausible-timestamp"),
        number("ktrace.refused.count", "refused"),
        number("ktrace.throttle_ms", "throttle").map(|throttle| throttle + "ms"),
        text(span, "ktrace.acknowledge.type").map(str::to_owned),
        number("ktrace.commit.messages", "messages"),
        number("ktrace.acknowledge.messages", "messages"),
        time(span, "ktrace.clock_skew_ms", "skew"),
        text(span, "ktrace.transaction.state").map(|state| format!("txn={state}")),
        inferred(span).map(|cause| format!("because-of={}", short(cause.trace_id))),
    ]
}

/// The link to the delivery that caused this message.
pub(super) fn inferred<'a>(span: &'a Span<'_>) -> Option<&'a Link<'a>> {
    let is_inferred = |link: &&Link<'_>| link.attribute.as_ref().is_some_and(|(name, _)| *name == INFERRED);
    span.links.iter().find(is_inferred)
}

/// A trace id as lines show it.
fn short(id: TraceId) -> String {
    let id = id.to_string();
    id.get(..16).unwrap_or(&id).to_owned()
}

/// A time in milliseconds that an attribute has.
pub(super) fn time(span: &Span<'_>, name: &str, short: &str) -> Option<String> {
    match get(span, name) {
        Some(Value::Double(time)) => Some(format!("{short}={}", milliseconds(*time))),
        _ => None,
    }
}

/// Two digits at least: `0.4ms`, `3.1ms`, `12ms`, `14.2s`, `60d`.
pub(super) fn milliseconds(value: f64) -> String {
    let one_digit = |value: f64, unit: &str| {
        let text = format!("{value:.1}");
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match value {
        _ if value.abs() < 10.0 => one_digit(value, "ms"),
        _ if value.abs() < 10_000.0 => format!("{value:.0}ms"),
        _ if value.abs() < DAYS_MS => one_digit(value / 1000.0, "s"),
        _ => one_digit(value / DAY_MS, "d"),
    }
}

const DAY_MS: f64 = 24.0 * 3600.0 * 1000.0;

/// Longer times are shown in days: as seconds they have too many digits.
const DAYS_MS: f64 = 2.0 * DAY_MS;

pub(super) fn get<'a>(span: &'a Span<'_>, name: &str) -> Option<&'a Value<'a>> {
    span.attributes.iter().find_map(|(key, value)| (*key == name).then_some(value))
}

pub(super) fn text<'a>(span: &'a Span<'_>, name: &str) -> Option<&'a str> {
    get(span, name)?.as_text()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn lines(spans: &[Span<'static>], colours: bool) -> Vec<String> {
        let mut out = Vec::new();
        Text::new(TimeZone::UTC, colours).write(&mut spans.iter().cloned(), &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn golden_lines() {
        let spans = [samples::send(), samples::poll(), samples::commit(), samples::failed()];
        assert_eq!(
            lines(&spans, false),
            [
                "12:00:01.234 orders-api  → orders[2]@1042   send    trace=4bf92f3577b34da6 3.1ms acks=all",
                "12:00:01.250 billing     ← orders[2]@1042   poll    trace=4bf92f3577b34da6 queue=12ms group=billing lag=0",
                "12:00:01.234 billing     · orders[2]@1042   commit  trace=4bf92f3577b34da6 3.1ms group=billing",
                "12:00:01.234 orders-api  → orders[2]        send    trace=~4bf92f3577b34da6 3.1ms acks=all NOT_ENOUGH_REPLICAS",
            ]
        );
    }

    #[test]
    fn what_is_unusual_is_told() {
        let mut span = samples::poll();
        span.attributes.push(("ktrace.delivery.count", Value::Int(2)));
        span.attributes.push(("ktrace.transaction.state", "aborted".into()));
        span.attributes.push(("ktrace.clock_skew_ms", Value::Double(3.25)));
        span.attributes.push(("ktrace.uncommitted", Value::Bool(true)));
        span.attributes.push(("ktrace.end_to_end_ms", Value::Double(10.9)));
        assert!(lines(std::slice::from_ref(&span), false)[0].contains(" queue=12ms e2e=11ms group=billing "));
        assert!(lines(&[span], false)[0].ends_with(" lag=0 delivery=2 uncommitted skew=3.2ms txn=aborted"));
        let mut span = samples::poll();
        span.attributes.push(("ktrace.catching_up", Value::Bool(true)));
        span.attributes.push(("ktrace.timestamp.implausible", Value::Bool(true)));
        span.attributes.push(("ktrace.refused.count", Value::Int(3)));
        span.attributes.push(("ktrace.throttle_ms", Value::Int(120)));
        let words = " lag=0 catching-up implausible-timestamp refused=3 throttle=120ms";
        assert!(lines(&[span], false)[0].ends_with(words));
        let mut span = samples::send();
        span.attributes.push(("ktrace.duplicate", Value::Bool(true)));
        assert!(lines(&[span], false)[0].ends_with(" acks=all duplicate"));
        let mut span = samples::commit();
        span.attributes.push(("ktrace.commit.messages", Value::Int(17)));
        assert!(lines(&[span], false)[0].ends_with(" group=billing messages=17"));
        let acknowledged = lines(&[samples::acknowledgement()], false);
        let line = "12:00:01.234 billing     · orders[2]@1042   ack     trace=4bf92f3577b34da6 3.1ms group=billing release messages=3";
        assert_eq!(acknowledged, [line]);
    }

    #[test]
    fn columns_grow_up_to_a_bound() {
        let named = |name: &str| Span { resource: samples::resource(name), ..samples::send() };
        let lines =
            lines(&[named("a-rather-long-name"), named("b"), named(&"c".repeat(50)), named("d")], false);
        let arrows: Vec<_> = lines.iter().map(|line| line.find('→').unwrap()).collect();
        assert_eq!(arrows, [13 + 19, 13 + 19, 13 + 51, 13 + 33]);
    }

    #[test]
    fn colours_only_where_asked_for_and_no_escapes_from_the_network() {
        assert!(
            lines(&[samples::failed()], true)[0].contains("\u{1b}[31m")
                || lines(&[samples::failed()], true)[0].contains("\u{1b}[1m\u{1b}[31m")
        );
        let mut hostile = samples::send();
        hostile.attributes = vec![("messaging.destination.name", "\u{1b}[2J\n".into())];
        let line = &lines(&[hostile], false)[0];
        assert!(!line.contains('\u{1b}') && line.contains("\u{fffd}[2J\u{fffd}"), "{line}");
    }

    #[test]
    fn durations() {
        let shown = [0.04, 0.4, 3.1, 9.0, 12.4, 950.0, 9999.0, 12_340.0].map(milliseconds);
        assert_eq!(shown, ["0ms", "0.4ms", "3.1ms", "9ms", "12ms", "950ms", "9999ms", "12.3s"]);
        assert_eq!(
            [47.0, 49.0, 60.5 * 24.0].map(|hours| milliseconds(hours * 3_600_000.0)),
            ["169200s", "2d", "60.5d"]
        );
    }
}
