//! Requests that fail: the first of a row is told in the agent's log, and its end.

/// Of one signal.
#[derive(Debug)]
pub(super) struct Failing {
    signal: &'static str,
    /// Why the last request failed, if it did.
    why: Option<String>,
}

impl Failing {
    pub fn new(signal: &'static str) -> Self {
        Self { signal, why: None }
    }

    /// How a request has ended. Returns whether that was told.
    pub fn note(&mut self, failure: Option<String>) -> bool {
        let signal = self.signal;
        let before = std::mem::replace(&mut self.why, failure);
        match (before, &self.why) {
            (None, Some(why)) => tracing::warn!("OTLP export of {signal} fails, they are being lost: {why}"),
            (Some(_), None) => tracing::warn!("OTLP export of {signal} works again"),
            _ => return false,
        }
        true
    }

    /// Why the last request failed, if it did.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_at_its_ends() {
        let mut failing = Failing::new("spans");
        let ends = [None, Some("away"), Some("refused"), None, None, Some("away")];
        let told = ends.map(|end| failing.note(end.map(str::to_owned)));
        assert_eq!(told, [false, true, false, true, false, true]);
        assert_eq!(failing.why(), Some("away"));
    }
}
