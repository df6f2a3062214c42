//! Names of tests that are too long to be typed or to fit into a line of a list.

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};

use super::tokens;

/// With the module before it, a name of 60 fills a line of a terminal.
pub(super) const MOST: usize = 60;

/// The long ones of a source file, with their lines.
pub(super) fn long(text: &str) -> Result<Vec<(usize, String)>> {
    let mut found = Vec::new();
    collect(tokens::read(text)?, &mut found);
    found.retain(|(_, name)| name.len() > MOST);
    Ok(found)
}

/// The functions behind `#[test]`, or `#[runtime::test]`.
fn collect(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut is_test = false;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let last = group.stream().into_iter().last();
                is_test |= matches!(last, Some(TokenTree::Ident(word)) if word == "test");
                collect(group.stream(), found);
            }
            TokenTree::Ident(word) if word == "fn" => {
                if let (true, Some(TokenTree::Ident(name))) = (std::mem::take(&mut is_test), tokens.peek()) {
                    found.push((name.span().start().line, name.to_string()));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, long};

    #[test]
    fn tests_are_distinguished_from_other_functions() {
        let (short, name) = ("s".repeat(MOST), "l".repeat(MOST + 1));
        let text = format!(
            "#[test]\nfn {short}() {{}} fn {name}() {{}} mod a {{ #[test]\n#[ignore = \"x\"]\nfn {name}() {{}} }}\n\
             proptest! {{ #[test]\nfn {name}(a in 0..1) {{}} }}"
        );
        assert_eq!(long(&text).unwrap(), [(4, name.clone()), (6, name)]);
    }
}
