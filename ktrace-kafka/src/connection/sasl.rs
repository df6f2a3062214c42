//! Raw SASL tokens: frames without any header, of which nothing is kept.
//!
//! ```text
//!  client                                     broker
//!  SaslHandshake v0 (or, in 0.9, nothing) ─▶
//!                                          ◀─ its response
//!  size, token ─▶                          ◀─ size, token      as often as the mechanism wants
//!  the first request ─▶
//! ```
//!
//! From version 1 of SaslHandshake on tokens travel in SaslAuthenticate (KIP-152).

use super::found::{Found, request_is_plausible};
use super::pending::Pending;
use crate::protocol::api::{Api, key};
use crate::protocol::header::{self, RequestHeader};

/// The largest token that a broker takes by default (`sasl.server.max.receive.size`).
const MAX_TOKEN_BYTES: usize = 512 << 10;

/// Tokens of one authentication: no mechanism needs more than a few.
const MAX_TOKENS: u32 = 64;

/// What is known of the tokens of a connection.
#[derive(Default)]
pub struct Tokens {
    /// The client may send one where a request could stand.
    expected: bool,
    /// Those that the client has sent since.
    sent: u32,
    /// Those that the broker has not answered. It need not answer the last.
    unanswered: u32,
}

/// What a frame of the client is, where tokens are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Token,
    Request,
    Neither,
}

impl Tokens {
    /// A SaslHandshake v0 was sent, or a token at once.
    pub fn expect(&mut self) {
        *self = Self { expected: true, sent: 0, unanswered: 0 };
    }

    /// The broker refused the mechanism.
    pub fn refuse(&mut self) {
        *self = Self::default();
    }

    pub fn are_expected(&self) -> bool {
        self.expected
    }

    /// The client sends a frame. The first that can be a request ends the authentication: tokens
    /// are a mechanism's own text or begin with a byte of their own, and would have to name an API,
    /// a version, a printable client id and a body of this API.
    pub fn take(&mut self, frame: &[u8], broken: bool) -> Sent {
        if !self.expected {
            return Sent::Request;
        }
        if is_request(frame, broken) {
            self.expected = false;
            return Sent::Request;
        }
        if frame.len() > MAX_TOKEN_BYTES || self.sent >= MAX_TOKENS {
            self.expected = false;
            return Sent::Neither;
        }
        self.sent = self.sent.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        Sent::Token
    }

    /// Whether a frame of the broker is a token: tokens are answered in their order, before the
    /// requests behind them, the first of which is `oldest`.
    pub fn answer(&mut self, frame: &[u8], oldest: Option<&Pending>, may_have_surplus: bool) -> bool {
        if self.unanswered == 0 {
            return false;
        }
        let answers = |pending: &Pending| {
            header::correlation_id(frame)
                .is_ok_and(|id| pending.is_answered_by(id, &Found::whole(frame, may_have_surplus), &mut 0))
        };
        if oldest.is_some_and(answers) {
            self.unanswered = 0;
            return false;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        true
    }
}

fn is_request(frame: &[u8], broken: bool) -> bool {
    let Ok((head, _)) = RequestHeader::read(frame) else { return false };
    let len = if broken { usize::MAX } else { frame.len() };
    Api::of(head.api_key).is_some_and(|api| api.check(head.version).is_ok())
        && head.client_id.is_none_or(|id| !id.contains(char::is_control))
        && request_is_plausible(
            &Found { bytes: frame, len, first: true, may_have_surplus: false },
            None,
            &mut 0,
        )
}

/// Whether tokens follow this request.
pub fn announces_tokens(header: &RequestHeader<'_>) -> bool {
    header.api_key == key::SASL_HANDSHAKE && header.version == 0
}

/// Whether the broker refuses the mechanism, so that no tokens follow.
pub fn is_refused(pending: &Pending, response: &[u8]) -> bool {
    // Correlation id, then the error code.
    pending.api_key == key::SASL_HANDSHAKE && !matches!(response.get(4..6), Some([0, 0]))
}

/// Whether a connection begins with a GSSAPI token, as those of 0.9 clients do: an ASN.1
/// application tag whose length is that of the frame.
pub fn begins_with_gssapi(bytes: &[u8]) -> bool {
    let Some((size, token)) = bytes.split_first_chunk() else { return false };
    let len = match token {
        [0x60, 0x82, high, low, ..] => u32::from(u16::from_be_bytes([*high, *low])).saturating_add(4),
        [0x60, 0x81, len, ..] => u32::from(*len).saturating_add(3),
        [0x60, len @ 0..=0x7f, ..] => u32::from(*len).saturating_add(2),
        _ => return false,
    };
    u32::from_be_bytes(*size) == len
}
