//! What a client says to a proxy before its first request, and what the proxy answers: read to its
//! end, never kept.
//!
//! ```text
//!  SOCKS 5  (RFC 1928, 1929)         greeting ─▶ ◀─ method   [password ─▶ ◀─ status]   target ─▶ ◀─ reply
//!  SOCKS 4, 4a                       target ─▶ ◀─ reply
//!  HTTP CONNECT (RFC 9110, 9.3.6)    head ─▶ ◀─ head
//!  PROXY protocol 1, 2 (HAProxy)     one line, or a header with a length ─▶
//! ```
//!
//! No first request of Kafka begins as one of these: its first byte is the highest of its size, and
//! a size of 64 MiB or more is what SOCKS would make of it. Several may follow each other, as a
//! proxy is reached through another one. What is held of either side is the place in its message,
//! whatever the bytes say; names, passwords and heads are passed over.

use crate::counters::NotKafka;

/// A proxy before a proxy before a proxy: no client is known to speak to more.
const MAX_PREFACES: u8 = 4;

/// Ten ways to authenticate are registered, and clients offer one to three.
const MAX_METHODS: u8 = 16;

/// HTTP servers take heads of 8 to 16 KiB.
const MAX_HEAD_BYTES: u16 = 16 << 10;

/// With its CRLF (HAProxy's specification, section 2.1).
const MAX_LINE_BYTES: u16 = 107;

/// SOCKS 4 gives no bound to the user's id; a name of a host has 255 bytes at most.
const MAX_TEXT_BYTES: u16 = 512;

const CONNECT: &[u8] = b"CONNECT ";
const PROXY: &[u8] = b"PROXY ";
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const STATUS: &[u8] = b"HTTP/1.";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What a side is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The first byte of a preface, or of what lies behind all.
    Start,
    /// Nothing more is looked at on this side.
    Behind,
    /// This many bytes of no interest, then this.
    Skip(u32, Then),
    /// One byte that decides.
    Byte(Then),
    /// This many bytes of a signature were there.
    Signature(Signature, u8),
    /// A head, until an empty line: `passed` bytes were there, of which the last `matched` may
    /// begin its end.
    Head { passed: u16, matched: u8 },
    /// Text until `end`, at most `left` bytes more; then that.
    Text { end: u8, left: u16, then: Then },
    /// The two bytes of a length.
    Length(Option<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Connect,
    Proxy,
    Proxy2,
    Status,
}

impl Signature {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Connect => CONNECT,
            Self::Proxy => PROXY,
            Self::Proxy2 => PROXY_2,
            Self::Status => STATUS,
        }
    }
}

/// What the next byte means, or what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    End,
    Methods,
    /// A password, or the target.
    Message,
    UserLen,
    PasswordLen,
    Command,
    AddressType,
    DomainLen,
    Command4,
    /// The bytes of an IPv4 address: the target's name follows the user's where the first three are
    /// 0 and the last is not.
    Address4 {
        at: u8,
        zeros: bool,
    },
    Domain4,
    Command2,
    Length2,
    /// A proxy's: of SOCKS 5.
    Method,
    MethodChosen,
    StatusVersion,
    Status,
    Reply,
    ReplyCode,
    /// Of SOCKS 4.
    Reply4,
    ReplyCode4,
    /// Of HTTP: the first digit of the status.
    Class,
}

/// How far both sides are.
#[derive(Clone, Copy, Debug)]
pub struct Preface {
    client: At,
    proxy: At,
    /// How many the client has begun.
    begun: u8,
}

impl Default for Preface {
    fn default() -> Self {
        Self { client: At::Start, proxy: At::Behind, begun: 0 }
    }
}

impl Preface {
    /// Whether the client's next bytes may be part of one.
    pub fn is_open(&self) -> bool {
        self.client != At::Behind
    }

    /// Whether the client's next byte begins one, or its first request.
    pub fn is_at_start(&self) -> bool {
        self.client == At::Start
    }

    /// Whether the client has begun one.
    pub fn was_begun(&self) -> bool {
        self.begun > 0
    }

    /// Whether the client is behind one, and has said nothing yet that follows it.
    pub fn has_just_ended(&self) -> bool {
        self.begun > 0 && self.client == At::Start
    }

    /// Whether the proxy's answer is to come, or part of it.
    pub fn is_answered(&self) -> bool {
        self.proxy != At::Behind
    }

