//! Which hops the user asks to see: patterns of topics, groups, services, keys and traces, errors,
//! and slow ones.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ktrace_kafka::context::TraceId;

use super::{Admit, Stage};
use crate::hop::{Hop, Key, Kind, shown};
use crate::patterns::Patterns;
use crate::seen::ConnectionId;
use crate::worker::world::World;

/// What the user asks for; empty asks for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterOptions<'a> {
    pub topic: &'a [String],
    pub group: &'a [String],
    pub service: &'a [String],
    pub key: &'a [String],
    pub trace: &'a [TracePrefix],
    pub errors: bool,
    pub slower_than: Option<Duration>,
    /// Keys are shown, and not only looked at.
    pub keys: bool,
}

impl FilterOptions<'_> {
    /// Whether no hop is left out.
    #[must_use]
    pub fn asks_for_all(&self) -> bool {
        let patterns = [self.topic, self.group, self.service, self.key];
        patterns.iter().all(|patterns| patterns.is_empty())
            && self.trace.is_empty()
            && !self.errors
            && self.slower_than.is_none()
    }
}

/// Keeps a hop or leaves it out.
#[derive(Clone, Debug)]
pub struct Filter {
    topic: Patterns,
    group: Patterns,
    service: Patterns,
    key: Patterns,
    trace: Box<[TracePrefix]>,
    errors: bool,
    slower_than_ns: Option<u64>,
    keys: bool,
}

/// The first digits of a trace id, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePrefix {
    digits: u128,
    /// How many bits of a trace id stand behind them.
    behind: u32,
}

/// So many hex digits name a trace well enough.
const LEAST_DIGITS: usize = 8;

impl FromStr for TracePrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As text output marks derived ones.
        let digits = text.strip_prefix('~').unwrap_or(text);
        let behind = 32_usize.checked_sub(digits.len()).and_then(|missing| u32::try_from(missing * 4).ok());
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let may_be = is_hex && digits.len() >= LEAST_DIGITS;
        match (u128::from_str_radix(digits, 16), behind) {
            (Ok(digits), Some(behind)) if may_be => Ok(Self { digits, behind }),
            _ => Err("not a trace id, nor its first 8 hex digits or more".to_owned()),
        }
    }
}

impl TracePrefix {
    fn is_of(self, trace: TraceId) -> bool {
        u128::from_be_bytes(trace.to_bytes()) >> self.behind == self.digits
    }
}

impl Filter {
    /// Patterns with a leading `!` leave out.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub fn new(wanted: &FilterOptions<'_>) -> Result<Self, globset::Error> {
        Ok(Self {
            topic: Patterns::new(wanted.topic)?,
            group: Patterns::new(wanted.group)?,
            service: Patterns::new(wanted.service)?,
            key: Patterns::new(wanted.key)?,
            trace: wanted.trace.into(),
            errors: wanted.errors,
            slower_than_ns: wanted.slower_than.map(|least| least.as_nanos().try_into().unwrap_or(u64::MAX)),
            keys: wanted.keys,
        })
    }

    /// A span without a group (a producer has none) is not among those that a pattern asks for, and
    /// not among those that one leaves out. The same holds for keys.
    #[must_use]
    pub fn keeps(&self, hop: &Hop) -> bool {
        (!self.errors || hop.passage.has_failed())
            && self.is_slow(hop)
            && self.is_of_a_trace(hop)
            && self.topic.keep(|| Some(Arc::clone(&shown(&hop.topic).name)))
            && self.group.keep(|| hop.group())
            && self.service.keep(|| Some(hop.parties.resource.service_name()))
            && self.key.keep(|| hop.passage.key.as_ref().map(Key::text))
    }

    /// Whether it keeps a hop. It keeps its key only where keys are shown.
    pub fn trims(&self, hop: &mut Hop) -> bool {
        let is_kept = self.keeps(hop);
        if is_kept && !self.keys {
            hop.passage.key = None;
        }
        is_kept
    }

    fn is_slow(&self, hop: &Hop) -> bool {
        self.slower_than_ns.is_none_or(|least| {
            let passage = &hop.passage;
            match passage.kind {
                // How long its response took says nothing of it.
                Kind::Delivered { .. } => passage.late_ns().is_some_and(|late| late > least),
                _ => passage.took_ns() > least,
            }
        })
    }

    fn is_of_a_trace(&self, hop: &Hop) -> bool {
        let trace = hop.passage.trace_id();
        self.trace.is_empty() || self.trace.iter().any(|prefix| prefix.is_of(trace))
    }
}

/// The stage. `None` keeps all as they are.
pub(in crate::worker) struct Filtering(pub Option<Arc<Filter>>);

impl Stage for Filtering {
    const NAME: &'static str = "filter";

    fn lets_all_pass(&self) -> bool {
        self.0.is_none()
    }

