//! Who speaks on a connection, and as whom.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hop::chains;
use crate::hop::groups::{self, Client, Groups, Heard, Line, Reader, Speaker};
use crate::hop::{Parties, Topic, TopicName};
use crate::seen::{ConnectionId, Ends, Process, Side};
use crate::span::Resource;
use crate::worker::deliveries::{self, MAX_ID_BYTES};
use crate::worker::shared::Shared;
use crate::worker::stand_ins::{Software, StandIns};

/// A longer name of a client's software, or version of it, is not kept.
const MAX_SOFTWARE_BYTES: usize = 128;

/// Partitions of which a connection's client has asked where they begin or end; with more, all are
/// forgotten.
const MAX_LISTED: usize = 4096;

/// A connection's client: its process, what it says of itself, and for whom it reads.
pub(in crate::worker) struct ClientState {
    pub ends: Ends,
    pub side: Side,
    broker_address: Arc<str>,
    /// The client's address as text, at the broker's end.
    client_address: Option<Arc<str>>,
    /// The client's process; at the broker's end it is elsewhere.
    owner: Option<Arc<Process>>,
    /// The process at the captured end.
    holder: Option<Arc<Process>>,
    /// What it reads and writes, if that is followed, once it was looked for.
    chain: Option<Option<chains::Shared>>,
    /// It has got something that was not captured, and its chain does not know that yet.
    pub misses_reads: bool,
    client_id: Option<Arc<str>>,
    software: Option<Software>,
    cluster_id: Option<Arc<str>>,
    /// The cluster was looked for in vain when what is known of clusters had this number.
    cluster_unknown: Option<u64>,
    /// Who it is to those who know groups.
    speaker: Client,
    /// For whom a partition was last read, looked up when what is known of groups had this number.
    reader: Option<(u64, Topic, i32, Reader)>,
    /// Where partitions begin or end, as the client has asked the broker, and when.
    listed: HashMap<(Arc<str>, i32), (i64, u64)>,
    /// Of the client id where the process is not known.
    stand_in: Option<Arc<Resource>>,
    /// What hops share, with for whom the messages are.
    parties: Option<(Reader, Arc<Parties>)>,
    /// Exchanges seen.
    pub exchanges: u32,
}

impl ClientState {
    pub fn new(ends: Ends, side: Side) -> Self {
        let text = |address: std::net::SocketAddr| Arc::from(address.ip().to_canonical().to_string());
        Self {
            ends,
            side,
            broker_address: text(ends.broker),
            client_address: (side == Side::Broker).then(|| text(ends.client)),
            owner: None,
            holder: None,
            chain: None,
            misses_reads: false,
            client_id: None,
            software: None,
            cluster_id: None,
            cluster_unknown: None,
            speaker: Client { speaker: Speaker::Address(ends.client.ip()), id: None },
            reader: None,
            listed: HashMap::new(),
            stand_in: None,
            parties: None,
            exchanges: 0,
        }
    }

    /// Who it is to those who know groups.
    pub fn speaker(&self) -> &Client {
        &self.speaker
    }

    /// Partitions of which it has asked where they begin or end.
    pub fn listed_len(&self) -> usize {
        self.listed.len()
    }

    /// Forgets those.
    pub fn shed(&mut self) {
        self.listed = HashMap::new();
    }

    /// The process that holds the captured socket.
    pub fn holder(&self) -> Option<&Arc<Process>> {
        self.holder.as_ref()
    }

    /// The process at the captured end is known.
    pub fn owned(&mut self, process: Arc<Process>) {
        self.holder = Some(Arc::clone(&process));
        // At the broker's end it is not the client's.
        if self.side == Side::Broker {
            return;
        }
        if process.pid != 0 {
            self.speaker.speaker = Speaker::Process(process.pid);
        }
        self.owner = Some(process);
        (self.reader, self.parties, self.chain) = (None, None, None);
        // What it got before was noted for no process.
        self.misses_reads |= self.exchanges > 0;
    }

