//! One trace as a tree of lines.

use std::collections::HashMap;
use std::fmt::Write as _;

use anstyle::Style;
use ktrace_kafka::context::{SpanId, TraceId};

use super::super::escape::printable;
use super::super::text::{
    FAILED, FAINT, SERVICE, arrow, get, inferred, milliseconds, paint, target, text, time, unusual,
};
use crate::span::{Span, Value};

/// The deepest level. Deeper spans are drawn below the last one of this level: headers decide how
/// deep a tree is, and anyone may write headers.
const MAX_DEPTH: usize = 24;
/// Columns grow up to here.
const MAX_COLUMN: usize = 64;

/// A span's place in the tree.
struct Node {
    span: usize,
    depth: usize,
    /// What stands before its branch.
    lead: String,
    is_last: bool,
}

/// Appends the lines of a trace. `time` is when it began, as text.
pub fn draw(out: &mut String, id: TraceId, spans: &mut [Span<'_>], time: &str, colours: bool) {
    spans.sort_by_key(|span| (span.start_ns, span.end_ns));
    let begin_ns = spans.first().map_or(0, |span| span.start_ns);
    let end_ns = spans.iter().map(|span| span.end_ns).max().unwrap_or(begin_ns);
    // Commits and acknowledgements say nothing of the messages' headers, nor do traces that these
    // have caused.
    let is_of_it =
        |span: &&Span<'_>| span.trace_id == id && text(span, "messaging.operation.type") != Some("settle");
    let mut messages = spans.iter().filter(is_of_it).peekable();
    let derived = messages.peek().is_some()
        && messages.all(|span| matches!(get(span, "ktrace.derived"), Some(Value::Bool(true))));
    let (mark, plural) = (if derived { "~" } else { "" }, if spans.len() == 1 { "" } else { "s" });
    let count = spans.len();
    let all = shown(end_ns.saturating_sub(begin_ns));
    let head = paint(colours, Style::new().bold(), &format!("trace {mark}{id}"));
    // A String does not fail.
    let _ = writeln!(out, "{head}  {}  {count} span{plural}, {all}", paint(colours, FAINT, time));
    let lines: Vec<_> = nodes(spans).iter().filter_map(|node| Line::of(node, spans, begin_ns)).collect();
    let width = |of: fn(&Line) -> String| {
        lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0).min(MAX_COLUMN)
    };
    let widths = [
        width(|line| format!("{}{}", line.branch, line.service)),
        width(|line| line.what.clone()),
        width(|line| line.at.clone()),
        width(|line| line.took.clone()),
    ];
    for line in &lines {
        line.write(out, widths, colours);
    }
    out.push('\n');
}

fn shown(nanos: u64) -> String {
    // Precise enough: these are durations of a few digits.
    milliseconds(nanos as f64 / 1e6)
}

