//! Which TLS connections may be opened. Pure.
//!
//! A process is never searched for keys because of its HTTPS: a connection has to go to a port that
//! the user has named, that is Kafka's by convention, or that a Kafka response has named as a
//! broker's.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::tls_options::TlsOptions;
use crate::seen::{Ends, Process};

/// Places of brokers that are learned in a run; those that find no room are counted
/// (`tls_port_not_learned`).
pub const MAX_LEARNED: usize = 1024;

/// Ports where other protocols speak TLS by convention (IANA's registry, and Kubernetes' own). On
/// them responses of brokers are not believed: only who runs ktrace names them.
const OTHERS: [u16; 22] = [
    443,  // https
    465,  // submissions
    563,  // nntps
    587,  // submission
    636,  // ldaps
    853,  // domain-s
    989,  // ftps-data
    990,  // ftps
    992,  // telnets
    993,  // imaps
    995,  // pop3s
    1433, // ms-sql-s
    2376, // docker-s
    2379, // etcd-client
    2380, // etcd-server
    3269, // msft-gc-ssl
    5061, // sips
    5432, // postgresql
    5671, // amqps
    6443, // Kubernetes' API
    8443, // pcsync-https, the usual second https
    8883, // secure-mqtt
];

/// Brokers' places, as Kafka responses have named them, and brokers that have spoken Kafka.
#[derive(Debug, Default)]
pub struct Learned {
    addresses: HashSet<SocketAddr>,
    /// Of brokers that were named by a host name, which says nothing of their address: by the
    /// process that was given the name.
    names: HashSet<(u32, u16)>,
    /// Those of both, as the kernel side is to take TLS there.
    ports: HashSet<u16>,
    not_learned: u64,
}

/// What is to be done with a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Keys may be looked for.
    Yes,
    /// It is to be asked again when the connection's process is known.
    NotYet,
    /// It is not asked for. What responses name later may change that.
    No,
}

impl Learned {
    /// A response has named a broker, to this process at the captured end of its connection (0: not
    /// known). Returns a port on which the kernel side is to take TLS from now on.
    pub fn named(&mut self, pid: u32, host: &str, port: i32) -> Option<u16> {
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        match host.parse::<IpAddr>() {
            Ok(ip) => self.spoke((ip.to_canonical(), port).into()),
            Err(_) if pid == 0 || OTHERS.contains(&port) || self.names.contains(&(pid, port)) => None,
            Err(_) if self.is_full() => self.leave(),
            Err(_) => {
                self.names.insert((pid, port));
                self.ports.insert(port).then_some(port)
            }
        }
    }

    /// Kafka was spoken with this broker, or a response has named its address. Returns as
    /// [`Learned::named`].
    pub fn spoke(&mut self, broker: SocketAddr) -> Option<u16> {
        let port = broker.port();
        if OTHERS.contains(&port) || self.addresses.contains(&broker) {
            return None;
        }
        if self.is_full() {
            return self.leave();
        }
        self.addresses.insert(broker);
        self.ports.insert(port).then_some(port)
    }

    /// How many places were named that found no room since this was asked last.
    pub fn take_not_learned(&mut self) -> u64 {
        std::mem::take(&mut self.not_learned)
    }

    /// How many places are known.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.addresses.len().saturating_add(self.names.len())
    }

    fn is_full(&self) -> bool {
        self.len() >= MAX_LEARNED
    }

    fn leave(&mut self) -> Option<u16> {
        self.not_learned = self.not_learned.saturating_add(1);
        None
    }

    fn is_broker(&self, broker: SocketAddr, pid: u32) -> bool {
        let broker = SocketAddr::from((broker.ip().to_canonical(), broker.port()));
        self.addresses.contains(&broker) || self.names.contains(&(pid, broker.port()))
    }

    /// Whether some broker, at whatever address, was named with this port by a host name.
    fn is_named(&self, port: u16) -> bool {
        self.names.iter().any(|(_, named)| *named == port)
    }
}

