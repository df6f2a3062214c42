//! Why what is inside TLS is not read.

use std::fmt;

use ktrace_tls::cipher::Suite;
use ktrace_tls::session::Closed;

use crate::counters::Lost;

/// Why a connection inside TLS is not read, and what protects its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Why not.
    pub why: Closed,
    /// The cipher suite, where it is known.
    pub suite: Option<Suite>,
}

impl Unread {
    pub(super) fn reason(self) -> Lost {
        match self.why {
            Closed::NoKey => Lost::TlsNoKey,
            Closed::Denied => Lost::TlsDenied,
            Closed::Ended => Lost::TlsEnded,
            Closed::Full => Lost::TlsWaitingFull,
        }
    }
}

/// The reason by its name, and the cipher where it matters: `tls_no_key chacha20`.
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().name())?;
        match self.suite {
            Some(suite) if self.why == Closed::NoKey => write!(f, " {}", suite.name()),
            _ => Ok(()),
        }
    }
}
