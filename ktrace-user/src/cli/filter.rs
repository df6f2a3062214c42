//! Which spans are kept: patterns for topic, group and service, and sampling by trace id. Pure.

use globset::{Glob, GlobMatcher};

use crate::export::Span;

/// Keeps a span or leaves it out.
#[derive(Clone, Debug)]
pub struct Filter {
    topic: Patterns,
    group: Patterns,
    service: Patterns,
}

#[derive(Clone, Debug)]
struct Patterns {
    only: Vec<GlobMatcher>,
    not: Vec<GlobMatcher>,
}

impl Filter {
    /// Patterns with a leading `!` leave out.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub fn new(topic: &[String], group: &[String], service: &[String]) -> Result<Self, globset::Error> {
        Ok(Self {
            topic: Patterns::new(topic)?,
            group: Patterns::new(group)?,
            service: Patterns::new(service)?,
        })
    }

    /// A span without a group (a producer has none) or without a topic is not among those that a pattern asks for, and not among
    /// those that one leaves out.
    #[must_use]
    pub fn keeps(&self, span: &Span) -> bool {
        self.topic.keep(attribute(span, "messaging.destination.name"))
            && self.group.keep(attribute(span, "messaging.consumer.group.name"))
            && self.service.keep(Some(span.resource.service_name()))
    }
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let (mut only, mut not) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let (list, pattern) = match pattern.strip_prefix('!') {
                Some(pattern) => (&mut not, pattern),
                None => (&mut only, pattern.as_str()),
            };
            list.push(Glob::new(pattern)?.compile_matcher());
        }
        Ok(Self { only, not })
    }

    fn keep(&self, name: Option<&str>) -> bool {
        let matches =
            |list: &[GlobMatcher]| name.is_some_and(|name| list.iter().any(|glob| glob.is_match(name)));
        (self.only.is_empty() || matches(&self.only)) && !matches(&self.not)
    }
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.iter().find(|(key, _)| *key == name)?.1.as_text()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ktrace_kafka::context::{SpanId, TraceId};

    use super::*;
    use crate::export::{Kind, Resource, Status, Value};

    fn trace(random: u64) -> TraceId {
        let id = (0xaaaa_bbbb_cccc_dddd_ee00_u128 << 48) | u128::from(random);
        TraceId::new(id.to_be_bytes()).unwrap()
    }

    fn span(topic: &str, group: Option<&str>, service: &str) -> Span {
        let mut attributes = vec![("messaging.destination.name", Value::Str(topic.into()))];
        attributes.extend(group.map(|group| ("messaging.consumer.group.name", Value::Str(group.into()))));
        Span {
            trace_id: trace(1),
            span_id: SpanId::new([1; 8]).unwrap(),
            parent: None,
            trace_state: None,
            links: vec![],
            name: "send".into(),
            kind: Kind::Client,
            start_ns: 0,
            end_ns: 0,
            status: Status::Unset,
            resource: Arc::new(Resource {
                attributes: vec![("service.name".into(), Value::Str(service.into()))],
            }),
            attributes,
        }
    }

    fn filter(topic: &[&str], group: &[&str], service: &[&str]) -> Filter {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Filter::new(&own(topic), &own(group), &own(service)).unwrap()
    }

    #[test]
    fn patterns_let_in_and_leave_out() {
        let orders = span("orders.eu", Some("billing"), "billing-api");
        for (filter, kept) in [
            (filter(&[], &[], &[]), true),
            (filter(&["orders.*"], &[], &[]), true),
            (filter(&["payments", "orders.*"], &[], &[]), true),
            (filter(&["payments"], &[], &[]), false),
            (filter(&["!__*"], &[], &[]), true),
            (filter(&["orders.*", "!*.eu"], &[], &[]), false),
            (filter(&[], &["bill?ng"], &["!billing-api"]), false),
            (filter(&[], &["bill?ng"], &["billing*"]), true),
        ] {
            assert_eq!(filter.keeps(&orders), kept, "{filter:?}");
        }
        let sent = span("orders", None, "orders-api");
        assert!(!filter(&[], &["billing"], &[]).keeps(&sent) && filter(&[], &["!billing"], &[]).keeps(&sent));
        assert!(Filter::new(&["[".to_owned()], &[], &[]).is_err());
    }
}
