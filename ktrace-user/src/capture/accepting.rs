//! Who accepts connections: the process of a broker's end, which does not connect, is known by who
//! listens on its port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::resolver::Found;

/// Sockets that listen, by port.
#[derive(Default)]
pub(super) struct Accepting {
    listening: HashMap<u16, Vec<(IpAddr, Found)>>,
    /// In which network namespace an address is; `None` where it is in several.
    addresses: HashMap<IpAddr, Option<u64>>,
}

impl Accepting {
    pub(super) fn new(
        listening: impl IntoIterator<Item = (SocketAddr, Found)>,
        addresses: HashMap<IpAddr, Option<u64>>,
    ) -> Self {
        let mut by_port: HashMap<u16, Vec<(IpAddr, Found)>> = HashMap::new();
        for (at, found) in listening {
            by_port.entry(at.port()).or_default().push((at.ip(), found));
        }
        Self { listening: by_port, addresses }
    }

    /// Who accepts what comes to this address. `None` where no process is known to, or several may:
    /// in network namespaces with the same address, or as processes that share a port
    /// (`SO_REUSEPORT`).
    pub(super) fn of(&self, at: SocketAddr) -> Option<&Found> {
        let netns = self.addresses.get(&at.ip()).copied().flatten();
        let may = |of: &&(IpAddr, Found)| netns.is_none_or(|netns| of.1.netns == netns);
        let all = self.listening.get(&at.port())?;
        let exact = |of: &&(IpAddr, Found)| of.0 == at.ip();
        let any = |of: &&(IpAddr, Found)| of.0.is_unspecified() && (of.0.is_ipv6() || at.is_ipv4());
        let one = |which: &dyn Fn(&&(IpAddr, Found)) -> bool| {
            let mut found = all.iter().filter(may).filter(which).map(|(_, found)| found);
            let first = found.next()?;
            Some(found.all(|other| other.pid == first.pid).then_some(first))
        };
        // The kernel, too, prefers a socket that is bound to the address.
        one(&exact).or_else(|| one(&any)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(netns: u64, pid: u32) -> Found {
        Found { netns, pid: Some(pid), process: None }
    }

    #[test]
    fn who_listens_accepts() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listening = [
            (at("0.0.0.0:9092"), found(1, 10)),
            (at("10.0.0.1:9092"), found(1, 11)),
            (at("[::]:9093"), found(1, 12)),
            (at("[::]:9094"), found(2, 20)),
            (at("[::]:9094"), found(3, 30)),
            (at("127.0.0.1:9095"), found(1, 13)),
            (at("0.0.0.0:9096"), found(1, 14)),
            (at("0.0.0.0:9096"), found(1, 15)),
            (at("0.0.0.0:9097"), found(1, 16)),
            (at("[::]:9097"), found(1, 16)),
        ];
        let addresses = [("10.0.0.2", Some(2)), ("10.0.0.3", Some(3)), ("127.0.0.1", None)];
        let addresses = addresses.map(|(ip, netns)| (ip.parse().unwrap(), netns)).into();
        let accepting = Accepting::new(listening, addresses);
        for (text, pid) in [
            ("10.0.0.9:9092", Some(10)),
            ("10.0.0.1:9092", Some(11)),
            ("[fd00::1]:9092", None),
            ("[fd00::1]:9093", Some(12)),
            ("10.0.0.9:9093", Some(12)),
            ("10.0.0.2:9094", Some(20)),
            ("10.0.0.3:9094", Some(30)),
            ("127.0.0.1:9094", None),
            ("10.0.0.9:9094", None),
            ("127.0.0.1:9095", Some(13)),
            ("10.0.0.9:9095", None),
            ("10.0.0.9:9096", None),
            ("10.0.0.9:9097", Some(16)),
            ("10.0.0.9:9098", None),
        ] {
            assert_eq!(accepting.of(at(text)).and_then(|found| found.pid), pid, "{text}");
        }
    }
}