    /// The beginning was not seen, or bytes are missing: what comes is not read as one.
    pub fn close(&mut self) {
        (self.client, self.proxy) = (At::Behind, At::Behind);
    }

    /// Takes what the client sends, and gives what is behind it.
    pub fn client<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], NotKafka> {
        while self.client != At::Behind
            && let Some((&byte, _)) = bytes.split_first()
        {
            if self.client == At::Start {
                self.client = if is_socks(bytes) { self.begin(byte)? } else { At::Behind };
                if self.client == At::Behind {
                    break;
                }
            } else {
                (self.client, bytes) = step(self.client, bytes)?;
                continue;
            }
            bytes = bytes.get(1..).unwrap_or_default();
        }
        Ok(bytes)
    }

    /// Takes what the proxy answers, and gives what is behind it.
    pub fn proxy<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], NotKafka> {
        while self.proxy != At::Behind && !bytes.is_empty() {
            (self.proxy, bytes) = step(self.proxy, bytes)?;
            if self.proxy == At::Start {
                self.proxy = At::Behind;
            }
        }
        Ok(bytes)
    }

    /// The first byte of a preface, or of what is none.
    fn begin(&mut self, byte: u8) -> Result<At, NotKafka> {
        let (client, proxy) = match byte {
            5 => (At::Byte(Then::Methods), At::Byte(Then::Method)),
            4 => (At::Byte(Then::Command4), At::Byte(Then::Reply4)),
            b'C' => (At::Signature(Signature::Connect, 1), At::Signature(Signature::Status, 0)),
            b'P' => (At::Signature(Signature::Proxy, 1), At::Behind),
            b'\r' => (At::Signature(Signature::Proxy2, 1), At::Behind),
            _ => return Ok(At::Behind),
        };
        // Who speaks to the next proxy has heard the one before.
        if self.begun >= MAX_PREFACES || self.is_answered() {
            return Err(NotKafka::Preface);
        }
        self.begun = self.begun.saturating_add(1);
        self.proxy = proxy;
        Ok(client)
    }
}

/// Whether bytes that begin like a word to a SOCKS proxy go on like one. Else they are a request's
/// size: one of 64 MiB or more, which may come alone.
fn is_socks(bytes: &[u8]) -> bool {
    match *bytes {
        // Connect, and bind.
        [4, command, ..] => matches!(command, 1 | 2),
        [5, methods, ..] => (1..=MAX_METHODS).contains(&methods),
        _ => true,
    }
}

/// Goes on by at least one of `bytes`, which are not empty. [`At::Start`] is the end.
fn step(at: At, bytes: &[u8]) -> Result<(At, &[u8]), NotKafka> {
    let Some((&byte, behind)) = bytes.split_first() else { return Ok((at, bytes)) };
    let next = match at {
        At::Start | At::Behind => at,
        At::Skip(left, then) => {
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let left = left.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
            let at = if left == 0 { after(then) } else { At::Skip(left, then) };
            return Ok((at, bytes.get(here..).unwrap_or_default()));
        }
        At::Byte(then) => after_byte(then, byte)?,
        At::Signature(signature, seen) => {
            let text = signature.text();
            let seen = usize::from(seen);
            if text.get(seen) != Some(&byte) {
                return Err(NotKafka::NoRequest);
            }
            match (seen.saturating_add(1) == text.len(), signature) {
                (false, _) => {
                    At::Signature(signature, u8::try_from(seen).unwrap_or(u8::MAX).saturating_add(1))
                }
                (true, Signature::Connect) => At::Head { passed: 0, matched: 0 },
                (true, Signature::Proxy) => At::Text { end: b'\n', left: MAX_LINE_BYTES, then: Then::End },
                (true, Signature::Proxy2) => At::Byte(Then::Command2),
                // The minor version and a space.
                (true, Signature::Status) => At::Skip(2, Then::Class),
            }
        }
        At::Head { passed, matched } => {
            if passed >= MAX_HEAD_BYTES {
                return Err(NotKafka::Preface);
            }
            let matched = match HEAD_END.get(usize::from(matched)) {
                Some(wanted) if *wanted == byte => matched.saturating_add(1),
                // No other prefix of it ends with a CR.
                _ => u8::from(byte == b'\r'),
            };
            if usize::from(matched) == HEAD_END.len() {
                At::Start
            } else {
                At::Head { passed: passed.saturating_add(1), matched }
            }
        }
        At::Text { end, then, .. } if byte == end => after(then),
        At::Text { left: 0, .. } => return Err(NotKafka::Preface),
        At::Text { end, left, then } => At::Text { end, left: left.saturating_sub(1), then },
        At::Length(None) => At::Length(Some(byte)),
        At::Length(Some(high)) => skip(u16::from_be_bytes([high, byte]).into(), Then::End),
    };
    Ok((next, behind))
}

