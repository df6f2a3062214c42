//! Connections of which the kernel side is to copy no more: they speak something else than Kafka, or belong to nobody who is watched.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, MapData};

use super::ConnectionId;

/// Refuses connections, from any thread.
#[derive(Clone)]
pub struct Refusals {
    maps: Arc<Mutex<Maps>>,
}

struct Maps {
    refused: HashMap<MapData, u64, u8>,
    /// How many there were: the kernel side looks among them when it changes.
    count: Array<MapData, u32>,
    refusals: u32,
}

impl Refusals {
    pub(super) fn new(refused: HashMap<MapData, u64, u8>, count: Array<MapData, u32>) -> Self {
        Self { maps: Arc::new(Mutex::new(Maps { refused, count, refusals: 0 })) }
    }

    /// Nothing more of this connection. A failure only means that its bytes are copied in vain.
    pub fn refuse(&self, connection: ConnectionId) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Maps { refused, count, refusals } = &mut *maps;
        *refusals = refusals.wrapping_add(1);
        let told = refused.insert(&connection.0, &1, 0).and_then(|()| count.set(0, &*refusals, 0));
        if let Err(error) = told {
            tracing::debug!(%error, "a connection goes on being copied");
        }
    }
}