    fn admit(&mut self, _connection: ConnectionId, hop: &mut Hop, world: &mut World) -> Admit {
        match &self.0 {
            Some(filter) if !world.has_to_hear_of(hop) && !filter.trims(hop) => Admit::Drop,
            _ => Admit::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::groups::Reader;
    use crate::hop::topics::Topics;
    use crate::hop::{Parties, Topic, samples};
    use crate::span::{Resource, Value};

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
        let (topic, group, service) = (own(topic), own(group), own(service));
        let wanted =
            FilterOptions { topic: &topic, group: &group, service: &service, ..FilterOptions::default() };
        Filter::new(&wanted).unwrap()
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
        assert!(Filter::new(&FilterOptions { key: &["[".to_owned()], ..FilterOptions::default() }).is_err());
    }

    #[test]
    fn keys_are_looked_at_and_shown_only_where_asked_for() {
        let mut sent = samples::sent();
        sent.passage.key = Some(Key::new(b"order-7"));
        let passes = |pattern: &str, keys, hop: &Hop| {
            let key = [pattern.to_owned()];
            let filter = Filter::new(&FilterOptions { key: &key, keys, ..FilterOptions::default() }).unwrap();
            let mut hop = hop.clone();
            filter.trims(&mut hop).then_some(hop)
        };
        assert_eq!(passes("order-?", true, &sent), Some(sent.clone()));
        assert_eq!(passes("order-7", false, &sent).unwrap().passage.key, None);
        assert_eq!(passes("order", true, &sent), None);
        assert_eq!(passes("!order-7", true, &sent), None);
        sent.passage.key = Some(Key::new(b"order[7]"));
        assert!(passes("order[7]", true, &sent).is_some());
        let without = samples::sent();
        assert!(passes("*", true, &without).is_none() && passes("!order-7", true, &without).is_some());
        sent.passage.key = Some(Key::new(&[0, 7]));
        assert!(passes("0x00*", true, &sent).is_some());
    }

    #[test]
    fn errors_and_slow_ones_alone() {
        let (sent, delivered) = (samples::sent(), samples::delivered());
        let mut failed = sent.clone();
        failed.passage.error = 19;
        let errors = Filter::new(&FilterOptions { errors: true, ..FilterOptions::default() }).unwrap();
        assert!(errors.keeps(&failed) && !errors.keeps(&sent) && !errors.keeps(&delivered));
        let slower = |ms| {
            let slower_than = Some(Duration::from_millis(ms));
            Filter::new(&FilterOptions { slower_than, ..FilterOptions::default() }).unwrap()
        };
        // The producer waited 3.1 ms; the message, delivered as fast, was 34 ms old by then.
        assert!(slower(3).keeps(&sent) && !slower(4).keeps(&sent));
        assert!(slower(33).keeps(&delivered) && !slower(34).keeps(&delivered));
    }

    #[test]
    fn what_is_no_error_and_what_is_not_late_is_not_asked_for() {
        let errors = Filter::new(&FilterOptions { errors: true, ..FilterOptions::default() }).unwrap();
        let mut duplicate = samples::sent();
        duplicate.passage.error = 46;
        assert!(!errors.keeps(&duplicate), "it was written before");
        let slower_than = Some(Duration::from_millis(1));
        let slow = Filter::new(&FilterOptions { slower_than, ..FilterOptions::default() }).unwrap();
        let delivered = samples::delivered();
        assert!(slow.keeps(&delivered));
        // None, in seconds, in microseconds.
        for timestamp_ms in [-1, 1_767_355_201, 1_767_355_201_200_000] {
            let mut wrong = delivered.clone();
            wrong.passage.timestamp_ms = timestamp_ms;
            assert!(!slow.keeps(&wrong), "{timestamp_ms}");
        }
        let mut old = delivered;
        if let Kind::Delivered { is_catching_up, .. } = &mut old.passage.kind {
            *is_catching_up = true;
        }
        assert!(!slow.keeps(&old));
    }

    #[test]
    fn traces_are_named_by_their_first_digits() {
        let sent = samples::sent();
        let id = sent.passage.trace_id().to_string();
        let keeps = |text: &str| {
            let trace = [text.parse().unwrap()];
            Filter::new(&FilterOptions { trace: &trace, ..FilterOptions::default() }).unwrap().keeps(&sent)
        };
        assert!(keeps(&id) && keeps(&id[..8]) && keeps(&format!("~{}", &id[..16])));
        assert!(keeps(&id.to_uppercase()) && !keeps("ffffffff") && !keeps(&id[8..24]));
        for wrong in
            ["", "1234567", "~1234567", "1234567g", "+12345678", "12345678 ", &format!("{id}0"), "é2345678"]
        {
            assert!(wrong.parse::<TracePrefix>().is_err(), "{wrong}");
        }
    }
}
