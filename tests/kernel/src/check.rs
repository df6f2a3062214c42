//! Holds what was seen against what was said.

use ktrace_user::seen::Ends;

use crate::capture::{Seen, Sockets, Way};
use crate::talk::{End, Sign, Talk};

/// A packet's largest piece, which only one of more than 64 KiB has.
const BIG: usize = 65_536;

#[derive(Default)]
pub struct Verdict {
    /// What is wrong, in words; nothing if all is right.
    pub wrong: Vec<String>,
    /// Servers' ends whose process is not known. (A client's has to be.)
    pub ownerless: u32,
    /// Servers' ends.
    pub servers: u32,
    /// Connections, Fast Open aside, and bytes, of whose beginning the server's end shows nothing:
    /// what comes on the SYN, or in place of the ACK of the handshake when that was lost or
    /// overtaken, comes when there is only the listener.
    pub early: (u32, u64),
    /// Bytes of both directions, of all ends.
    pub bytes: u64,
    /// Bytes that passed again.
    pub repeated: u64,
}

impl Verdict {
    /// One connection at both of its ends.
    pub fn hold(&mut self, talk: &Talk, sockets: &Sockets) {
        let ends = Ends { client: talk.ends.0, broker: talk.ends.1 };
        if talk.sign == Sign::OtherSockets {
            let at_ends: Vec<&Seen> = sockets.values().filter(|seen| seen.ends == Some(ends)).collect();
            if at_ends.len() != 2 {
                self.say(talk, &format!("{} sockets were seen, not two", at_ends.len()));
            }
            for seen in at_ends {
                let known = [talk.client.pid, talk.server.pid];
                if seen.owners.iter().any(|pid| !known.contains(pid)) {
                    self.say(talk, &format!("owners {:?} are not among {known:?}", seen.owners));
                }
                self.socket(talk, "an end", seen);
            }
            return;
        }
        self.end(talk, "client", talk.client, ends, sockets);
        self.end(talk, "server", talk.server, ends, sockets);
    }

    fn end(&mut self, talk: &Talk, which: &str, end: End, ends: Ends, sockets: &Sockets) {
        let Some(seen) = sockets.get(&end.cookie) else {
            return self.say(talk, &format!("{which}: not seen"));
        };
        if seen.ends != Some(ends) {
            self.say(talk, &format!("{which}: {:?}, not {ends:?}", seen.ends));
        }
        if which == "server" {
            self.servers += 1;
            self.ownerless += u32::from(seen.owners.is_empty());
        } else if seen.owners.is_empty() {
            self.say(talk, &format!("{which}: no owner"));
        }
        if seen.owners.iter().any(|pid| *pid != end.pid) {
            self.say(talk, &format!("{which}: owners {:?}, not {}", seen.owners, end.pid));
        }
        self.socket(talk, which, seen);
    }

    fn socket(&mut self, talk: &Talk, which: &str, seen: &Seen) {
        for (direction, way, payload) in [
            ("to the server", &seen.to_broker, talk.to_broker),
            ("to the client", &seen.to_client, talk.to_client),
        ] {
            self.bytes += way.bytes.len() as u64;
            self.repeated += way.passed.saturating_sub(way.bytes.len() as u64);
            let said = payload.bytes();
            // What comes before the server's socket is there is the listener's, in the kernel's eyes.
            let early = if which == "server" && direction == "to the server" && said.ends_with(&way.bytes) {
                said.len() - way.bytes.len()
            } else {
                0
            };
            // Where what follows shows it, it is a gap: of as many bytes, and the FIN's number.
            if early > 0 && way.gaps.0 <= early as u64 + 1 {
                self.early.0 += u32::from(!matches!(talk.sign, Sign::SynData(_)));
                self.early.1 += early as u64;
            } else if let Some(why) = differs(way, &said) {
                self.say(talk, &format!("{which}: {direction}: {why}"));
            }
        }
        let missing = match talk.sign {
            // An accepted socket that resets has given its port back before (`inet_put_port` of
            // `tcp_set_state`), so it is not recognised.
            Sign::Reset { by_client } if !seen.reset && (by_client || which == "client") => "no RST",
            Sign::SynData(_) if !seen.syn_data && which == "client" => "no payload on the SYN",
            Sign::BigPacket if seen.largest < BIG => "no packet of more than 64 KiB",
            _ => return,
        };
        self.say(talk, &format!("{which}: {missing} was seen"));
    }

    fn say(&mut self, talk: &Talk, what: &str) {
        self.wrong.push(format!("{}: {what}", talk.name));
    }
}

/// How what was seen of a direction differs from what was said.
fn differs(way: &Way, bytes: &[u8]) -> Option<String> {
    if way.gaps.1 > 0 {
        return Some(format!("{} gaps of {} bytes of {}", way.gaps.1, way.gaps.0, bytes.len()));
    }
    if way.bytes == bytes {
        return None;
    }
    let same = way.bytes.iter().zip(bytes).take_while(|(seen, said)| seen == said).count();
    Some(format!("{} bytes of {} were seen, alike up to {same}", way.bytes.len(), bytes.len()))
}
