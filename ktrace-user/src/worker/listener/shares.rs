//! Share groups: which messages their members have acquired, and what they acknowledge.

use std::ops::RangeInclusive;

use ktrace_kafka as kafka;
use ktrace_kafka::context::{SpanId, TraceId};
use ktrace_kafka::{Event, Head};

use super::Listener;
use crate::hop::acknowledge::{Acknowledgement, Acquired, Taken, runs};
use crate::hop::groups::Reader;
use crate::hop::progress::Open;
use crate::hop::{Hop, Kind, Passage, identity};
use crate::losses::Reason;
use crate::worker::deliveries::share_member;

/// Messages of share groups that a worker remembers until they are acknowledged; over the limit
/// those of a connection are forgotten.
const MAX_ACQUIRED_IN_ALL: usize = 256 << 10;

impl Listener<'_> {
    /// This member speaks: what another one has got on the connection is not its own.
    pub(super) fn acquires_as(&mut self, reader: &Reader) {
        if !self.state.acquired.is_of(reader) {
            self.forget_acquired(false);
            self.state.acquired = Acquired::of(reader.clone());
        }
    }

    /// A message that was delivered to a member, and is shown.
    pub(super) fn acquire(&mut self, topic: u128, partition: i32, Open { offset, trace_id, span_id }: Open) {
        self.acquires((topic, partition), offset, Some((trace_id, span_id)));
    }

    /// A message that was delivered to a member; `got` is what is shown of it. Not inlined: most
    /// messages are of no share group, and what is on the way of each has to stay small enough to
    /// be.
    #[inline(never)]
    pub(super) fn acquires(
        &mut self,
        (topic, partition): (u128, i32),
        offset: i64,
        got: Option<(TraceId, SpanId)>,
    ) {
        let acquired = &mut self.state.acquired;
        let before = acquired.len();
        let forgotten = acquired.add(topic, partition, offset, got);
        self.world.acquired = self.world.acquired.saturating_sub(before).saturating_add(acquired.len());
        self.world.losses.lose_n(Reason::AcquiredForgotten, forgotten as u64);
        if self.world.acquired > MAX_ACQUIRED_IN_ALL {
            self.forget_acquired(true);
        }
    }

    /// Its member speaks here no more, or, where that is a `loss`, room is needed.
    pub(in crate::worker) fn forget_acquired(&mut self, is_loss: bool) {
        let forgotten = self.state.acquired.len();
        self.world.acquired = self.world.acquired.saturating_sub(forgotten);
        self.state.acquired.clear();
        if is_loss {
            self.world.losses.lose_n(Reason::AcquiredForgotten, forgotten as u64);
        }
    }

    /// A member has acknowledged messages, or wanted to.
    pub(super) fn acknowledged(&mut self, head: &Head<'_>, event: &Event<'_>) {
        let Event::Acknowledged {
            group_id,
            member_id,
            topic: of,
            partition,
            first_offset,
            last_offset,
            types,
            error,
        } = *event
        else {
            return;
        };
        if self.has_found_other_end() {
            return;
        }
        let reader = share_member(Some(group_id), Some(member_id));
        let Some(response) = head.response.filter(|_| reader != Reader::Unknown) else { return };
        self.acquires_as(&reader);
        self.count_refused(head, error);
        let topic = self.world.topic(of);
        let parties = self.parties_of(&reader);
        for (offsets, of_run) in runs(first_offset..=last_offset, types) {
            let (first_offset, last_offset) = (*offsets.start(), *offsets.end());
            // One that was refused may come again.
            let forget = error == 0 && of_run.leaves_its_member();
            let Taken { shown, own } = self.acquired(of, partition, offsets, forget);
            let messages = i128::from(last_offset).saturating_sub(first_offset.into()).saturating_add(1);
            let messages = u64::try_from(messages).unwrap_or(0);
            if own > 0 && own == messages && self.world.settings.uncommitted.is_none() {
                self.world.losses.lose(Reason::OwnTelemetry);
                continue;
            }
            let place = identity::ack_hash(identity::AckPlace {
                group: group_id,
                partition,
                first_offset,
                last_offset,
                correlation_id: head.correlation_id,
                request_seq: head.request_seq,
            });
            let derived = shown.first().map_or_else(|| identity::ack_trace_id(place), |last| last.trace_id);
            if !self.world.keeps(derived) {
                continue;
            }
            let throttle_ms = self.state.throttle_ms;
            let of = Acknowledgement { of: of_run, messages, throttle_ms, shown, place };
            self.pass(Hop {
                parties: parties.clone(),
                topic: topic.clone(),
                passage: Passage {
                    error,
                    start_ns: head.request_start_ns,
                    end_ns: response.end_ns,
                    ..Passage::settling(Kind::Acknowledged(of.into()), partition, last_offset, derived)
                },
            });
        }
    }

    /// What of these offsets is known to be the member's.
    fn acquired(
        &mut self,
        topic: kafka::Topic<'_>,
        partition: i32,
        offsets: RangeInclusive<i64>,
        forget: bool,
    ) -> Taken {
        let kafka::Topic::Id(topic) = topic else { return Taken::default() };
        let before = self.state.acquired.len();
        let taken = self.state.acquired.take(topic, partition, offsets, forget);
        let gone = before.saturating_sub(self.state.acquired.len());
        self.world.acquired = self.world.acquired.saturating_sub(gone);
        taken
    }
}
