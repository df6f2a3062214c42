//! A short look at what is spoken on this host's connections: for `ktrace doctor`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ktrace_kafka::Speaks;
use ktrace_kafka::context::Extractor;
use ktrace_kafka::{Connection, Limits, Scratch, Sink};

use crate::capture::{CaptureError, Live, LiveOptions, PortSet};
use crate::privilege;
use crate::seen::{Ends, Event, Process, Segment};
use crate::worker::TlsOptions;

/// Small: this only has to see which protocol is spoken, so a full ring does no harm.
const RING_BYTES: usize = 4 << 20;

/// A connection that spoke.
pub struct Heard {
    pub ends: Ends,
    pub owner: Option<Arc<Process>>,
    /// Kafka or TLS, or not known after so short a time.
    pub speaks: Speaks,
    connection: Connection,
}

/// Only whether it is Kafka counts.
struct Nothing;

impl Sink for Nothing {}

/// Listens for a while to the clients of this host.
///
/// # Errors
/// Nothing can be captured.
pub fn look(
    ports: &PortSet,
    cgroup: Option<&Path>,
    tls: &TlsOptions,
    patience: Duration,
) -> Result<Vec<Heard>, CaptureError> {
    let options = LiveOptions {
        ports: ports.clone(),
        cgroup: cgroup.map(Path::to_owned),
        tls: Some(tls.ports.clone()),
        tls_cgroups: tls.cgroups.clone(),
        ring_bytes: RING_BYTES,
        // The report says so itself.
        say: |_| {},
        ..LiveOptions::default()
    };
    let mut live = Live::open(options)?;
    privilege::confine(&[], &[]);
    let stop = AtomicBool::new(false);
    let mut heard = HashMap::new();
    let mut scratch = Scratch::new(Limits::default(), Extractor::default());
    scratch.ports_are_given = !ports.is_auto();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(patience);
            stop.store(true, Ordering::Relaxed);
        });
        live.run(&stop, |event| match event {
            Event::Opened { connection, ends, owner, .. } => {
                let heard = heard.entry(connection).or_insert_with(|| Heard {
                    ends,
                    owner: None,
                    speaks: Speaks::Unknown,
                    connection: Connection::default(),
                });
                heard.owner = owner.or(heard.owner.take());
            }
            Event::Segment(segment) => {
                if let Some(heard) = heard.get_mut(&segment.connection) {
                    hear(heard, &segment, &mut scratch);
                }
            }
            Event::Closed { .. } | Event::Tick { .. } => {}
        })
    })?;
    let mut heard: Vec<Heard> = heard.into_values().filter(|heard| heard.speaks != Speaks::Other).collect();
    heard.sort_by_key(|heard| (heard.ends.broker, heard.ends.client));
    Ok(heard)
}

fn hear(heard: &mut Heard, segment: &Segment<'_>, scratch: &mut Scratch) {
    heard.connection.push(scratch, segment.push, &mut Nothing);
    heard.speaks = heard.connection.speaks();
}
