//! NSS key logs (`SSLKEYLOGFILE`, draft-ietf-tls-keylogfile): secrets of connections by the random
//! of their client.
//!
//! A line is a label, the client's random, and a secret, in hexadecimal. What a line says is kept
//! or counted; no line is ever given back or named, as each holds a secret.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use zeroize::Zeroizing;

use crate::secret::{MASTER_BYTES, Secrets};

/// Connections that are remembered: a broker's log of a day, and at most [`MAX_BYTES`] with all
/// that a line can hold.
pub const MAX_CONNECTIONS: usize = 65_536;
/// Bytes that they take.
pub const MAX_BYTES: usize = 32 << 20;
/// The longest line that is of use has 194 bytes. Lines of other labels may be longer, and are
/// passed over.
pub const MAX_LINE: usize = 1024;

/// What a connection takes beside its secrets: its places in the table, which is half empty at
/// worst, and in the order.
const CONNECTION_BYTES: usize = 2 * (size_of::<[u8; 32]>() + size_of::<Secrets>()) + size_of::<[u8; 32]>();

/// Secrets by client random, bounded. Those that were added first go first.
pub struct KeyLog {
    secrets: HashMap<[u8; 32], Secrets>,
    /// In the order in which they were added.
    order: VecDeque<[u8; 32]>,
    secret_bytes: usize,
    most_bytes: usize,
    counts: Counts,
}

impl Default for KeyLog {
    fn default() -> Self {
        Self::within(MAX_BYTES)
    }
}

/// Without the secrets.
impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLog").field("connections", &self.len()).field("counts", &self.counts).finish()
    }
}

/// What was met in key logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines with a secret of use.
    pub taken: u64,
    /// Lines of other labels, as other tools need them.
    pub ignored: u64,
    /// Lines that are none of a key log.
    pub bad: u64,
    /// Connections whose secrets gave way to later ones.
    pub forgotten: u64,
}

/// What a line is.
enum Line<'a> {
    /// A comment, or nothing.
    Blank,
    /// Of a label that is of no use here.
    Other,
    Bad,
    Secret(Kind, [u8; 32], &'a [u8]),
}

#[derive(Clone, Copy)]
enum Kind {
    Master,
    ClientTraffic,
    ServerTraffic,
    ClientHandshake,
    ServerHandshake,
}

impl KeyLog {
    /// Holds at most `most_bytes`. The latest connection is kept whatever it takes.
    #[must_use]
    pub fn within(most_bytes: usize) -> Self {
        Self {
            secrets: HashMap::new(),
            order: VecDeque::new(),
            secret_bytes: 0,
            most_bytes,
            counts: Counts::default(),
        }
    }

    /// Takes a line of a key log, with or without its end. Returns the client random that it is of,
    /// if it has said anything new of use.
    pub fn line(&mut self, line: &[u8]) -> Option<[u8; 32]> {
        let (kind, random, secret) = match read(line) {
            Line::Blank => return None,
            Line::Other => {
                self.counts.ignored = self.counts.ignored.saturating_add(1);
                return None;
            }
            Line::Bad => return self.bad(),
            Line::Secret(kind, random, secret) => (kind, random, secret),
        };
        let Some(secret) = secret_of(kind, secret) else { return self.bad() };
        self.counts.taken = self.counts.taken.saturating_add(1);
        self.add(kind, random, secret).then_some(random)
    }

    /// Takes all lines of a text that is whole, such as a Decryption Secrets Block. Returns how
    /// many have said anything new of use.
    pub fn lines(&mut self, text: &[u8]) -> usize {
        text.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| self.line(line).is_some()).count()
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

    /// Connections whose secrets are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    /// Whether no connection is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// What it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.secrets.len().saturating_mul(CONNECTION_BYTES).saturating_add(self.secret_bytes)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts a line that was passed over unread, as it is too long for one.
    pub fn bad(&mut self) -> Option<[u8; 32]> {
        self.counts.bad = self.counts.bad.saturating_add(1);
        None
    }

    /// Whether this is news. A secret that is named again with another value is the later one.
    fn add(&mut self, kind: Kind, random: [u8; 32], secret: Zeroizing<Vec<u8>>) -> bool {
        if !self.secrets.contains_key(&random) {
            self.order.push_back(random);
        }
        let known = self.secrets.entry(random).or_default();
        let place = match kind {
            Kind::Master => &mut known.master,
            Kind::ClientTraffic => &mut known.client_traffic,
            Kind::ServerTraffic => &mut known.server_traffic,
            Kind::ClientHandshake => &mut known.client_handshake,
            Kind::ServerHandshake => &mut known.server_handshake,
        };
        if place.as_ref() == Some(&secret) {
            return false;
        }
        let before = place.as_ref().map_or(0, |secret| secret.capacity());
        self.secret_bytes = self.secret_bytes.saturating_sub(before).saturating_add(secret.capacity());
        *place = Some(secret);
        while self.secrets.len() > MAX_CONNECTIONS || self.held_bytes() > self.most_bytes {
            if self.secrets.len() <= 1 || !self.forget_first() {
                break;
            }
        }
        true
    }

