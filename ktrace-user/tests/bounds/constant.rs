//! The value of a constant, read from the source that defines it.

use std::fs;
use std::path::Path;

/// What a value is a number of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Count,
    Bytes,
    /// In nanoseconds.
    Time,
}

/// The value of `NAME` in `file`: a `const`, a `static` map of the kernel's (its entries), or a field that is
/// set to a literal (`pending: 1 << 10`).
pub fn value(root: &Path, file: &str, name: &str) -> u64 {
    let path =
        if file.starts_with("ktrace-") { root.join(file) } else { root.join("ktrace-user/src").join(file) };
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let expression = expression(&text, name)
        .unwrap_or_else(|| panic!("{file} has no {name}: give its new file in tests/bounds/table.rs"));
    evaluate(&expression).unwrap_or_else(|| panic!("{file}: {name} = {expression} is not understood"))
}

fn expression(text: &str, name: &str) -> Option<String> {
    let constant = [format!("const {name}:"), format!("static {name}:")];
    if let Some(at) = constant.iter().find_map(|head| text.find(head.as_str())) {
        let rest = &text[at..];
        let whole = &rest[rest.find('=')? + 1..rest.find(';')?];
        return Some(match whole.split_once("with_max_entries(") {
            Some((_, entries)) => entries.split(',').next()?.to_owned(),
            None => whole.trim().to_owned(),
        });
    }
    let field = format!(" {name}: ");
    let values = text.match_indices(&field).map(|(at, _)| &text[at + field.len()..]);
    let mut values = values.filter(|value| value.starts_with(|first: char| first.is_ascii_digit()));
    Some(values.next()?.split([',', '}', '\n']).next()?.trim().to_owned())
}

/// Integers, `<<`, `+`, `-`, `*`, `/`, parentheses, and durations of whole seconds or milliseconds.
fn evaluate(expression: &str) -> Option<u64> {
    let expression = expression
        .replace("Duration::from_secs(", "(1000000000 * ")
        .replace("Duration::from_millis(", "(1000000 * ")
        .replace('_', "");
    let mut rest = expression.as_str();
    let value = shift(&mut rest)?;
    rest.trim().is_empty().then_some(value)
}

fn eat(rest: &mut &str, token: &str) -> bool {
    match rest.trim_start().strip_prefix(token) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

fn shift(rest: &mut &str) -> Option<u64> {
    let mut value = sum(rest)?;
    while eat(rest, "<<") {
        value = value.checked_shl(u32::try_from(sum(rest)?).ok()?)?;
    }
    Some(value)
}

fn sum(rest: &mut &str) -> Option<u64> {
    let mut value = product(rest)?;
    loop {
        if eat(rest, "+") {
            value = value.checked_add(product(rest)?)?;
        } else if eat(rest, "-") {
            value = value.checked_sub(product(rest)?)?;
        } else {
            return Some(value);
        }
    }
}

fn product(rest: &mut &str) -> Option<u64> {
    let mut value = atom(rest)?;
    loop {
        if eat(rest, "*") {
            value = value.checked_mul(atom(rest)?)?;
        } else if eat(rest, "/") {
            value = value.checked_div(atom(rest)?)?;
        } else {
            return Some(value);
        }
    }
}

fn atom(rest: &mut &str) -> Option<u64> {
    if eat(rest, "(") {
        let value = shift(rest)?;
        return eat(rest, ")").then_some(value);
    }
    *rest = rest.trim_start();
    let len = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(len);
    *rest = after;
    digits.parse().ok()
}

#[test]
fn expressions_are_evaluated_as_rust_does() {
    for (expression, value) in [
        ("16 << 20", 16 << 20),
        ("100 * 1024 * 1024", 100 << 20),
        ("1 << (2 + 3)", 32),
        ("131_072", 131_072),
        ("(1 << 14) + 2048", (1 << 14) + 2048),
        ("Duration::from_millis(250)", 250_000_000),
        ("7 << 19", 7 << 19),
    ] {
        assert_eq!(evaluate(expression), Some(value), "{expression}");
    }
    assert_eq!(evaluate("QUEUE / 2"), None);
    let source = "const A: usize = 4 << 1;\nstatic M: Map<u32> = Map::with_max_entries(8192, 0);\n\
                  Limits { b: 1 << 3, }";
    assert_eq!(["A", "M", "b"].map(|name| expression(source, name).unwrap()), ["4 << 1", "8192", "1 << 3"]);
    assert_eq!(expression(source, "c"), None);
}
