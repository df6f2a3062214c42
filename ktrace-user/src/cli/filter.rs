//! Which spans are kept: patterns for topic, group and service, and sampling by trace id. Pure.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use crate::hop::{Hop, shown};

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

    /// A span without a group (a producer has none) is not among those that a pattern asks for, and not among those that one
    /// leaves out.
    #[must_use]
    pub fn keeps(&self, hop: &Hop) -> bool {
        self.topic.keep(|| Some(Arc::clone(&shown(&hop.topic).name)))
            && self.group.keep(|| hop.group())
            && self.service.keep(|| Some(hop.parties.resource.service_name()))
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

    /// `name` is asked for only where there are patterns.
    fn keep<N: AsRef<str>>(&self, name: impl FnOnce() -> Option<N>) -> bool {
        if self.only.is_empty() && self.not.is_empty() {
            return true;
        }
        let name = name();
        let name = name.as_ref().map(AsRef::as_ref);
        let matches =
            |list: &[GlobMatcher]| name.is_some_and(|name: &str| list.iter().any(|glob| glob.is_match(name)));
        (self.only.is_empty() || matches(&self.only)) && !matches(&self.not)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Resource, Value};
    use crate::hop::groups::Reader;
    use crate::hop::topics::Topics;
    use crate::hop::{Parties, Topic, samples};

    fn hop(topic: &str, group: Option<&str>, service: &str) -> Hop {
        let hop = if group.is_some() { samples::delivered() } else { samples::sent() };
        let service = Value::from(service.to_owned());
        let parties = Parties {
            reader: group.map_or(Reader::Unknown, |group| Reader::Group(group.into())),
            resource: Arc::new(Resource::new(vec![("service.name".into(), service)])),
            ..(*hop.parties).clone()
        };
        Hop { parties: Arc::new(parties), topic: Topic::Named(Topics::default().named(topic)), ..hop }
    }

    fn filter(topic: &[&str], group: &[&str], service: &[&str]) -> Filter {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Filter::new(&own(topic), &own(group), &own(service)).unwrap()
    }

    #[test]
    fn patterns_let_in_and_leave_out() {
        let orders = hop("orders.eu", Some("billing"), "billing-api");
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
        let sent = hop("orders", None, "orders-api");
        assert!(!filter(&[], &["billing"], &[]).keeps(&sent) && filter(&[], &["!billing"], &[]).keeps(&sent));
        assert!(Filter::new(&["[".to_owned()], &[], &[]).is_err());
    }
}