    fn forget_first(&mut self) -> bool {
        let Some(secrets) = self.order.pop_front().and_then(|random| self.secrets.remove(&random)) else {
            return false;
        };
        let bytes = secrets.all().map(|secret| secret.capacity()).sum();
        self.secret_bytes = self.secret_bytes.saturating_sub(bytes);
        self.counts.forgotten = self.counts.forgotten.saturating_add(1);
        true
    }
}

fn read(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Line::Blank;
    }
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let (label, random, secret) = (words.next(), words.next(), words.next());
    let (Some(label), Some(random), Some(secret), None) = (label, random, secret, words.next()) else {
        return Line::Bad;
    };
    let kind = match label {
        b"CLIENT_RANDOM" => Kind::Master,
        b"CLIENT_TRAFFIC_SECRET_0" => Kind::ClientTraffic,
        b"SERVER_TRAFFIC_SECRET_0" => Kind::ServerTraffic,
        b"CLIENT_HANDSHAKE_TRAFFIC_SECRET" => Kind::ClientHandshake,
        b"SERVER_HANDSHAKE_TRAFFIC_SECRET" => Kind::ServerHandshake,
        // Others are exporters' secrets, 0-RTT, ECH, and RSA's, whatever may come.
        _ => {
            let is_label = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
            return if label.iter().all(is_label) { Line::Other } else { Line::Bad };
        }
    };
    let mut bytes = [0; 32];
    if line.len() > MAX_LINE || random.len() != 64 || !hexadecimal(random, bytes.iter_mut()) {
        return Line::Bad;
    }
    Line::Secret(kind, bytes, secret)
}

/// `None` where it has a length that no secret of its kind has, or is no hexadecimal number.
fn secret_of(kind: Kind, digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = match (kind, digits.len()) {
        (Kind::Master, 96) => MASTER_BYTES,
        (Kind::Master, _) => return None,
        // With SHA-256, and with SHA-384.
        (_, 64) => 32,
        (_, 96) => 48,
        _ => return None,
    };
    let mut secret = Zeroizing::new(vec![0; bytes]);
    hexadecimal(digits, secret.iter_mut()).then_some(secret)
}

