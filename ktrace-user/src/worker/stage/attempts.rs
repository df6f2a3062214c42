//! Failed attempts to send a message wait for another one: if it comes, that one alone is shown,
//! with how many there were.
//!
//! Nothing waits behind them: a broker may be away for long, and what others send meanwhile is not
//! to wait for it.

use super::pending::{Pending, is_over};
use super::{Admit, Next, Stage, When};
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::world::{Verdict, World};

/// Brokers are started anew in less, most often; and who looks for errors does not look for them
/// minutes later.
const PATIENCE_NS: u64 = 30_000_000_000;

/// How often they are looked through: there may be many, and news of them with every record.
const LOOK_NS: u64 = 50_000_000;

/// Attempts that wait at once; over the limit the oldest goes out as failed.
const MAX_ATTEMPTS: usize = 128 << 10;

/// Failed attempts that wait, in the order in which they came.
pub(in crate::worker) struct Attempts {
    pending: Pending<Hop>,
    /// When they were last looked through.
    looked_ns: u64,
    /// How many changes of what is known of attempts there were then.
    seen: u64,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { pending: Pending::new(Self::PATIENCE_NS, Self::BOUND), looked_ns: 0, seen: 0 }
    }
}

impl Attempts {
    fn look_through(&mut self, now_ns: Option<u64>, world: &mut World, next: &mut impl Next) {
        let is_due = now_ns.is_none_or(|now_ns| is_over(self.looked_ns, LOOK_NS, now_ns));
        if self.pending.len() == 0 || !is_due {
            return;
        }
        self.looked_ns = now_ns.unwrap_or(0);
        self.seen = world.shared.attempts.version();
        self.pending.sift(now_ns, |connection, mut hop, is_over| match world.judge(&mut hop, now_ns) {
            Verdict::Drop => None,
            Verdict::Go | Verdict::Wait if is_over => {
                hand_on(connection, hop, world, next);
                None
            }
            Verdict::Go | Verdict::Wait => Some(hop),
        });
    }
}

fn hand_on(connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
    world.note_unnamed(&hop);
    next.push(connection, hop, world);
}

impl Stage for Attempts {
    const NAME: &'static str = "attempts";
    const PATIENCE_NS: u64 = PATIENCE_NS;
    const BOUND: usize = MAX_ATTEMPTS;

    fn admit(&mut self, _connection: ConnectionId, hop: &mut Hop, world: &mut World) -> Admit {
        if !hop.may_be_sent_again() {
            return Admit::Pass;
        }
        // News are not looked for while nothing waits.
        if self.pending.len() == 0 {
            self.seen = world.shared.attempts.version();
        }
        let now_ns = Some(world.now_ns);
        if world.judge(hop, now_ns) == Verdict::Drop { Admit::Drop } else { Admit::Wait }
    }

    fn hold(&mut self, connection: ConnectionId, hop: Hop, world: &mut World, next: &mut impl Next) {
        self.pending.push(connection, hop.passage.end_ns, hop);
        while let Some((connection, hop)) = self.pending.pop_excess() {
            self.pending.count_early(1);
            hand_on(connection, hop, world, next);
        }
    }

    fn release(&mut self, when: When, world: &mut World, next: &mut impl Next) {
        match when {
            When::Due(_) | When::Amended(_) | When::Full | When::Ending => {}
            When::News(_) if self.seen == world.shared.attempts.version() => {}
            When::News(_) | When::Sweep(_) | When::Shed | When::End => {
                self.look_through(when.now_ns(), world, next);
            }
        }
    }

    fn len(&self) -> usize {
        self.pending.len()
    }

    fn take_early(&mut self) -> u64 {
        self.pending.take_early()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::stage::samples::{Out, failed, named, world};

    const ONE: ConnectionId = ConnectionId(1);

    #[derive(Default)]
    struct Waiting(Attempts, Out);

    impl Waiting {
        fn holds(&mut self, hop: Hop, world: &mut World) -> bool {
            self.1.holds(&mut self.0, ONE, hop, world)
        }

        fn released(&mut self, now_ns: u64, world: &mut World) -> Vec<(i64, bool)> {
            self.0.release(When::Sweep(now_ns), world, &mut self.1);
            self.1.take()
        }
    }

    #[test]
    fn no_hop_waits_behind_an_attempt() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        assert!(waiting.holds(failed(1), &mut world));
        assert!(!waiting.holds(named(2), &mut world));
        assert_eq!(waiting.released(PATIENCE_NS - 1, &mut world), []);
        assert_eq!(waiting.released(PATIENCE_NS - 1 + LOOK_NS, &mut world), [(1, true)]);
        assert_eq!(waiting.0.len(), 0);
    }

    #[test]
    fn an_attempt_that_is_followed_is_dropped() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        let hop = failed(1);
        let crate::hop::Kind::Produced { pending: Some(message), .. } = &hop.passage.kind else { panic!() };
        let message = **message;
        let place = crate::hop::attempts::Place::new("orders", 0);
        world.shared.attempts.failed(message, place, 0, 0);
        assert!(waiting.holds(hop, &mut world));
        world.shared.attempts.sent(message);
        assert_eq!(waiting.released(LOOK_NS, &mut world), []);
        assert_eq!(waiting.0.len(), 0);
    }

    #[test]
    fn no_attempt_waits_for_a_clock_that_was_set_back() {
        let from_ns = 3_600_000_000_000;
        for (back_ns, over) in
            [(2_000_000_000, vec![]), (PATIENCE_NS, vec![(1, true)]), (from_ns, vec![(1, true)])]
        {
            let (mut waiting, mut world) = (Waiting::default(), world(from_ns));
            let mut hop = failed(1);
            hop.passage.end_ns = from_ns;
            assert!(waiting.holds(hop, &mut world));
            assert_eq!(waiting.released(from_ns, &mut world), []);
            assert_eq!(waiting.released(from_ns - back_ns, &mut world), over, "{back_ns}");
        }
    }

    #[test]
    fn attempts_are_bounded_and_those_released_early_are_counted() {
        let (mut waiting, mut world) = (Waiting::default(), world(0));
        for offset in 0..=MAX_ATTEMPTS as i64 {
            assert!(waiting.holds(failed(offset), &mut world));
        }
        assert_eq!((waiting.1.take(), waiting.0.len()), (vec![(0, true)], MAX_ATTEMPTS));
        assert_eq!([waiting.0.take_early(), waiting.0.take_early()], [1, 0]);
    }
}
