//! The table of stages: the one place that names them all, and their order.

use super::filter::Filtering;
use super::follow::Following;
use super::sink::Sink;
use super::uncommitted::AwaitingCommit;
use super::{Admit, Next, Scope, Stage, When};
use crate::hop::Hop;
use crate::seen::ConnectionId;
use crate::worker::options::Selection;
use crate::worker::world::World;

/// A stage and those behind it.
struct Rest<'x, S, N>(&'x mut S, &'x mut N);

impl<S: Stage, N: Next> Next for Rest<'_, S, N> {
    fn push(&mut self, connection: ConnectionId, mut hop: Hop, world: &mut World) {
        match self.0.admit(connection, &mut hop, world) {
            Admit::Pass => self.1.push(connection, hop, world),
            Admit::Wait => self.0.hold(connection, hop, world, self.1),
            Admit::Drop => {}
        }
    }
}

/// The named stages as a [`Next`], with the sink behind them.
macro_rules! next {
    ($table:ident;) => { &mut $table.sink };
    ($table:ident; $stage:ident $($rest:ident)*) => {
        &mut Rest(&mut $table.$stage, next!($table; $($rest)*))
    };
}

/// Calls a method of each of the named stages, in order, with the stages behind it.
macro_rules! each {
    ($table:ident.$method:ident($($argument:ident),*);) => {};
    ($table:ident.$method:ident($($argument:ident),*); $stage:ident $($rest:ident)*) => {
        $table.$stage.$method($($argument,)* next!($table; $($rest)*));
        each!($table.$method($($argument),*); $($rest)*);
    };
}

/// Hands a hop to the first of the named stages. It stays where it is in memory until one takes it.
macro_rules! pass {
    ($table:ident, $connection:ident, $hop:ident, $world:ident;) => {
        ($table.sink.emit)($hop)
    };
    ($table:ident, $connection:ident, $hop:ident, $world:ident; $stage:ident $($rest:ident)*) => {
        match $table.$stage.admit($connection, &mut $hop, $world) {
            Admit::Pass => pass!($table, $connection, $hop, $world; $($rest)*),
            Admit::Wait => $table.$stage.hold($connection, $hop, $world, next!($table; $($rest)*)),
            Admit::Drop => {}
        }
    };
}

/// Has the one of the stages that is named so hold a hop.
macro_rules! hold_at {
    ($table:ident, $name:ident, $connection:ident, $hop:ident, $world:ident;) => {
        ($table.sink.emit)($hop)
    };
    (
        $table:ident, $name:ident, $connection:ident, $hop:ident, $world:ident;
        $stage:ident: $type:ty, $($rest:ident: $rest_type:ty,)*
    ) => {
        if $name == <$type as Stage>::NAME {
            $table.$stage.hold($connection, $hop, $world, next!($table; $($rest)*));
        } else {
            hold_at!($table, $name, $connection, $hop, $world; $($rest: $rest_type,)*);
        }
    };
}

