//! NSS key logs (`SSLKEYLOGFILE`, draft-ietf-tls-keylogfile): secrets of connections by the random of their client.

use std::collections::HashMap;

use crate::secret::Secrets;

/// Secrets by client random, bounded. Those that were added first go first.
#[derive(Default)]
pub struct KeyLog {
    secrets: HashMap<[u8; 32], Secrets>,
}

impl KeyLog {
    /// Takes a line of a key log. Returns the client random that it is of, if it is a line that is of use.
    pub fn line(&mut self, _line: &[u8]) -> Option<[u8; 32]> {
        None
    }

    /// What is known of a connection.
    #[must_use]
    pub fn secrets(&self, client_random: &[u8; 32]) -> Option<&Secrets> {
        self.secrets.get(client_random)
    }

    /// All of them: for connections whose handshake was not seen.
    pub fn all(&self) -> impl Iterator<Item = &Secrets> {
        self.secrets.values()
    }
}
