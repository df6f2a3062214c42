//! Free TCP ports on loopback.

use std::net::TcpListener;

use anyhow::Result;

/// `N` different ports that were free a moment ago.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
