//! Key logs: lines of hostile text, with a bound that a few connections reach.

use ktrace_tls::keylog::KeyLog;

/// Room for some ten connections.
const MOST_BYTES: usize = 4 << 10;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut log = KeyLog::within(MOST_BYTES);
    let news = log.lines(data);
    let counts = log.counts();
    let lines = data.split(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
    assert!(counts.taken + counts.ignored + counts.bad <= lines);
    assert!(news as u64 <= counts.taken && log.len() as u64 + counts.forgotten <= counts.taken);
    assert!(log.held_bytes() <= MOST_BYTES || log.len() <= 1);
    assert_eq!(log.all().count(), log.len());
    for secrets in log.all() {
        assert!(secrets.all().all(|secret| matches!(secret.len(), 32 | 48)) && secrets.all().count() > 0);
    }
}
