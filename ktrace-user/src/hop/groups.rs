//! Which consumer group a client is a member of.
//!
//! A Fetch names no group. Group requests do, but on another connection; the two are joined by who sends them: the same
//! process (or, in a capture file, the same address) under the same client id.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Who sends requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Speaker {
    Process(u32),
    /// Where the process is not known.
    Address(IpAddr),
}

#[derive(Debug)]
enum Membership {
    One(Arc<str>),
    /// Several groups under one client id: which of them a Fetch is for cannot be told.
    Several,
}

/// Clients kept at once; past it they are learnt anew, with their next heartbeat.
const MAX_CLIENTS: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Groups {
    clients: HashMap<(Speaker, Option<Arc<str>>), Membership>,
}

impl Groups {
    /// A member of this group was heard. Returns whether that is news.
    pub fn learn(&mut self, speaker: Speaker, client_id: Option<Arc<str>>, group: &str) -> bool {
        let client = (speaker, client_id);
        match self.clients.get_mut(&client) {
            Some(Membership::Several) => return false,
            Some(Membership::One(name)) if **name == *group => return false,
            Some(known) => {
                *known = Membership::Several;
                return true;
            }
            None => {}
        }
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.clear();
        }
        self.clients.insert(client, Membership::One(group.into()));
        true
    }

    /// The group of a client, where it is known and the only one.
    #[must_use]
    pub fn of(&self, speaker: Speaker, client_id: Option<Arc<str>>) -> Option<Arc<str>> {
        match self.clients.get(&(speaker, client_id))? {
            Membership::One(group) => Some(Arc::clone(group)),
            Membership::Several => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_two_groups_is_of_none() {
        let mut groups = Groups::default();
        let me = || Some("me".into());
        assert!(groups.learn(Speaker::Process(1), me(), "billing"));
        assert!(!groups.learn(Speaker::Process(1), me(), "billing"));
        groups.learn(Speaker::Process(2), me(), "audit");
        assert_eq!(groups.of(Speaker::Process(1), me()).as_deref(), Some("billing"));
        assert_eq!(groups.of(Speaker::Process(1), None), None);
        assert!(groups.learn(Speaker::Process(1), me(), "shipping"));
        assert_eq!(groups.of(Speaker::Process(1), me()), None);
        assert_eq!(groups.of(Speaker::Process(2), me()).as_deref(), Some("audit"));
    }
}
