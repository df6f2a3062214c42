//! Network namespaces, each with loopback, wired to each other by veth pairs.
//!
//! A namespace lives as long as the process that holds it, which dies with the test: nothing is
//! left, also after a panic or a kill.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cache;
use crate::need;
use crate::process::{self, Process};

/// Where the calling thread is.
const OWN: &str = "/proc/thread-self/ns/net";

#[derive(Debug)]
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// A new one, with nothing in it but loopback. The name is for messages, and for its log in
    /// `dir`.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let holder = Process::start(
            name,
            process::command("unshare").args(["--net", "sleep", "infinity"]),
            &dir.join(format!("{name}.namespace.log")),
        )?;
        let namespace = Self { holder };
        let own = fs::read_link(OWN)?;
        let deadline = process::deadline(Duration::from_secs(10));
        // the holder is made in ours and then leaves it
        while fs::read_link(namespace.path()).is_ok_and(|link| link == own) {
            ensure!(Instant::now() < deadline, "{name} has not left our network namespace");
            sleep(Duration::from_millis(5));
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The file that stands for it, as long as it lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.pid()).into()
    }

    /// Does something with this thread in the namespace: what it starts, opens, binds or connects
    /// is in there.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        /// Goes back, also when the work panics.
        struct Back(File);
        impl Drop for Back {
            fn drop(&mut self) {
                if let Err(error) =
                    move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                {
                    // all that follows would be done in the wrong place
                    eprintln!("cannot leave a network namespace: {error}");
                    std::process::abort();
                }
            }
        }
        let there = File::open(self.path())?;
        let back = Back(File::open(OWN)?);
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace")?;
        let done = work();
        drop(back);
        done
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.run("ip", arguments.split(' '))
    }

    /// Lets it forward packets between its links, as a router does.
    pub fn forward(&self) -> Result<()> {
        self.run("sysctl", ["-q", "-w", "net.ipv4.ip_forward=1"])
    }

    /// Rewrites the destination of packets to the `service` (address, port) to that of the
    /// `endpoint`: of those that it forwards and of those of its own processes, as kube-proxy
    /// does.
    pub fn serve(&self, service: (&str, u16), endpoint: (&str, u16)) -> Result<()> {
        let rule =
            format!("ip daddr {} tcp dport {} dnat to {}:{}", service.0, service.1, endpoint.0, endpoint.1);
        let rules = format!(
            "table ip services {{
    chain prerouting {{ type nat hook prerouting priority -100; {rule}; }}
    chain output {{ type nat hook output priority -100; {rule}; }}
    chain postrouting {{ type nat hook postrouting priority 100; ct status dnat masquerade; }}
}}"
        );
        self.run("nft", [rules.as_str()])
    }

    fn run<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let program = need::on_path(program).with_context(|| format!("no {program}"))?;
        self.within(|| cache::step(program, |command| command.args(arguments)))
    }
}

/// One end of a link: where, its name there, and its address with the length of the net's prefix.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub namespace: &'a Namespace,
    pub link: &'a str,
    pub address: &'a str,
}

/// Joins two namespaces by a veth pair.
pub fn wire(one: End<'_>, other: End<'_>) -> Result<()> {
    let peer = other.namespace.holder.pid();
    one.namespace.ip(&format!("link add {} type veth peer name {} netns {peer}", one.link, other.link))?;
    for End { namespace, link, address } in [one, other] {
        namespace.ip(&format!("address add {address} dev {link}"))?;
        namespace.ip(&format!("link set {link} up"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::need::Need;
    use crate::scratch::Scratch;

    #[test]
    fn wired_and_gone() -> Result<()> {
        if !need::met("network namespaces", &[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let [one, router, other] =
            ["one", "router", "other"].map(|name| Namespace::new(scratch.path(), name));
        let (one, router, other) = (one?, router?, other?);
        wire(
            End { namespace: &one, link: "eth0", address: "10.78.1.2/24" },
            End { namespace: &router, link: "one", address: "10.78.1.1/24" },
        )?;
        wire(
            End { namespace: &other, link: "eth0", address: "10.78.2.2/24" },
            End { namespace: &router, link: "other", address: "10.78.2.1/24" },
        )?;
        router.ip("route add default via 10.78.2.2")?;
        router.forward()?;
        one.ip("route add default via 10.78.1.1")?;
        other.ip("route add default via 10.78.2.1")?;
        router.serve(("10.96.0.1", 80), ("10.78.2.2", 8080))?;
        let listener = other.within(|| Ok(TcpListener::bind("10.78.2.2:8080")?))?;
        for from in [&one, &router] {
            let mut client = from.within(|| Ok(TcpStream::connect("10.96.0.1:80")?))?;
            client.write_all(b"hello")?;
            drop(client);
            let mut got = String::new();
            listener.accept()?.0.read_to_string(&mut got)?;
            ensure!(got == "hello", "{got}");
        }
        let path = one.path();
        drop(one);
        ensure!(!path.exists(), "its holder lives on");
        Ok(())
    }
}
