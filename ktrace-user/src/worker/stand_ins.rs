//! Resources of clients whose process is unknown: in capture files, and at the broker's end.

use std::collections::HashMap;
use std::sync::Arc;

use crate::span::{Resource, Value};

/// Clients whose resource is kept; with more, all are made anew.
const MAX_STAND_INS: usize = 16 << 10;

/// A client's library, as it names itself: name and version.
pub(super) type Software = (Arc<str>, Arc<str>);

/// What a client says of itself: client id and library.
type Sayings = (Option<Arc<str>>, Option<Software>);

/// Resources of clients without a process, one for all connections of a client.
#[derive(Default)]
pub(super) struct StandIns {
    by_client: HashMap<Sayings, Arc<Resource>>,
}

impl StandIns {
    pub fn of(&mut self, client_id: Option<Arc<str>>, software: Option<Software>) -> Arc<Resource> {
        if self.by_client.len() >= MAX_STAND_INS {
            self.by_client.clear();
        }
        let resource = self.by_client.entry((client_id, software)).or_insert_with_key(|(id, software)| {
            let mut attributes: Vec<(Arc<str>, Value<'static>)> = Vec::with_capacity(3);
            if let Some((name, version)) = software {
                attributes.push(("ktrace.client.software.name".into(), name.to_string().into()));
                attributes.push(("ktrace.client.software.version".into(), version.to_string().into()));
            }
            let name = id.as_deref().filter(|id| !id.is_empty());
            let name = name.map_or("unknown_service".into(), |name| name.to_owned().into());
            attributes.push(("service.name".into(), name));
            Arc::new(Resource::new(attributes))
        });
        Arc::clone(resource)
    }
}
