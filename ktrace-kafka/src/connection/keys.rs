//! A connection inside TLS, to whoever has its keys: what it lacks, what it is given, and why it is
//! not read.

use ktrace_tls::Sender;
use ktrace_tls::sample::FoundKey;
use ktrace_tls::secret::Secrets;
use ktrace_tls::session::{Closed, Plain, Session};

use super::Connection;
use super::exchanges::Speaks;
use super::scratch::Scratch;
use super::unread::Unread;
use crate::counters::Lost;
use crate::sink::Sink;

impl Connection {
    /// From here on what is inside TLS is read, should it turn out to be TLS.
    pub fn read_tls(&mut self) {
        self.reads_tls = true;
    }

    /// What is known of a connection that is TLS and is read: which keys it lacks, and which
    /// records are held for want of them.
    #[must_use]
    #[inline]
    pub fn tls(&self) -> Option<&Session> {
        self.inside.as_deref()
    }

    /// Why a connection that is [`Speaks::Tls`] is not read, though that was wanted.
    #[must_use]
    pub fn tls_unread(&self) -> Option<Unread> {
        self.unread
    }

    /// Does something to the session of the connection's TLS, such as giving it secrets, and reads
    /// what it opens. `None` where it has none.
    pub fn open_tls<R>(
        &mut self,
        act: impl FnOnce(&mut Session, &mut dyn FnMut(Sender, Plain<'_>)) -> R,
        scratch: &mut Scratch,
        sink: &mut impl Sink,
    ) -> Option<R> {
        let (_, mut halves) = self.stream(Sender::Client, scratch, sink);
        let done = halves.open(act);
        self.settle(scratch);
        done
    }

    /// Secrets of the connection's TLS. Returns whether they opened anything, or may.
    pub fn take_secrets(&mut self, secrets: &Secrets, scratch: &mut Scratch, sink: &mut impl Sink) -> bool {
        self.open_tls(|session, mut give| session.take_secrets(secrets, &mut give), scratch, sink)
            .unwrap_or(false)
    }

    /// A key that opens a record of the connection's TLS. Returns whether it does.
    pub fn take_key(&mut self, key: FoundKey, scratch: &mut Scratch, sink: &mut impl Sink) -> bool {
        self.open_tls(|session, mut give| session.take_key(key, &mut give), scratch, sink).unwrap_or(false)
    }

    /// Gives up the records that are held for want of keys. Keys are still wanted for those that
    /// follow.
    pub fn shed_tls(&mut self, scratch: &mut Scratch) {
        if let Some(session) = &mut self.inside {
            // A handshake's own records are no loss.
            let lacks = !session.lacks().is_empty();
            if session.shed() && lacks {
                scratch.counters.lose(Lost::TlsWaitingFull);
            }
        }
    }

    /// What is inside TLS is not wanted.
    pub fn leave_tls(&mut self, scratch: &mut Scratch) {
        self.inside = None;
        self.exchanges.speaks = Speaks::Tls;
        self.settle(scratch);
    }

    /// No key will come for what of the connection's TLS lacks one.
    pub fn give_up_tls(&mut self, why: Closed, scratch: &mut Scratch, sink: &mut impl Sink) {
        let (_, mut halves) = self.stream(Sender::Client, scratch, sink);
        halves.open(|session, mut give| session.give_up(why, &mut give));
        self.settle(scratch);
    }
}