/// Whether keys may be looked for that open a TLS connection. `owner` is the process at the
/// captured end; `alpn`: its client has offered protocols to be spoken inside, which no client of
/// Kafka's does.
#[must_use]
pub fn may_open(
    ends: &Ends,
    owner: Option<&Process>,
    alpn: bool,
    learned: &Learned,
    options: &TlsOptions,
) -> Opening {
    let port = ends.broker.port();
    if !options.is_on() || (alpn && !options.ports.names(port)) {
        return Opening::No;
    }
    let pid = owner.map_or(0, |owner| owner.pid);
    if !options.ports.contains(port) && !(options.ports.is_auto() && learned.is_broker(ends.broker, pid)) {
        // Which process has been given the name of a broker with this port, is known of processes
        // alone.
        let may_turn_out = owner.is_none() && options.ports.is_auto() && learned.is_named(port);
        return if may_turn_out { Opening::NotYet } else { Opening::No };
    }
    let narrowed = !options.services.is_all() || !options.cgroups.is_empty();
    match owner {
        None if narrowed => Opening::NotYet,
        None => Opening::Yes,
        Some(owner) => {
            let in_cgroup = options.cgroups.is_empty() || owner.is_in_tls_cgroup;
            let service = || Some(owner.resource.service_name());
            if in_cgroup && options.services.keep(service) { Opening::Yes } else { Opening::No }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tls_options::TlsSource;
    use super::*;
    use crate::patterns::Patterns;
    use crate::span::{Resource, Value};

    fn ends(port: u16) -> Ends {
        Ends { client: ([10, 0, 0, 1], 40000).into(), broker: ([10, 0, 0, 2], port).into() }
    }

    fn process(pid: u32, service: &str) -> Process {
        let resource = Resource::new(vec![("service.name".into(), Value::from(service.to_owned()))]);
        Process { pid, resource: Arc::new(resource), ..Process::default() }
    }

    fn options(ports: &str) -> TlsOptions {
        TlsOptions { source: TlsSource::Memory, ports: ports.parse().unwrap(), ..TlsOptions::default() }
    }

    fn opens(port: u16, learned: &Learned, options: &TlsOptions) -> Opening {
        may_open(&ends(port), Some(&process(7, "billing")), false, learned, options)
    }

    #[test]
    fn ports_that_were_named_or_are_kafkas_by_convention() {
        let nothing = Learned::default();
        for (ports, port, opening) in [
            ("auto", 9092, Opening::Yes),
            ("auto", 9198, Opening::Yes),
            ("auto", 443, Opening::No),
            ("auto", 31092, Opening::No),
            ("auto,443", 443, Opening::Yes),
            ("9093", 9093, Opening::Yes),
            ("9093", 9092, Opening::No),
            ("443", 443, Opening::Yes),
        ] {
            assert_eq!(opens(port, &nothing, &options(ports)), opening, "{port} with {ports}");
        }
        let off = TlsOptions { source: TlsSource::Off, ..options("9093") };
        assert_eq!(opens(9093, &nothing, &off), Opening::No);
    }

    /// Prometheus' alert manager listens on 9093, and its clients offer HTTP/2.
    #[test]
    fn who_offers_protocols_speaks_no_kafka() {
        let mut learned = Learned::default();
        learned.named(0, "10.0.0.2", 31092);
        for (ports, port, opening) in [
            ("auto", 9093, Opening::No),
            ("auto", 31092, Opening::No),
            ("auto,443", 443, Opening::Yes),
            ("9093", 9093, Opening::Yes),
        ] {
            let asked = may_open(&ends(port), Some(&process(7, "x")), true, &learned, &options(ports));
            assert_eq!(asked, opening, "{port} with {ports}");
        }
    }

    #[test]
    fn brokers_that_responses_have_named_by_their_address() {
        let mut learned = Learned::default();
        assert_eq!(learned.named(0, "10.0.0.2", 31092), Some(31092));
        assert_eq!(learned.named(0, "10.0.0.3", 31092), None, "the kernel side takes that port already");
        assert_eq!(learned.named(0, "10.0.0.9", 31093), Some(31093));
        assert_eq!(opens(31092, &learned, &options("auto")), Opening::Yes);
        assert_eq!(opens(31093, &learned, &options("auto")), Opening::No, "another host's");
        assert_eq!(opens(31092, &learned, &options("9092")), Opening::No, "only with auto");
        assert_eq!(opens(31092, &learned, &options("9092,443")), Opening::No);
    }

    #[test]
    fn brokers_that_responses_have_named_by_name_are_believed_by_who_has_heard_it() {
        let mut learned = Learned::default();
        assert_eq!(learned.named(7, "kafka-1.example", 31092), Some(31092));
        let asked = |pid: Option<u32>| {
            let owner = pid.map(|pid| process(pid, "x"));
            may_open(&ends(31092), owner.as_ref(), false, &learned, &options("auto"))
        };
        assert_eq!(asked(Some(7)), Opening::Yes);
        assert_eq!(asked(Some(8)), Opening::No);
        assert_eq!(asked(None), Opening::NotYet);
        // Its connection was Kafka's: others may go there, too.
        learned.spoke(ends(31092).broker);
        let other = process(8, "x");
        assert_eq!(may_open(&ends(31092), Some(&other), false, &learned, &options("auto")), Opening::Yes);
    }

    /// Hostile: a broker that names everything.
    #[test]
    fn what_is_learned_is_bounded_and_other_protocols_are_left_alone() {
        let mut learned = Learned::default();
        for port in OTHERS {
            assert_eq!(learned.named(7, "10.0.0.2", port.into()), None);
            assert_eq!(learned.named(7, "web.example", port.into()), None);
            assert_eq!(learned.spoke(ends(port).broker), None);
            assert_eq!(opens(port, &learned, &options("auto")), Opening::No, "{port}");
        }
        for port in [-1, 0, 65536, i32::MAX] {
            assert_eq!(learned.named(7, "10.0.0.2", port), None);
        }
        let mut ports = 0;
        for port in 10_000..40_000 {
            ports += usize::from(learned.named(7, "10.0.0.2", port).is_some());
            ports += usize::from(learned.named(7, "x.example", port).is_some());
        }
        assert_eq!((learned.addresses.len() + learned.names.len(), ports), (MAX_LEARNED, MAX_LEARNED / 2));
        assert_eq!(learned.take_not_learned(), 60_000 - MAX_LEARNED as u64);
        assert_eq!(learned.take_not_learned(), 0);
    }

    #[test]
    fn lists_narrow() {
        let nothing = Learned::default();
        let mut options = options("auto");
        options.services = Patterns::new(&["bill*".to_owned(), "!billing-test".to_owned()]).unwrap();
        let asked = |owner: Option<Process>, options: &TlsOptions| {
            may_open(&ends(9093), owner.as_ref(), false, &nothing, options)
        };
        assert_eq!(asked(Some(process(7, "billing")), &options), Opening::Yes);
        assert_eq!(asked(Some(process(7, "billing-test")), &options), Opening::No);
        assert_eq!(asked(Some(process(7, "orders")), &options), Opening::No);
        assert_eq!(asked(None, &options), Opening::NotYet);
        options.cgroups = vec!["/sys/fs/cgroup/shop.slice".into()];
        assert_eq!(asked(Some(process(7, "billing")), &options), Opening::No);
        let below = |service| Some(Process { is_in_tls_cgroup: true, ..process(7, service) });
        assert_eq!(asked(below("billing"), &options), Opening::Yes);
        assert_eq!(asked(below("orders"), &options), Opening::No);
    }
}