/// What comes when something is over.
fn after(then: Then) -> At {
    match then {
        Then::End => At::Start,
        Then::Length2 => At::Length(None),
        Then::Domain4 => At::Text { end: 0, left: MAX_TEXT_BYTES, then: Then::End },
        then => At::Byte(then),
    }
}

fn skip(bytes: u32, then: Then) -> At {
    if bytes == 0 { after(then) } else { At::Skip(bytes, then) }
}

/// The addresses of SOCKS 5, with the port behind them.
fn address(kind: u8) -> Result<At, NotKafka> {
    match kind {
        1 => Ok(skip(4 + 2, Then::End)),
        3 => Ok(At::Byte(Then::DomainLen)),
        4 => Ok(skip(16 + 2, Then::End)),
        _ => Err(NotKafka::Preface),
    }
}

/// What comes next, by this byte.
fn after_byte(then: Then, byte: u8) -> Result<At, NotKafka> {
    let length = u32::from(byte);
    Ok(match (then, byte) {
        (Then::End | Then::Domain4 | Then::Length2, _) => At::Start,
        (Then::Methods, 1..=MAX_METHODS) => skip(length, Then::Message),
        (Then::Message, 1) => At::Byte(Then::UserLen),
        (Then::Message, 5) => At::Byte(Then::Command),
        (Then::UserLen, _) => skip(length, Then::PasswordLen),
        (Then::PasswordLen, _) => skip(length, Then::Message),
        // 1 is to connect; a zero follows.
        (Then::Command, 1) => skip(1, Then::AddressType),
        (Then::AddressType, kind) => address(kind)?,
        (Then::DomainLen, _) => skip(length.saturating_add(2), Then::End),
        // The port comes first.
        (Then::Command4, 1) => skip(2, Then::Address4 { at: 0, zeros: true }),
        (Then::Address4 { at: 3, zeros }, last) => {
            let then = if zeros && last != 0 { Then::Domain4 } else { Then::End };
            At::Text { end: 0, left: MAX_TEXT_BYTES, then }
        }
        (Then::Address4 { at, zeros }, byte) => {
            At::Byte(Then::Address4 { at: at.saturating_add(1), zeros: zeros && byte == 0 })
        }
        // Version 2, for itself or for another; a byte of families follows, and the length of the
        // rest.
        (Then::Command2, 0x20 | 0x21) => skip(1, Then::Length2),
        (Then::Method, 5) => At::Byte(Then::MethodChosen),
        (Then::MethodChosen, 0) => At::Byte(Then::Reply),
        (Then::MethodChosen, 2) => At::Byte(Then::StatusVersion),
        (Then::MethodChosen, 0xff) => return Err(NotKafka::ProxyRefused),
        (Then::StatusVersion, 1) => At::Byte(Then::Status),
        (Then::Status, 0) => At::Byte(Then::Reply),
        (Then::Reply, 5) => At::Byte(Then::ReplyCode),
        (Then::ReplyCode, 0) => skip(1, Then::AddressType),
        (Then::Reply4, 0) => At::Byte(Then::ReplyCode4),
        // Granted; a port and an address follow.
        (Then::ReplyCode4, 0x5a) => skip(2 + 4, Then::End),
        (Then::Class, b'2') => At::Head { passed: 0, matched: 0 },
        // Other protocols begin with 4 and 5 too.
        (Then::Methods | Then::Command4, _) => return Err(NotKafka::NoRequest),
        (Then::Status | Then::ReplyCode | Then::ReplyCode4, _) | (Then::Class, b'0'..=b'9') => {
            return Err(NotKafka::ProxyRefused);
        }
        // Among them GSSAPI, which may wrap all that follows (RFC 1961).
        _ => return Err(NotKafka::Preface),
    })
}