    /// An exchange of this client id begins.
    pub fn begin_exchange(&mut self, client_id: Option<&str>) {
        self.exchanges = self.exchanges.saturating_add(1);
        let client_id = client_id.filter(|id| id.len() <= MAX_ID_BYTES);
        if self.client_id.as_deref() != client_id {
            self.client_id = client_id.map(Into::into);
            self.speaker.id.clone_from(&self.client_id);
            (self.stand_in, self.reader, self.parties) = (None, None, None);
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

    /// What the client's process reads and writes, if that is followed.
    pub fn chain(&mut self, shared: &Shared, now_ns: u64) -> Option<&chains::Shared> {
        let owner = &self.owner;
        let of = || owner.as_ref().and_then(|owner| shared.chains.of(owner));
        let chain = self.chain.get_or_insert_with(of).as_ref()?;
        if std::mem::take(&mut self.misses_reads) {
            chain.missed(now_ns);
        }
        Some(chain)
    }

    /// An exchange of this connection says something of a member of a group: `learn` notes it.
    pub fn learn_of_groups(
        &self,
        id: ConnectionId,
        now_ns: u64,
        shared: &Shared,
        learn: impl FnOnce(&mut Groups, Heard<'_>) -> bool,
    ) {
        let heard = Heard { client: &self.speaker, line: self.line(id), now_ns };
        shared.groups.update(|groups| learn(groups, heard));
    }

    pub fn line(&self, connection: ConnectionId) -> Line {
        Line { connection, broker: self.ends.broker }
    }

    /// The client has asked where a partition begins or ends.
    pub fn listed(&mut self, topic: &TopicName, partition: i32, offset: i64, asked_ns: u64) {
        if self.listed.len() >= MAX_LISTED {
            self.listed.clear();
        }
        self.listed.insert((Arc::clone(&topic.name), partition), (offset, asked_ns));
    }

    /// Where a partition begins or ends, if the client has asked for that and not fetched since.
    pub fn listed_of(&self, topic: &Topic, partition: i32) -> Option<i64> {
        let Topic::Named(topic) = topic else { return None };
        if self.listed.is_empty() {
            return None;
        }
        self.listed.get(&(Arc::clone(&topic.name), partition)).map(|(offset, _)| *offset)
    }

    /// For whom the client reads a partition.
    pub fn reader(
        &mut self,
        id: ConnectionId,
        topic: &Topic,
        asked: &mut groups::FetchFrom<'_>,
        shared: &Shared,
    ) -> Reader {
        let at = asked.at;
        let number = shared.groups.version();
        if let Some((known, of, partition, reader)) = &self.reader
            && (*known, *partition) == (number, at.partition)
            && of == topic
        {
            return reader.clone();
        }
        // Who has no offset yet asks the broker for one, on the connection on which it fetches
        // then.
        if let Topic::Named(topic) = topic
            && !self.listed.is_empty()
            && let Some((offset, ns)) = self.listed.remove(&(Arc::clone(&topic.name), at.partition))
            && offset == asked.offset
        {
            asked.ns = ns;
        }
        let reader = deliveries::reader(shared, &self.speaker, self.line(id), *asked);
        self.reader = Some((number, topic.clone(), at.partition, reader.clone()));
        reader
    }

    /// The broker names its cluster.
    pub fn names_cluster(&mut self, id: &str, shared: &Shared) {
        if self.cluster_id.as_deref() == Some(id) || id.len() > MAX_ID_BYTES {
            return;
        }
        let id = Arc::from(id);
        shared.clusters.update(|clusters| clusters.learn(self.ends.broker, &self.speaker, &id));
        (self.cluster_id, self.parties) = (Some(id), None);
    }

    /// Who takes part in the current exchange, as far as it is known.
    pub fn parties(&mut self, reader: &Reader, shared: &Shared, stand_ins: &mut StandIns) -> Arc<Parties> {
        self.look_for_cluster(shared);
        if let Some((of, parties)) = &self.parties
            && of == reader
        {
            return Arc::clone(parties);
        }
        let parties = Arc::new(self.put_together(reader, stand_ins));
        self.parties = Some((reader.clone(), Arc::clone(&parties)));
        parties
    }

    fn put_together(&mut self, reader: &Reader, stand_ins: &mut StandIns) -> Parties {
        let port = self.ends.client.port();
        Parties {
            client_id: self.client_id.clone(),
            reader: reader.clone(),
            cluster_id: self.cluster_id.clone(),
            broker_address: Arc::clone(&self.broker_address),
            broker_port: self.ends.broker.port(),
            client: self.client_address.clone().map(|address| crate::hop::Client { address, port }),
            resource: self.resource(stand_ins),
        }
    }

    /// The cluster, as far as it is known.
    pub fn cluster(&mut self, shared: &Shared) -> Option<Arc<str>> {
        self.look_for_cluster(shared);
        self.cluster_id.clone()
    }

    /// Some other connection may have named the broker's cluster.
    fn look_for_cluster(&mut self, shared: &Shared) {
        if self.cluster_id.is_some() {
            return;
        }
        let number = shared.clusters.version();
        if self.cluster_unknown != Some(number) {
            self.cluster_unknown = Some(number);
            self.cluster_id = shared.clusters.write_quiet(|known| known.of(self.ends.broker, &self.speaker));
            if self.cluster_id.is_some() {
                self.parties = None;
            }
        }
    }

    /// The process's, or what the client says of itself where there is none: in a capture file, and
    /// at the broker's end.
    pub fn resource(&mut self, stand_ins: &mut StandIns) -> Arc<Resource> {
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

    /// What to call the client where no span does: its service, or its address where that is not
    /// known.
    pub fn service(&self) -> String {
        match (&self.owner, &self.client_id) {
            (Some(process), _) => process.resource.service_name().to_owned(),
            (None, Some(id)) if !id.is_empty() => id.as_ref().to_owned(),
            (None, _) => self.ends.client.ip().to_canonical().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{PARTITION_BYTES, State};
    use super::*;
    use crate::hop::topics::Topics;

    fn ends() -> Ends {
        Ends { client: ([10, 0, 0, 1], 4000).into(), broker: ([10, 0, 0, 2], 9092).into() }
    }

    fn client() -> ClientState {
        ClientState::new(ends(), Side::Client)
    }

    /// Hostile: names that are as long as the protocol allows.
    #[test]
    fn long_names_are_not_kept() {
        let (mut client, shared, long) = (client(), Shared::default(), "x".repeat(MAX_ID_BYTES + 1));
        client.begin_exchange(Some(&long));
        client.software(&long, "1");
        client.names_cluster(&long, &shared);
        assert!(client.client_id.is_none() && client.software.is_none() && client.cluster_id.is_none());
        assert_eq!(shared.clusters.version(), 0);
        client.begin_exchange(Some(&long[1..]));
        assert!(client.client_id.is_some());
    }

    /// Hostile: a client that asks for all partitions that there could be.
    #[test]
    fn lists_are_bounded_weighed_and_shed() {
        let (mut state, mut topics) = (State::new(ends(), Side::Client), Topics::default());
        let topic = topics.named("orders");
        for partition in 0..1_000_000 {
            state.client.listed(&topic, partition, 0, 0);
            assert!(state.held_bytes() <= MAX_LISTED * PARTITION_BYTES);
        }
        assert!(state.held_bytes() > 0);
        state.shed();
        assert_eq!(state.held_bytes(), 0);
    }
}
