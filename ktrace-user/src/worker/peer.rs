//! Who speaks on a connection, and as whom.

use std::collections::HashMap;
use std::sync::Arc;

use ktrace_kafka::Operation;

use super::shared::Shared;
use super::twins::Search;
use crate::capture::{Ends, Side};
use crate::export::{Resource, Value};
use crate::hop::groups::Speaker;
use crate::hop::{Client, Parties};
use crate::process::Process;

/// A longer name of a client's software, or version of it, is not kept.
const MAX_SOFTWARE_BYTES: usize = 128;

/// Clients without a process whose resource is kept; past it they are made anew.
const MAX_STAND_INS: usize = 16 << 10;

/// A client's library, as it names itself: name and version.
type Software = (Arc<str>, Arc<str>);

/// What a client says of itself: client id and library.
type Sayings = (Option<Arc<str>>, Option<Software>);

/// See the module.
pub(super) struct Peer {
    pub ends: Ends,
    pub side: Side,
    broker_address: Arc<str>,
    /// The client's address as text, at the broker's end.
    client_address: Option<Arc<str>>,
    /// The client's process; at the broker's end it is elsewhere.
    owner: Option<Arc<Process>>,
    client_id: Option<Arc<str>>,
    software: Option<Software>,
    cluster_id: Option<Arc<str>>,
    /// The cluster was looked for in vain when what is known of clusters had this number.
    cluster_unknown: Option<u64>,
    /// The group that was named on this very connection: many clients ask for records where they ask for their group.
    /// `Some(None)` where there were several.
    named_group: Option<Option<Arc<str>>>,
    /// The group of the client id at hand, looked up when what is known of groups had this number.
    group: Option<(u64, Option<Arc<str>>)>,
    /// Whether the process is itself a broker, looked up likewise.
    is_broker: Option<(u64, bool)>,
    /// The group that the exchange at hand names, a ShareFetch.
    share_group: Option<Arc<str>>,
    /// Of the client id where the process is not known.
    stand_in: Option<Arc<Resource>>,
    /// What hops share, put together when what is known of groups had this number.
    parties: Option<(u64, Arc<Parties>)>,
    /// What is missing of the connection.
    pub missed: Missed,
    /// Exchanges seen.
    pub exchanges: u32,
    /// Of the broker's end, for the client's.
    pub search: Search,
}

impl Peer {
    pub fn new(ends: Ends, side: Side) -> Self {
        let text = |address: std::net::SocketAddr| Arc::from(address.ip().to_canonical().to_string());
        Self {
            ends,
            side,
            broker_address: text(ends.broker),
            client_address: (side == Side::Broker).then(|| text(ends.client)),
            owner: None,
            client_id: None,
            software: None,
            cluster_id: None,
            cluster_unknown: None,
            named_group: None,
            group: None,
            is_broker: None,
            share_group: None,
            stand_in: None,
            parties: None,
            missed: Missed::default(),
            exchanges: 0,
            search: Search::default(),
        }
    }

    /// The process at the captured end is known.
    pub fn owned(&mut self, process: Arc<Process>, shared: &Shared) {
        match self.side {
            Side::Client => {
                self.owner = Some(process);
                (self.group, self.is_broker, self.parties) = (None, None, None);
            }
            Side::Broker => shared.brokers.tell(|brokers| brokers.learn(&process)),
        }
    }

    /// An exchange of this client id begins.
    pub fn exchange(&mut self, client_id: Option<&str>) {
        self.exchanges = self.exchanges.saturating_add(1);
        self.missed.exchange();
        if self.client_id.as_deref() != client_id {
            self.client_id = client_id.map(Into::into);
            (self.stand_in, self.group, self.parties) = (None, None, None);
        }
    }

    /// The client names its library.
    pub fn software(&mut self, name: &str, version: &str) {
        if name.is_empty() || name.len() > MAX_SOFTWARE_BYTES || version.len() > MAX_SOFTWARE_BYTES {
            return;
        }
        if self.software.as_ref().is_none_or(|(known, of)| **known != *name || **of != *version) {
            self.software = Some((name.into(), version.into()));
            (self.stand_in, self.parties) = (None, None);
        }
    }

    fn speaker(&self) -> Speaker {
        match &self.owner {
            Some(process) if process.pid != 0 => Speaker::Process(process.pid),
            _ => Speaker::Address(self.ends.client.ip()),
        }
    }

    /// Whether the client is itself a broker of this host: what passes between brokers is no hop.
    pub fn is_broker(&mut self, shared: &Shared) -> bool {
        let Some(owner) = &self.owner else { return false };
        let number = shared.brokers.number();
        match self.is_broker {
            Some((known, is)) if known == number => is,
            _ => {
                let is = shared.brokers.look(|brokers| brokers.has(owner));
                self.is_broker = Some((number, is));
                is
            }
        }
    }

    /// A request of this client names its group.
    pub fn names_group(&mut self, group: &str, shared: &Shared) {
        match &self.named_group {
            None => (self.named_group, self.parties) = (Some(Some(group.into())), None),
            Some(Some(known)) if **known != *group => (self.named_group, self.parties) = (Some(None), None),
            Some(_) => {}
        }
        shared.groups.tell(|groups| groups.learn(self.speaker(), self.client_id.clone(), group));
    }

