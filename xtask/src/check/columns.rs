//! Lines of source files that are too wide.

use std::collections::HashSet;

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};

use super::tokens;

/// As wide as rustfmt makes code (`max_width`), which leaves comments and macros alone.
pub(super) const MOST: usize = 110;

/// The wide lines. One that a literal makes wide is none: a text that is cut in two is not found by a
/// search, and data would no longer be as it was recorded.
pub(super) fn wide(text: &str) -> Result<Vec<(usize, String)>> {
    let mut of_literals = HashSet::new();
    collect(tokens::read(text)?, &mut of_literals);
    let lines = (1..).zip(text.lines().map(|line| line.chars().count()));
    let wide = lines.filter(|(line, width)| *width > MOST && !of_literals.contains(line));
    Ok(wide.map(|(line, width)| (line, format!("{width} columns"))).collect())
}

/// Lines on which a literal stands in the last column that is allowed.
fn collect(tokens: TokenStream, lines: &mut HashSet<usize>) {
    for token in tokens::without_docs(tokens) {
        match token {
            TokenTree::Group(group) => collect(group.stream(), lines),
            TokenTree::Literal(literal) => {
                let (start, end) = (literal.span().start(), literal.span().end());
                let begins = |line| line > start.line || start.column < MOST;
                let reaches = |line| begins(line) && (line < end.line || end.column > MOST);
                lines.extend((start.line..=end.line).filter(|line| reaches(*line)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, wide};

    fn lines(text: &str) -> Vec<usize> {
        wide(text).unwrap().into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn columns_are_characters() {
        let fits = format!("// {}", "–".repeat(MOST - 3));
        assert_eq!(lines(&format!("{fits}\n{fits}x")), [2]);
    }

    #[test]
    fn a_literal_may_be_wide_and_code_and_comments_may_not() {
        let (text, name) = ("x".repeat(MOST), "n".repeat(MOST));
        assert_eq!(lines(&format!("const A: &str = \"{text}\";\nconst B: &str = r\"\n{text}\n\";")), [0; 0]);
        assert_eq!(
            lines(&format!("/// {text}\nfn f() {{\n    {name}(\"\");\n    f(\"\"); // {text}\n}}")),
            [1, 3, 4]
        );
    }
}
