//! One connection: its parser, what was found out about it, and when it ends.

pub(super) mod backlog;
pub(super) mod client;
pub(super) mod cursor;
pub(super) mod in_flight;
pub(super) mod missed;
pub(super) mod state;
pub(super) mod transactions;

use ktrace_kafka as kafka;
use ktrace_kafka::counters::Lost;
use ktrace_kafka::{Push, Speaks};

use self::state::State;
use super::shared::{self, Shared};
use super::totals::Totals;
use crate::losses::Lossy;
use crate::seen::Segment;

/// One connection, and what its hops share.
pub(super) struct Connection {
    pub kafka: kafka::Connection,
    pub state: State,
    /// What its state took when it was last weighed.
    pub state_bytes: usize,
    /// It is not read: its end is not asked for.
    pub left_out: bool,
    /// It was found to be TLS or something else, and capture was asked to stop copying it.
    pub given_up: bool,
    /// It is TLS, and a key has opened it.
    pub tls_is_read: bool,
    /// When it was last heard of.
    pub last_ns: u64,
    /// By its process, or by both sides' FIN.
    pub closed: bool,
    /// By an RST, unless data has followed.
    pub reset: bool,
    /// Of it, the direction in which it passed, if it says what its sender had.
    pub refused: Option<kafka::Direction>,
    /// Who has sent a FIN: (client, broker).
    pub fin: (bool, bool),
}

impl Connection {
    pub fn new(kafka: kafka::Connection, state: State, left_out: bool, now_ns: u64) -> Self {
        Self {
            kafka,
            state,
            state_bytes: 0,
            left_out,
            given_up: false,
            tls_is_read: false,
            last_ns: now_ns,
            closed: false,
            reset: false,
            refused: None,
            fin: (false, false),
        }
    }

    /// What it holds, in bytes, about.
    pub fn held_bytes(&self) -> usize {
        self.kafka.held_bytes().saturating_add(self.state_bytes)
    }

    /// Whether nothing more of it is wanted.
    pub fn is_over(&self) -> bool {
        self.left_out || matches!(self.kafka.speaks(), Speaks::Tls | Speaks::Other)
    }

    /// A segment passes: what its flags say of the connection's end. Returns whether it hangs up.
    pub fn end_by(&mut self, segment: &Segment<'_>) -> bool {
        let Push { direction, ack, fin, len, .. } = segment.push;
        if fin {
            match direction {
                kafka::Direction::ToBroker => self.fin.0 = true,
                kafka::Direction::ToClient => self.fin.1 = true,
            }
        }
        self.closed |= self.fin == (true, true);
        // Data after a reset says that the reset was none: TCP checks it after it was seen here.
        self.reset = segment.rst || (self.reset && len == 0);
        if segment.rst && ack.is_some() {
            self.refused = Some(direction);
        } else if len > 0 {
            self.refused = None;
        }
        segment.rst || (fin && self.closed)
    }

    /// What it has lost, if that is anything.
    pub fn lossy(&self) -> Option<Lossy> {
        let State { missed, client, .. } = &self.state;
        (missed.gaps > 0).then(|| Lossy {
            service: client.service(),
            client: client.ends.client.to_string(),
            broker: client.ends.broker.to_string(),
            gaps: missed.gaps,
            gap_bytes: missed.bytes,
        })
    }

    /// Counts it, if it was found not to be Kafka's, by reason.
    pub fn count_not_kafka(&self, totals: &mut Totals, shared: &Shared) {
        if let Some(reason) = self.kafka.not_kafka() {
            let count = totals.not_kafka.entry(reason.name()).or_default();
            *count = count.saturating_add(1);
            shared.count_not_kafka(reason, self.state.client.ends);
        }
    }

    /// Counts it as one inside TLS that is not read.
    pub fn count_tls(&self, totals: &mut Totals, shared: &Shared) {
        let service = self.state.client.service();
        shared::count(&mut totals.tls, &service);
        let why = self.kafka.tls_unread().map(|unread| unread.to_string());
        if let Some(why) = &why {
            shared::count_why(&mut totals.tls_unread, &service, why);
        }
        shared.count_tls(&service, why.as_deref().unwrap_or(Lost::Tls.name()));
    }

    /// Does something to it, and keeps `held`, the sum of what all connections hold, right.
    pub fn weigh(&mut self, held: &mut usize, act: impl FnOnce(&mut kafka::Connection, &mut State)) {
        let before = self.held_bytes();
        act(&mut self.kafka, &mut self.state);
        self.state_bytes = self.state.held_bytes();
        *held = held.saturating_sub(before).saturating_add(self.held_bytes());
    }
}