macro_rules! stages {
    (
        $(#[$about_waiting:meta])* waiting { $($waiting:ident: $waiting_type:ty,)* }
        $(#[$about_deciding:meta])* deciding { $($deciding:ident: $deciding_type:ty = $new:expr,)* }
    ) => {
        /// All stages of a worker, in the order in which hops pass them.
        pub(in crate::worker) struct Stages {
            $(pub $waiting: $waiting_type,)*
            $(pub $deciding: $deciding_type,)*
            pub sink: Sink,
            /// Whether any of the second group does anything.
            decides: bool,
        }

        impl Stages {
            /// `emit` gets all hops that are to be shown.
            pub fn new(selection: &Selection, emit: Box<dyn FnMut(Hop) + Send>) -> Self {
                $(
                    let $deciding: fn(&Selection) -> $deciding_type = $new;
                    let $deciding = $deciding(selection);
                )*
                Self {
                    $($waiting: <$waiting_type>::default(),)*
                    decides: [$(!$deciding.lets_all_pass(),)*].contains(&true),
                    $($deciding,)*
                    sink: Sink { emit },
                }
            }

            /// Whether a hop goes straight to [`Stages::sink`]: nearly all do, as nothing is unknown
            /// of them. The caller then calls `sink.emit` itself. A hop has some 300 bytes, and each
            /// function that it is handed to by value copies it, which is a thirtieth of all that it
            /// costs to read a message.
            #[inline(always)]
            pub fn emits_at_once(&self, connection: ConnectionId, hop: &Hop) -> bool {
                !self.decides && !hop.waits() $(&& self.$waiting.is_clear(connection))*
            }

            /// Takes a hop of a connection.
            #[inline(never)]
            pub fn pass(&mut self, connection: ConnectionId, world: &mut World, mut hop: Hop) {
                if hop.waits() $(|| !self.$waiting.is_clear(connection))* {
                    return self.pass_all(connection, hop, world);
                }
                if self.decides
                    && let Err((admit, at)) = self.decide(connection, &mut hop, world)
                {
                    if admit == Admit::Wait {
                        self.hold_at(at, connection, hop, world);
                    }
                    return;
                }
                (self.sink.emit)(hop);
            }

            /// What the second group makes of a hop; with the stage's name, where it does not pass.
            #[inline(never)]
            fn decide(
                &mut self,
                connection: ConnectionId,
                hop: &mut Hop,
                world: &mut World,
            ) -> Result<(), (Admit, &'static str)> {
                $(
                    match self.$deciding.admit(connection, hop, world) {
                        Admit::Pass => {}
                        admit => return Err((admit, <$deciding_type as Stage>::NAME)),
                    }
                )*
                Ok(())
            }

            /// Has a stage of the second group hold a hop.
            #[inline(never)]
            fn hold_at(&mut self, name: &str, connection: ConnectionId, hop: Hop, world: &mut World) {
                hold_at!(self, name, connection, hop, world; $($deciding: $deciding_type,)*);
            }

            #[cold]
            #[inline(never)]
            fn pass_all(&mut self, connection: ConnectionId, mut hop: Hop, world: &mut World) {
                pass!(self, connection, hop, world; $($waiting)* $($deciding)*);
            }

            /// Whether no stage holds anything.
            #[inline]
            fn is_empty(&self) -> bool {
                true $(&& self.$waiting.len() == 0)* $(&& self.$deciding.len() == 0)*
            }

            /// Hands on what need not wait any more.
            #[inline]
            pub fn release(&mut self, when: When, world: &mut World) {
                // Asked twice for each segment, and nearly always nothing waits.
                if !(matches!(when, When::Due(_) | When::News(_)) && self.is_empty()) {
                    self.release_each(when, world);
                }
            }

            #[inline(never)]
            fn release_each(&mut self, when: When, world: &mut World) {
                each!(self.release(when, world); $($waiting)* $($deciding)*);
            }

            /// See [`Stage::amend`].
            pub fn amend(&mut self, scope: Scope<'_>, mut change: impl FnMut(&mut Hop), world: &mut World) {
                $(self.$waiting.amend(scope, &mut change, world);)*
                $(self.$deciding.amend(scope, &mut change, world);)*
            }

            /// See [`Stage::hung_up`]: whether any stage has to know the connection for longer.
            pub fn hung_up(&mut self, connection: ConnectionId) -> bool {
                [$(self.$waiting.hung_up(connection),)* $(self.$deciding.hung_up(connection),)*].contains(&true)
            }

            /// See [`Stage::connection_over`].
            pub fn connection_over(&mut self, connection: ConnectionId, world: &mut World) {
                each!(self.connection_over(connection, world); $($waiting)* $($deciding)*);
            }

            /// What all of them hold, in bytes, about.
            #[inline]
            pub fn weight(&self) -> usize {
                if self.is_empty() {
                    return 0;
                }
                [$(self.$waiting.weight(),)* $(self.$deciding.weight(),)*].iter().sum()
            }

            /// How many items each holds, by name.
            pub fn sizes(&self) -> Vec<(&'static str, usize)> {
                vec![
                    $((<$waiting_type as Stage>::NAME, self.$waiting.len()),)*
                    $((<$deciding_type as Stage>::NAME, self.$deciding.len()),)*
                ]
            }

            /// How many hops were released early since this was asked last.
            pub fn take_early(&mut self) -> u64 {
                [$(self.$waiting.take_early(),)* $(self.$deciding.take_early(),)*].iter().sum()
            }

            /// What each promises, as the documentation lists it.
            #[cfg(test)]
            fn rules() -> Vec<Rule> {
                vec![$(Rule::of::<$waiting_type>(),)* $(Rule::of::<$deciding_type>(),)*]
            }
        }
    };
}

stages! {
    /// Where hops wait for what is unknown of them. A hop of which everything is known skips these,
    /// see [`Stage::is_clear`].
    waiting {
        both_ends: super::both_ends::BothEnds,
        awaiting_group: super::awaiting_group::AwaitingGroup,
        awaiting_cause: super::awaiting_cause::AwaitingCause,
        awaiting_transaction: super::awaiting_transaction::AwaitingTransaction,
        awaiting_rings: super::awaiting_rings::AwaitingRings,
        awaiting_news: super::awaiting_news::AwaitingNews,
        attempts: super::attempts::Attempts,
        limits: super::limits::Limits,
    }
    /// What every hop passes: whether it is emitted, and when.
    deciding {
        follow: Following = |selection| Following(selection.follow.clone()),
        filter: Filtering = |selection| Filtering(selection.filter.clone()),
        uncommitted: AwaitingCommit = |selection| AwaitingCommit(selection.uncommitted.clone()),
    }
}

/// Name, patience and bound of a stage.
#[cfg(test)]
#[derive(Debug)]
struct Rule {
    name: &'static str,
    patience_ns: u64,
    bound: usize,
}

#[cfg(test)]
impl Rule {
    fn of<S: Stage>() -> Self {
        Self { name: S::NAME, patience_ns: S::PATIENCE_NS, bound: S::BOUND }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn stages_have_names_of_their_own_and_bounds() {
        let rules = Stages::rules();
        let names: HashSet<_> = rules.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), rules.len(), "{rules:?}");
        for Rule { name, patience_ns, bound } in rules {
            assert_eq!(patience_ns > 0, bound > 0, "{name}: what waits has both");
        }
    }
}