    /// The broker names its cluster.
    pub fn names_cluster(&mut self, id: &str, shared: &Shared) {
        if self.cluster_id.as_deref() == Some(id) {
            return;
        }
        let id = Arc::from(id);
        shared.clusters.tell(|clusters| clusters.learn(self.ends.broker, &id));
        (self.cluster_id, self.parties) = (Some(id), None);
    }

    /// Who takes part in what the exchange at hand does, as far as it is known.
    pub fn parties(
        &mut self,
        operation: Operation<'_>,
        shared: &Shared,
        stand_ins: &mut StandIns,
    ) -> Arc<Parties> {
        let group_id = match operation {
            Operation::ShareFetch { group_id, .. } => group_id,
            _ => None,
        };
        if self.share_group.as_deref() != group_id {
            (self.share_group, self.parties) = (group_id.map(Into::into), None);
        }
        self.look_for_cluster(shared);
        let number = shared.groups.number();
        match &self.parties {
            Some((known, parties)) if *known == number => Arc::clone(parties),
            _ => {
                let parties = self.put_together(shared, stand_ins);
                self.parties = Some((number, Arc::clone(&parties)));
                parties
            }
        }
    }

    fn put_together(&mut self, shared: &Shared, stand_ins: &mut StandIns) -> Arc<Parties> {
        let port = self.ends.client.port();
        let parties = Parties {
            client_id: self.client_id.clone(),
            group: self.share_group.clone().or_else(|| self.group(shared)),
            cluster_id: self.cluster_id.clone(),
            broker_address: Arc::clone(&self.broker_address),
            broker_port: self.ends.broker.port(),
            client: self.client_address.clone().map(|address| Client { address, port }),
            resource: self.resource(stand_ins),
        };
        match &self.parties {
            Some((_, same)) if **same == parties => Arc::clone(same),
            _ => Arc::new(parties),
        }
    }

    /// The group for which the client with the client id at hand fetches, as far as it is known.
    fn group(&mut self, shared: &Shared) -> Option<Arc<str>> {
        if let Some(group) = &self.named_group {
            return group.clone();
        }
        let number = shared.groups.number();
        match &self.group {
            Some((known, group)) if *known == number => group.clone(),
            _ => {
                let group = shared.groups.look(|groups| groups.of(self.speaker(), self.client_id.clone()));
                self.group = Some((number, group.clone()));
                group
            }
        }
    }

    /// Some other connection may have named the broker's cluster.
    fn look_for_cluster(&mut self, shared: &Shared) {
        if self.cluster_id.is_some() {
            return;
        }
        let number = shared.clusters.number();
        if self.cluster_unknown != Some(number) {
            self.cluster_unknown = Some(number);
            self.cluster_id = shared.clusters.look(|clusters| clusters.of(self.ends.broker));
            if self.cluster_id.is_some() {
                self.parties = None;
            }
        }
    }

    /// The process's, or what the client says of itself where there is none: in a capture file, and at the broker's end.
    fn resource(&mut self, stand_ins: &mut StandIns) -> Arc<Resource> {
        if let Some(process) = &self.owner {
            return Arc::clone(&process.resource);
        }
        let (client_id, software) = (&self.client_id, &self.software);
        Arc::clone(self.stand_in.get_or_insert_with(|| stand_ins.of(client_id.clone(), software.clone())))
    }

    /// Whether the client's process is known.
    pub fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// What to call the client where no span does: its service, or its address where that is not known.
    pub fn service(&self) -> String {
        match (&self.owner, &self.client_id) {
            (Some(process), _) => process.resource.service_name().to_owned(),
            (None, Some(id)) if !id.is_empty() => id.as_ref().to_owned(),
            (None, _) => self.ends.client.ip().to_canonical().to_string(),
        }
    }
}

/// What is missing of a connection, and whose spans say so: those of the first exchange with messages behind it.
#[derive(Default)]
pub(super) struct Missed {
    pub gaps: u64,
    pub bytes: u64,
    mark: Mark,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Nothing,
    /// The next message bears it.
    Due,
    /// The messages of the exchange at hand bear it.
    Given,
}

impl Missed {
    pub fn gap(&mut self, bytes: u64) {
        self.gaps = self.gaps.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.mark = Mark::Due;
    }

    /// Messages were given up, whose bytes were there.
    pub fn messages(&mut self) {
        self.mark = Mark::Due;
    }

    /// An exchange begins.
    pub fn exchange(&mut self) {
        if self.mark == Mark::Given {
            self.mark = Mark::Nothing;
        }
    }

    /// A message is shown. Returns whether it is marked.
    pub fn show(&mut self) -> bool {
        if self.mark == Mark::Due {
            self.mark = Mark::Given;
        }
        self.mark == Mark::Given
    }
}

/// Resources of clients without a process, one for all connections of a client.
#[derive(Default)]
pub(super) struct StandIns {
    by_client: HashMap<Sayings, Arc<Resource>>,
}

impl StandIns {
    fn of(&mut self, client_id: Option<Arc<str>>, software: Option<Software>) -> Arc<Resource> {
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