/// Reads two digits for each byte. Whether all are digits.
fn hexadecimal<'a>(digits: &[u8], into: impl Iterator<Item = &'a mut u8>) -> bool {
    let (pairs, _) = digits.as_chunks::<2>();
    pairs.iter().zip(into).all(|([high, low], byte)| {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
        *byte = high << 4 | low;
        true
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte.saturating_sub(b'0')),
        b'a'..=b'f' => Some(byte.saturating_sub(b'a').saturating_add(10)),
        b'A'..=b'F' => Some(byte.saturating_sub(b'A').saturating_add(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(number: u32) -> [u8; 32] {
        let mut random = [0xab; 32];
        random[28..].copy_from_slice(&number.to_be_bytes());
        random
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn line(label: &str, number: u32, secret: &[u8]) -> String {
        format!("{label} {} {}", hex(&random(number)), hex(secret))
    }

    #[test]
    fn lines_of_use_are_kept_by_client_random() {
        let mut log = KeyLog::default();
        let text = [
            "# SSL/TLS secrets log file, generated by OpenSSL".to_owned(),
            String::new(),
            line("CLIENT_RANDOM", 1, &[1; 48]),
            line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 2, &[2; 48]),
            line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 2, &[3; 48]),
            line("CLIENT_TRAFFIC_SECRET_0", 2, &[4; 48]).to_uppercase(),
            line("EXPORTER_SECRET", 2, &[9; 48]),
            line("CLIENT_EARLY_TRAFFIC_SECRET", 2, &[9; 48]),
            format!("RSA 0123456789abcdef {}", hex(&[9; 48])),
            line("SERVER_TRAFFIC_SECRET_0", 2, &[5; 32]),
        ];
        for end in ["\n", "\r\n"] {
            log.lines(text.join(end).as_bytes());
        }
        let counts = Counts { taken: 10, ignored: 6, bad: 0, forgotten: 0 };
        assert_eq!((log.len(), log.all().count(), log.counts()), (2, 2, counts));
        let (one, two) = (log.secrets(&random(1)).unwrap(), log.secrets(&random(2)).unwrap());
        assert_eq!(one.master.as_deref(), Some(&vec![1; 48]));
        assert_eq!(two.client_handshake.as_deref(), Some(&vec![2; 48]));
        assert_eq!(two.server_handshake.as_deref(), Some(&vec![3; 48]));
        assert_eq!(two.client_traffic.as_deref(), Some(&vec![4; 48]));
        assert_eq!(two.server_traffic.as_deref(), Some(&vec![5; 32]));
        assert!(one.client_traffic.is_none() && two.master.is_none());
        assert!(log.secrets(&random(3)).is_none());
    }

    #[test]
    fn only_news_are_reported() {
        let mut log = KeyLog::default();
        let first = line("CLIENT_RANDOM", 1, &[1; 48]);
        assert_eq!(log.line(first.as_bytes()), Some(random(1)));
        assert_eq!(log.line(first.as_bytes()), None);
        assert_eq!(log.line(line("CLIENT_RANDOM", 1, &[2; 48]).as_bytes()), Some(random(1)));
        assert_eq!(log.secrets(&random(1)).unwrap().master.as_deref(), Some(&vec![2; 48]));
    }

    #[test]
    fn what_is_no_line_is_counted() {
        let good = line("CLIENT_RANDOM", 1, &[1; 48]);
        let bad = [
            good[1..].replace("LIENT", "lient"),
            good[..good.len() - 1].to_owned(),
            format!("{good} more"),
            good.replace("0101", "01g1"),
            good.replace("CLIENT_RANDOM ab", "CLIENT_RANDOM "),
            format!("{good}01"),
            line("CLIENT_TRAFFIC_SECRET_0", 1, &[1; 20]),
            line("CLIENT_RANDOM", 1, &[1; 32]),
            "\u{0}\u{1}\u{2}".to_owned(),
            "hello".to_owned(),
            format!("CLIENT_RANDOM {} ", "a".repeat(2 * MAX_LINE)),
            "CLIENT_RANDOM\u{a0}x y".to_owned(),
        ];
        let mut log = KeyLog::default();
        for (count, bad) in (1..).zip(&bad) {
            assert_eq!(log.line(bad.as_bytes()), None, "{bad}");
            assert_eq!(log.counts(), Counts { bad: count, ..Counts::default() }, "{bad}");
        }
        assert!(log.is_empty());
    }

    #[test]
    fn the_first_are_forgotten_past_the_bound() {
        let mut log = KeyLog::default();
        let labels = ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0", "CLIENT_RANDOM"];
        let all = u32::try_from(MAX_CONNECTIONS).unwrap() + 100;
        for number in 0..all {
            for label in labels {
                assert!(log.line(line(label, number, &[7; 48]).as_bytes()).is_some());
            }
        }
        assert!(log.len() <= MAX_CONNECTIONS && log.len() > MAX_CONNECTIONS / 2);
        assert!(log.held_bytes() <= MAX_BYTES);
        assert_eq!(log.counts().forgotten, u64::from(all) - log.len() as u64);
        assert!(log.secrets(&random(0)).is_none());
        assert!(log.secrets(&random(all - 1)).is_some());
        assert_eq!(log.order.len(), log.len());
        let held: usize = log.all().flat_map(Secrets::all).map(|secret| secret.capacity()).sum();
        assert_eq!(log.secret_bytes, held);
    }

    #[test]
    fn no_secret_is_shown() {
        let mut log = KeyLog::default();
        log.line(line("CLIENT_RANDOM", 1, &[0xc5; 48]).as_bytes());
        let shown = format!("{log:?}");
        assert!(
            shown.contains("connections: 1") && !shown.contains("c5") && !shown.contains("197"),
            "{shown}"
        );
    }

    #[test]
    fn a_smaller_bound_holds() {
        let mut log = KeyLog::within(10_000);
        for number in 0..1000 {
            log.line(line("CLIENT_RANDOM", number, &[7; 48]).as_bytes());
            assert!(log.held_bytes() <= 10_000 && log.secrets(&random(number)).is_some());
        }
        let mut log = KeyLog::within(0);
        log.line(line("CLIENT_RANDOM", 1, &[7; 48]).as_bytes());
        assert_eq!(log.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut log = KeyLog::default();
            log.lines(&text);
            prop_assert!(log.is_empty());
        }

        /// Lines with a byte changed, or cut.
        #[test]
        fn damaged_lines_are_read(at in 0_usize..180, byte: u8, cut in 0_usize..200) {
            let mut line = line("SERVER_TRAFFIC_SECRET_0", 1, &[1; 48]).into_bytes();
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            line.truncate(cut);
            KeyLog::default().lines(&line);
        }
    }
}
