//! What `replay` shows of real captures: filters, keys, followed messages, trees.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

fn golden(name: &str) -> String {
    format!("{}/../ktrace-kafka/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What it prints.
fn replay(name: &str, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    let capture = golden(&format!("{name}.pcap"));
    let output = command.env_clear().env("TZ", "UTC").args(["replay", &capture]).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn spans(name: &str, args: &[&str]) -> Vec<Value> {
    let lines = replay(name, &[args, &["-o", "json"]].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn attributes<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().map(|span| &span["attributes"][name]).collect()
}

const KEY: &str = "messaging.kafka.message.key";

#[test]
fn keys_are_shown_only_on_request_and_as_the_clients_knew_them() {
    assert!(attributes(&spans("4.3.0/java", &[]), KEY).iter().all(|key| key.is_null()));
    assert!(!replay("4.3.0/java", &["--key", "*"]).contains("key="));
    let truth = fs::read_to_string(golden("4.3.0/java.truth.jsonl")).unwrap();
    let place = |topic: &Value, partition: &str, offset: &Value| format!("{topic}[{partition}]@{offset}");
    let known: BTreeSet<_> = truth
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["key"].is_string())
        .map(|line| {
            (
                place(&line["topic"], &line["partition"].to_string(), &line["offset"]),
                line["key"].clone().to_string(),
            )
        })
        .collect();
    let shown = spans("4.3.0/java", &["--keys", "--key", "*"]);
    let seen: BTreeSet<_> = shown
        .iter()
        .map(|span| {
            let get = |name: &str| &span["attributes"][name];
            let partition = get("messaging.destination.partition.id").as_str().unwrap();
            (
                place(get("messaging.destination.name"), partition, get("messaging.kafka.offset")),
                get(KEY).to_string(),
            )
        })
        .collect();
    assert_eq!(seen, known);
}

#[test]
fn text_shows_a_key_behind_all_else() {
    let lines = replay("4.3.0/java", &["--keys", "--key", "out-0-4", "--group", "in-*"]);
    assert!(lines.ends_with(" group=in-0 lag=0 key=out-0-4\n"), "{lines}");
    assert_eq!(lines.lines().count(), 1);
}

#[test]
fn a_trace_is_found_by_its_id_and_a_slow_message_by_its_time() {
    let all = spans("4.3.0/java", &[]);
    let id = all[3]["trace_id"].as_str().unwrap();
    for name in [id, &id[..8], &format!("~{}", &id[..16])] {
        let found = spans("4.3.0/java", &["--trace", name]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|span| span["trace_id"] == id), "{found:?}");
    }
    let slow = spans("4.3.0/java", &["--slower-than", "1s"]);
    assert_eq!(slow.len(), 8);
    assert!(slow.iter().all(|span| span["attributes"]["messaging.operation.name"] == "poll"));
    assert_eq!(spans("4.3.0/java", &["--slower-than", "10ms"]).len(), 18, "commits too");
    assert!(spans("4.3.0/java", &["--errors"]).is_empty());
}

#[test]
fn what_a_share_group_accepts_stands_below_the_delivery() {
    let tree = replay("4.3.0/java-share-group", &["--tree", "--trace", "ce9d99c2"]);
    let expected = [
        "├─ out-0   → send orders[0]@3    +0ms took=20ms",
        "└─ in-0    ← poll orders[0]@3 +6490ms took=0.7ms queue=6595ms e2e=6490ms group=in-0",
        "   └─ in-0 · ack orders[0]@3  +6508ms took=36ms  group=in-0 accept messages=4",
    ];
    assert!(tree.lines().skip(1).take_while(|line| !line.is_empty()).eq(expected), "{tree}");
    let acks = spans("4.3.0/java-share-group", &["--group", "in-0"]);
    let acks: Vec<_> = acks.iter().filter(|span| span["name"] == "ack orders").collect();
    assert!(
        acks.len() == 2 && acks.iter().all(|span| span["links"].as_array().unwrap().len() == 3),
        "{acks:?}"
    );
    assert!(spans("4.3.0/java-share-group", &["--uncommitted", "50ms"]).is_empty());
}

/// Sarama commits once a second.
#[test]
fn what_is_not_committed_in_time_is_shown_and_nothing_else() {
    let late = spans("4.3.0/sarama", &["--uncommitted", "1ms"]);
    let all = spans("4.3.0/sarama", &["--group", "in-*"]);
    let polls: Vec<_> = all.iter().filter(|span| span["name"] == "poll orders").collect();
    let ids = |span: &Value| (span["trace_id"].to_string(), span["span_id"].to_string());
    assert_eq!(late.iter().map(ids).collect::<BTreeSet<_>>(), polls.into_iter().map(ids).collect());
    assert!(attributes(&late, "ktrace.uncommitted").iter().all(|is| **is == Value::Bool(true)));
    assert_eq!((late.len(), spans("4.3.0/sarama", &["--uncommitted", "2s"]).len()), (8, 0));
    // Commits count whatever is asked for.
    let first = late[0]["trace_id"].as_str().unwrap();
    for (only, of) in [("--key", "out-0-4"), ("--trace", first), ("--follow-key", "out-0-4")] {
        let len = |time| spans("4.3.0/sarama", &["--uncommitted", time, only, of]).len();
        assert_eq!([len("1ms"), len("2s")], [1, 0], "{only}");
    }
    assert_eq!(spans("4.3.0/sarama", &["--uncommitted", "1ms", "--group", "out-*"]).len(), 0);
    let lines = replay("4.3.0/sarama", &["--uncommitted", "1ms"]);
    assert!(lines.lines().all(|line| line.contains(" poll ") && line.contains(" uncommitted")), "{lines}");
}

#[test]
fn slow_spans_and_those_their_parent_wants_are_always_kept() {
    let slow = spans("4.3.0/java", &["--sample", "0", "--sample-slow", "1s"]);
    assert_eq!(slow.len(), 8);
    assert!(slow.iter().all(|span| span["name"] == "poll orders"));
    let of_parents = spans("4.3.0/java", &["--sample", "0", "--sample-parent"]);
    assert!(!of_parents.is_empty());
    assert!(of_parents.iter().all(|span| span["attributes"]["ktrace.derived"].is_null()), "{of_parents:?}");
}

#[test]
fn a_key_is_followed_into_its_traces() {
    let (all, followed) = (spans("4.3.0/java", &[]), spans("4.3.0/java", &["--follow-key", "out-0-4"]));
    let places: BTreeSet<_> = followed.iter().map(|span| span["trace_id"].to_string()).collect();
    let names: Vec<_> = followed.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!((names, places.len()), (vec!["send orders", "poll orders", "commit orders"], 1));
    assert!(all.len() > 2 && attributes(&followed, KEY).iter().all(|key| key.is_null()));
    assert!(spans("4.3.0/java", &["--follow-key", "out-0"]).is_empty());
}

#[test]
fn traces_are_drawn_as_trees() {
    let trees = replay("4.3.0/java-transactions", &["--tree", "--trace", "7bd42c02", "--keys"]);
    let expected = "\
trace ~7bd42c02ae58a2aab8ad7d876b73f010  09:47:32.583  3 spans, 2907ms
└─ out-0   → send orders[1]@1    +0ms took=37ms
   ├─ in-0 ← poll orders[1]@1 +1269ms took=0.8ms queue=1276ms e2e=1270ms group=in-0 txn=committed key=
   └─ in-1 ← poll orders[1]@1 +2907ms took=0.1ms queue=2913ms e2e=2907ms group=in-1 txn=committed key=

";
    assert_eq!(trees, expected.replace("took=37ms\n", "took=37ms  txn=committed key=\n"));
}

#[test]
fn every_span_is_in_one_tree() {
    for name in ["4.3.0/mixed", "4.3.0/java-share-group", "3.9.1/kcat"] {
        let (all, trees) = (spans(name, &[]), replay(name, &["--tree"]));
        let traces: BTreeSet<_> = all.iter().map(|span| span["trace_id"].as_str().unwrap()).collect();
        let heads: Vec<_> = trees.lines().filter_map(|line| line.strip_prefix("trace ")).collect();
        let ids: BTreeSet<_> =
            heads.iter().map(|head| head.trim_start_matches('~').split(' ').next().unwrap()).collect();
        assert_eq!((ids, heads.len()), (traces.clone(), traces.len()), "{name}");
        assert_eq!(trees.lines().filter(|line| line.contains("─ ")).count(), all.len(), "{name}");
    }
}

#[test]
fn a_tree_is_text() {
    let capture = golden("4.3.0/java.pcap");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    let output = command.env_clear().args(["replay", &capture, "--tree", "-o", "json"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.lines().next()),
        (Some(2), Some("ktrace: --tree shows text, and no other output"))
    );
}