/// Every span once, parents before their children; what was caused by a delivery, as far as is
/// known, stands below it. Those whose parent was not seen are roots; where spans name each other
/// in a circle, its first is one, too.
fn nodes(spans: &[Span<'_>]) -> Vec<Node> {
    let mut by_id: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    for (at, span) in spans.iter().enumerate() {
        by_id.entry(span.span_id).or_insert(at);
    }
    let mut roots = Vec::new();
    let mut children: Vec<Vec<usize>> = spans.iter().map(|_| Vec::new()).collect();
    for (at, span) in spans.iter().enumerate() {
        let cause = || inferred(span).map(|link| link.span_id);
        match span.parent.or_else(cause).and_then(|parent| by_id.get(&parent)).filter(|parent| **parent != at)
        {
            Some(parent) => children[*parent].push(at),
            None => roots.push(at),
        }
    }
    let mut placed = vec![false; spans.len()];
    let mark = |placed: &mut Vec<bool>, from: usize| {
        let mut stack = vec![from];
        while let Some(at) = stack.pop() {
            if !std::mem::replace(&mut placed[at], true) {
                stack.extend(&children[at]);
            }
        }
    };
    roots.iter().for_each(|root| mark(&mut placed, *root));
    for at in 0..spans.len() {
        if !placed[at] {
            roots.push(at);
            mark(&mut placed, at);
        }
    }
    roots.sort_unstable();
    walk(&roots, &children)
}

fn walk(roots: &[usize], children: &[Vec<usize>]) -> Vec<Node> {
    let mut drawn = vec![false; children.len()];
    let mut nodes = Vec::with_capacity(children.len());
    let mut stack = Vec::new();
    let push = |stack: &mut Vec<Node>, of: &[usize], depth: usize, lead: &str| {
        let last = of.last().copied();
        let node =
            |span: &usize| Node { span: *span, depth, lead: lead.to_owned(), is_last: Some(*span) == last };
        stack.extend(of.iter().rev().map(node));
    };
    push(&mut stack, roots, 0, "");
    while let Some(node) = stack.pop() {
        if std::mem::replace(&mut drawn[node.span], true) {
            continue;
        }
        let deeper = node.depth + 1 < MAX_DEPTH;
        let lead = match (deeper, node.is_last) {
            (false, _) => node.lead.clone(),
            (true, true) => format!("{}   ", node.lead),
            (true, false) => format!("{}│  ", node.lead),
        };
        push(&mut stack, &children[node.span], node.depth + usize::from(deeper), &lead);
        nodes.push(node);
    }
    nodes
}

/// A span's line, in columns.
struct Line {
    branch: String,
    service: String,
    arrow: (&'static str, Style),
    what: String,
    at: String,
    took: String,
    more: Vec<String>,
    error: Option<String>,
}

impl Line {
    fn of(node: &Node, spans: &[Span<'_>], begin_ns: u64) -> Option<Self> {
        let span = spans.get(node.span)?;
        let operation = text(span, "messaging.operation.name").unwrap_or(span.name);
        let queue = time(span, "ktrace.queue_time_ms", "queue");
        let end_to_end = time(span, "ktrace.end_to_end_ms", "e2e");
        let named = |name, label: &str| text(span, name).map(|value| format!("{label}={}", printable(value)));
        let more = [queue, end_to_end, named("messaging.consumer.group.name", "group")];
        let key = named("messaging.kafka.message.key", "key");
        Some(Self {
            branch: format!("{}{}", node.lead, if node.is_last { "└─ " } else { "├─ " }),
            service: printable(span.resource.service_name()).into_owned(),
            arrow: arrow(operation),
            what: printable(&format!("{operation} {}", target(span))).into_owned(),
            at: format!("+{}", shown(span.start_ns.saturating_sub(begin_ns))),
            took: format!("took={}", shown(span.end_ns.saturating_sub(span.start_ns))),
            more: more.into_iter().chain(unusual(span)).chain([key]).flatten().collect(),
            error: text(span, "error.type").map(|error| printable(error).into_owned()),
        })
    }

    fn write(&self, out: &mut String, [first, what, at, took]: [usize; 4], colours: bool) {
        let pad = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.chars().count()));
        let (arrow, style) = self.arrow;
        let head = format!("{}{}", self.branch, self.service);
        let mut line = format!(
            "{}{}{} {} {}{} {}{} {}{}",
            paint(colours, FAINT, &self.branch),
            paint(colours, SERVICE, &self.service),
            pad(&head, first),
            paint(colours, style, arrow),
            self.what,
            pad(&self.what, what),
            pad(&self.at, at),
            self.at,
            self.took,
            pad(&self.took, took),
        );
        for word in &self.more {
            line.push(' ');
            line.push_str(word);
        }
        if let Some(error) = &self.error {
            line.push(' ');
            line.push_str(&paint(colours, FAILED, error));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;
    use crate::span::{INFERRED, Link};

    fn id(number: u8) -> SpanId {
        SpanId::new([number; 8]).unwrap()
    }

    fn span(of: Span<'static>, number: u8, parent: Option<u8>, after_ms: u64) -> Span<'static> {
        let (start_ns, end_ns) = (of.start_ns + after_ms * 1_000_000, of.end_ns + after_ms * 1_000_000);
        Span { span_id: id(number), parent: parent.map(id), start_ns, end_ns, ..of }
    }

    fn drawn(mut spans: Vec<Span<'static>>) -> Vec<String> {
        let mut out = String::new();
        draw(&mut out, spans[0].trace_id, &mut spans, "12:00:01.230", false);
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn golden_tree() {
        let lines = drawn(vec![
            span(samples::poll(), 3, Some(2), 9),
            span(samples::send(), 2, Some(1), 0),
            span(samples::poll(), 4, Some(2), 12),
            span(samples::send(), 5, Some(3), 31),
            span(samples::failed(), 6, Some(99), 1200),
        ]);
        assert_eq!(
            lines,
            [
                "trace 4bf92f3577b34da6a3ce929d0e0e4736  12:00:01.230  5 spans, 1203ms",
                "├─ orders-api       → send orders[2]@1042    +0ms took=3.1ms",
                "│  ├─ billing       ← poll orders[2]@1042    +9ms took=19ms  queue=12ms group=billing",
                "│  │  └─ orders-api → send orders[2]@1042   +31ms took=3.1ms",
                "│  └─ billing       ← poll orders[2]@1042   +12ms took=19ms  queue=12ms group=billing",
                "└─ orders-api       → send orders[2]      +1200ms took=3.1ms NOT_ENOUGH_REPLICAS",
                "",
            ]
        );
    }

    #[test]
    fn a_trace_of_messages_without_headers_is_marked_always() {
        let (mut poll, mut caused) = (samples::poll(), span(samples::send(), 5, None, 31));
        let (trace_id, attribute) = (poll.trace_id, Some((INFERRED, "key".into())));
        poll.attributes.push(("ktrace.derived", Value::Bool(true)));
        caused.trace_id = TraceId::new([0xbc; 16]).unwrap();
        caused.links = vec![Link { trace_id, span_id: id(3), attribute }];
        let mut commit = span(samples::poll(), 4, Some(3), 40);
        commit.attributes = vec![("messaging.operation.type", "settle".into())];
        let mut lines = drawn(vec![span(poll, 3, None, 0), caused, commit.clone()]);
        assert!(lines.swap_remove(0).starts_with("trace ~4bf92f3577b34da6"), "{lines:#?}");
        assert!(drawn(vec![commit]).swap_remove(0).starts_with("trace 4bf92f3577b34da6"));
    }

    #[test]
    fn what_a_delivery_caused_stands_below_it() {
        let mut caused = span(samples::send(), 5, None, 31);
        caused.trace_id = TraceId::new([0xbc; 16]).unwrap();
        let trace_id = samples::poll().trace_id;
        let attribute = Some((INFERRED, "key".into()));
        caused.links = vec![Link { trace_id, span_id: id(3), attribute }];
        let lines = drawn(vec![span(samples::poll(), 3, None, 0), caused]);
        assert_eq!(
            lines[1..3],
            [
                "└─ billing       ← poll orders[2]@1042  +0ms took=19ms  queue=12ms group=billing",
                "   └─ orders-api → send orders[2]@1042 +31ms took=3.1ms because-of=4bf92f3577b34da6",
            ]
        );
    }

    #[test]
    fn spans_that_name_each_other_or_themselves_are_all_shown_once() {
        let lines = drawn(vec![
            span(samples::send(), 1, Some(2), 0),
            span(samples::send(), 2, Some(1), 1),
            span(samples::send(), 3, Some(3), 2),
            span(samples::send(), 1, Some(4), 3),
            span(samples::send(), 4, Some(1), 4),
        ]);
        assert_eq!(lines.len(), 1 + 5 + 1, "{lines:#?}");
        assert!(lines[1].starts_with("├─ ") && lines.last().is_some_and(String::is_empty));
    }

    #[test]
    fn a_long_chain_is_drawn_and_stays_narrow() {
        let mut chain = Vec::new();
        for at in 0..50_000_u64 {
            let mut span = span(samples::send(), 1, None, at);
            span.span_id = SpanId::new((at + 1).to_be_bytes()).unwrap();
            span.parent = SpanId::new(at.to_be_bytes());
            chain.push(span);
        }
        let lines = drawn(chain);
        assert_eq!(lines.len(), 50_002);
        assert!(lines.iter().all(|line| line.chars().count() < 250));
    }

    #[test]
    fn no_escapes_from_the_network() {
        let mut hostile = samples::send();
        hostile.attributes.push(("messaging.kafka.message.key", "\u{1b}[2J".into()));
        hostile.resource = samples::resource("a\nb");
        let lines = drawn(vec![hostile]);
        assert!(lines.len() == 3 && !lines[1].contains('\u{1b}'), "{lines:?}");
    }
}
