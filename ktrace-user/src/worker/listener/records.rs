//! Records and the exchanges that bring them.

use ktrace_kafka as kafka;
use ktrace_kafka::protocol::api;
use ktrace_kafka::record::{Batch, Record};
use ktrace_kafka::{Head, Operation, Partition, Sink};

use super::Listener;
use super::attempts::Attempt;
use crate::hop::appends::Sent;
use crate::hop::{Context, Hop, Key, Kind, Other, Passage, identity};
use crate::seen::Side;
use crate::worker::both_ends::Place;
use crate::worker::stage::When;

fn other(context: &kafka::context::TraceContext<'_>) -> Option<Other> {
    Some(Other { format: context.format, trace_id: context.trace_id, span_id: context.span_id? })
}

impl Sink for Listener<'_> {
    fn sends(&mut self, head: &Head<'_>, topic: kafka::Topic<'_>, partition: i32) {
        self.asks(head, topic, partition);
    }

    fn exchange(&mut self, head: &Head<'_>) {
        if self.world.settings.both_ends
            && let Some(place) = Place::of(head, self.state.client.exchanges)
        {
            match self.state.client.side {
                Side::Client => self.world.shared.both_ends.note(place, head.end_ns()),
                Side::Broker => self.stages.both_ends.at(self.id, place, self.world, head.end_ns()),
            }
        }
        // On a new connection clients ask for versions before they fetch, or count from 0: this one
        // has begun before.
        let fetches = matches!(head.api_key, api::key::FETCH | api::key::SHARE_FETCH);
        if self.state.client.exchanges == 0 && fetches && head.correlation_id > 1 {
            self.misses(head.end_ns());
        }
        if head.api_key == api::key::PRODUCE {
            self.answers(head);
        }
        self.state.begin_exchange(head.client_id);
    }

    fn throttled(&mut self, head: &Head<'_>, throttle_ms: u32) {
        self.makes_wait(head, throttle_ms);
    }

    fn missed(&mut self, bytes: u64) {
        self.state.missed.gap(bytes);
        self.misses(self.world.now_ns);
        self.missed_commits();
        self.missed_ends();
    }

    fn event(&mut self, head: &Head<'_>, event: &kafka::Event<'_>) {
        self.refused(head, event);
        match *event {
            kafka::Event::Software { name, version } => self.state.client.software(name, version),
            kafka::Event::Cluster { id } => self.state.client.names_cluster(id, &self.world.shared),
            kafka::Event::Broker { host, port, .. } => self.names_broker(host, port),
            kafka::Event::Topic { id, name } => self.world.topics.learn(&self.world.shared.topics, id, name),
            kafka::Event::TransactionEnd { .. }
            | kafka::Event::Marker { .. }
            | kafka::Event::Producer { .. }
            | kafka::Event::TransactionPartition { .. }
            | kafka::Event::TransactionGroup { .. } => {
                self.of_a_transaction(head, event);
            }
            kafka::Event::Coordinator { host, port, error: 0, .. } => {
                self.names_broker(host, port);
                self.of_a_group(head, event);
            }
            _ => self.of_a_group(head, event),
        }
    }

    fn record(&mut self, head: &Head<'_>, partition: &Partition<'_>, batch: &Batch<'_>, record: &Record<'_>) {
        if self.has_found_other_end() {
            return;
        }
        if !self.state.cursor.as_ref().is_some_and(|at| at.is_at(head, partition)) {
            self.arrive(head, partition);
        }
        self.reads(partition, batch);
        let mut is_looked_at = false;
        if let Some(at) = &mut self.state.cursor {
            if let Some(part) = at.late.as_mut().and_then(|late| late.part())
                && self.stages.awaiting_group.push(self.id, part)
            {
                self.stages.release(When::Full, self.world);
            }
            at.advance(record.offset);
            is_looked_at = !at.watch.passes();
        }
        let is_own = is_looked_at && self.is_own(partition, record);
        let offset = (record.offset >= 0).then_some(record.offset);
        let derive = || match offset {
            Some(offset) => identity::derived_trace_id(
                partition.index,
                offset,
                record.timestamp_ms,
                record.key,
                record.value_len(),
            ),
            None => identity::lone_trace_id(
                partition.index,
                head.request_seq,
                head.correlation_id,
                record.timestamp_ms,
                record.offset_delta,
            ),
        };
        let is_sent = matches!(partition.operation, Operation::Produce { .. });
        let attempt = is_sent.then(|| self.attempt(head, (partition.index, partition.error), batch, record));
        let sent_ns = attempt.as_ref().map(|attempt| attempt.start_ns(head));
        if let (Some(sent_ns), Some(_)) = (sent_ns, offset) {
            self.appended(head, batch, record, sent_ns);
        }
        // Of a message that is not shown, nothing is found out but that.
        let (trace_id, derived) = match record.context.context {
            Some(context) => (context.trace_id, None),
            None => {
                let derived = derive();
                (derived, Some(derived))
            }
        };
        let sought = attempt.as_ref().and_then(|attempt| self.seeks(head, attempt, record));
        let (backlog, delay) = match &mut self.state.cursor {
            Some(at) => (at.backlog, at.delay.as_mut()),
            None => (None, None),
        };
        let is_catching_up =
            backlog.is_some_and(|of| of.has(record.offset, record.timestamp_ms, head.end_ns()));
        if is_own || !self.world.keeps_message(trace_id, head, (partition, is_catching_up), record, delay) {
            match sought {
                Some(sought) => self.caused(sought, None),
                None if !is_sent => self.read(head, record, || derived.unwrap_or_else(derive), None),
                None => {}
            }
            return;
        }
        let transaction = self.transaction(partition.operation, batch, partition.error);
        let response = head.response;
        let sent = match response {
            Some(response) if !is_sent => self.sent(record, response.end_ns),
            _ => Sent::Unknown,
        };
        // Whoever has sent it may have set its timestamp to any time.
        let is_newer = match sent {
            Sent::At(ns) => backlog.is_some_and(|of| !of.may_have(ns)),
            _ => false,
        };
        let Some(at) = &mut self.state.cursor else { return };
        let (kind, start_ns, end_ns) = match partition.operation {
            Operation::Produce { acks, .. } => {
                let Some(Attempt { before, pending }) = attempt else { return };
                let attempt = before.attempts.saturating_add(1);
                let start_ns = sent_ns.unwrap_or(head.request_start_ns);
                let throttle_ms = self.state.throttle_ms;
                (Kind::Produced { acks, attempt, pending, throttle_ms }, start_ns, head.end_ns())
            }
            Operation::Fetch { .. } | Operation::ShareFetch { .. } => {
                let Some(response) = response else { return };
                let lag = match partition.operation {
                    Operation::Fetch { high_watermark, .. } if high_watermark >= 0 => {
                        Some(high_watermark.saturating_sub(record.offset).saturating_sub(1).max(0))
                    }
                    _ => None,
                };
                let delivery =
                    identity::Delivery { correlation_id: head.correlation_id, response_seq: response.seq };
                let (times, is_behind) = at.times(partition.operation);
                (
                    Kind::Delivered {
                        lag,
                        delivery,
                        times,
                        is_behind,
                        is_uncommitted: false,
                        is_catching_up: is_catching_up && !is_newer,
                        sent,
                        throttle_ms: self.state.throttle_ms,
                    },
                    response.start_ns,
                    response.end_ns,
                )
            }
        };
        let (topic, parties) = (at.topic.clone(), at.parties.clone());
        let derived = derived.unwrap_or_else(derive);
        let hop = Hop {
            parties: parties.unwrap_or_else(|| self.parties()),
            topic,
            passage: Passage {
                kind,
                partition: partition.index,
                offset,
                timestamp_ms: record.timestamp_ms,
                key: if self.world.settings.keys { record.key.map(Key::new) } else { None },
                value_len: record.value_len(),
                context: record.context.context.map(|context| Context {
                    format: context.format,
                    trace_id: context.trace_id,
                    span_id: context.span_id,
                    state: context.state.map(Into::into),
                    others: record.context.others.iter().filter_map(other).collect(),
                }),
                transaction,
                cause: None,
                derived,
                error: partition.error,
                truncated: self.state.missed.show(),
                start_ns,
                end_ns,
            },
        };
        if !is_sent {
            self.read(head, record, || derived, Some(&hop));
        }
        if let Some(late) = self.state.cursor.as_mut().and_then(|at| at.late.as_mut()) {
            late.hops.push(hop);
            return;
        }
        self.open(partition.operation, &hop);
        match sought {
            Some(sought) => self.caused(sought, Some(hop)),
            None if self.stages.emits_at_once(self.id, &hop) => (self.stages.sink.emit)(hop),
            None => self.stages.pass(self.id, self.world, hop),
        }
    }
}
