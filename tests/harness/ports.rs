//! Free TCP ports on loopback.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

/// What this process has given away: whoever asked may not have bound it yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// `N` different ports that were free a moment ago, none of which an earlier call returned.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Ports that were refused stay bound until the end: the kernel would offer them again.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        loop {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            *port = listener.local_addr()?.port();
            held.push(listener);
            if given.insert(*port) {
                break;
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as it takes for the kernel to offer some of them again.
    #[test]
    fn no_port_is_returned_twice() {
        let mut all = BTreeSet::new();
        for _ in 0..400 {
            assert!(free::<8>().unwrap().into_iter().all(|port| all.insert(port)));
        }
    }
}
