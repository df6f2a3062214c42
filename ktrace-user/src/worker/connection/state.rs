//! What is remembered of a connection from one exchange to the next. Each field is a type of its
//! own, whose invariants its file keeps.

use super::backlog::Begun;
use super::client::ClientState;
use super::cursor::PartitionCursor;
use super::in_flight::InFlight;
use super::missed::Missed;
use super::transactions::Transactions;
use crate::hop::acknowledge::Acquired;
use crate::hop::own::Watched;
use crate::hop::refusal::Refusals;
use crate::hop::transactions::Producer;
use crate::seen::{Ends, Side};
use crate::worker::stage::awaiting_group::FirstMessages;

/// What one of a connection's partitions takes, and one message that a share group's member holds.
pub(in crate::worker) const PARTITION_BYTES: usize = 64;
const ACQUIRED_BYTES: usize = 64;

/// Bounded by each of its fields; [`State::held_bytes`] weighs it.
pub(in crate::worker) struct State {
    pub client: ClientState,
    /// Where the current records stand.
    pub cursor: Option<PartitionCursor>,
    /// What it has brought to a share group's member.
    pub acquired: Acquired,
    pub transactions: Transactions,
    /// Whether the first messages of its client wait for their group.
    pub first_messages: FirstMessages,
    /// How its client began to read partitions.
    pub begun: Begun,
    /// What the broker refused it.
    pub refusals: Refusals,
    /// How long the current exchange makes the client wait, in milliseconds.
    pub throttle_ms: u32,
    pub in_flight: InFlight,
    pub missed: Missed,
    pub telemetry: Telemetry,
}

/// How values are searched for ktrace's own telemetry.
#[derive(Default)]
pub(in crate::worker) struct Telemetry {
    /// Records that pass before the next value is looked at, in topics where nothing speaks for
    /// telemetry.
    pub skip: u32,
    /// What is known of telemetry in topics whose names are not known yet.
    pub unnamed: Watched,
}

impl State {
    pub fn new(ends: Ends, side: Side) -> Self {
        Self {
            client: ClientState::new(ends, side),
            cursor: None,
            acquired: Acquired::default(),
            transactions: Transactions::default(),
            first_messages: FirstMessages::default(),
            begun: Begun::default(),
            refusals: Refusals::default(),
            throttle_ms: 0,
            in_flight: InFlight::default(),
            missed: Missed::default(),
            telemetry: Telemetry::default(),
        }
    }

    /// An exchange of this client id begins.
    pub fn begin_exchange(&mut self, client_id: Option<&str>) {
        self.throttle_ms = 0;
        self.transactions.begin_exchange();
        self.missed.exchange();
        self.client.begin_exchange(client_id);
    }

    /// What its lists take, about.
    pub fn held_bytes(&self) -> usize {
        let partitions = self.client.listed_len().saturating_add(self.transactions.partitions());
        let partitions = partitions.saturating_add(self.begun.len()).saturating_add(self.refusals.len());
        let of_partitions = partitions.saturating_mul(PARTITION_BYTES);
        let acquired = self.acquired.len().saturating_mul(ACQUIRED_BYTES);
        let producers = self.transactions.producers_len().saturating_mul(size_of::<Producer>());
        let in_flight = self.in_flight.held_bytes();
        of_partitions.saturating_add(producers).saturating_add(acquired).saturating_add(in_flight)
    }

    /// Forgets what only helps.
    pub fn shed(&mut self) {
        self.client.shed();
        self.transactions.shed();
        self.begun = Begun::default();
    }
}
