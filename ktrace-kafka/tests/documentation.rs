//! The table of errors in `docs/semantics.md` is that of the crate.

use ktrace_kafka::protocol::error::{Outcome, Purpose, name, outcome};

const PURPOSES: [Purpose; 5] =
    [Purpose::Produce, Purpose::Fetch, Purpose::Commit, Purpose::Acknowledge, Purpose::Other];

/// It has a row for each error that does not fail for all.
#[test]
fn the_documentation_has_the_table_of_errors() {
    let docs = include_str!("../../docs/semantics.md");
    let word = |outcome| match outcome {
        Outcome::Success => "success",
        Outcome::Ordinary => "ordinary",
        Outcome::Retry => "retry",
        Outcome::Failure => "failure",
    };
    let mut expected = 0;
    for code in (-1..i16::MAX).filter(|code| *code != 0) {
        let Some(name) = name(code) else { break };
        let outcomes = PURPOSES.map(|purpose| outcome(purpose, code));
        if outcomes == [Outcome::Failure; 5] {
            continue;
        }
        expected += 1;
        let row = format!("| {code} | `{name}` | {} |", outcomes.map(word).join(" | "));
        assert!(docs.contains(&row), "missing: {row}");
    }
    assert!(expected > 40, "{expected}");
    let rows = docs.lines().filter(|line| line.ends_with(" |") && line.contains("` | "));
    let of_errors = rows.filter(|line| {
        let code = line.trim_start_matches("| ").split(' ').next();
        code.is_some_and(|code| code.parse::<i16>().is_ok())
    });
    assert_eq!(of_errors.count(), expected);
}
