//! The tables of reasons in `docs/semantics.md` are written from the table.

use std::fmt::Write as _;

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/semantics.md");
/// Rewrites the tables instead of comparing them.
const UPDATE: &str = "UPDATE_DOCS";

/// The rows of a group, between two comments that stand in the page around it.
fn table(group: Group) -> (String, String) {
    let name = match group {
        Group::Lost => "lost",
        Group::Malformed => "malformed",
        Group::NotKafka => "not_kafka",
        Group::LeftOut => "left out",
    };
    let rows = TABLE.iter().filter(|row| row.group == group);
    let mut text =
        "| reason | where | counts | what happened | what to do |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for Row { name, unit, at, meaning, remedy, .. } in rows {
        let (at, unit) = (at.name(), unit.name());
        let (meaning, remedy) = (as_code(meaning), as_code(remedy));
        let _ = writeln!(text, "| `{name}` | {at} | {unit} | {meaning} | {remedy} |");
    }
    (format!("<!-- reasons: {name} -->\n"), text)
}

/// Flags, variables and names of reasons and attributes, as the page writes them.
fn as_code(text: &str) -> String {
    let word = |word: &str| {
        let name = word.trim_matches(|c: char| "(),.:;".contains(c));
        let is_code = name.starts_with("--") || name.contains('_') || name.starts_with("ktrace.");
        if is_code { word.replacen(name, &format!("`{name}`"), 1) } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_documentation_has_the_same_table() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut fresh = page.clone();
    for group in [Group::Lost, Group::Malformed, Group::NotKafka, Group::LeftOut] {
        let (begin, rows) = table(group);
        let from = fresh.find(&begin).unwrap_or_else(|| panic!("{PAGE} lacks {begin}")) + begin.len();
        let len = fresh[from..].find("<!-- end -->").expect("the end of a table");
        fresh.replace_range(from..from + len, &rows);
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(PAGE, fresh).unwrap();
    } else {
        assert!(
            page == fresh,
            "the tables of reasons are out of date: {UPDATE}=1 cargo test -p ktrace-user --lib losses::docs"
        );
    }
}
