//! Tokens of a source file, with their places in it.

use std::str::FromStr as _;

use anyhow::{Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

/// All tokens of a file.
pub(super) fn read(text: &str) -> Result<TokenStream> {
    TokenStream::from_str(text).map_err(|error| anyhow!("{error}"))
}

/// The tokens of a stream but for those of doc comments. Such a comment is an attribute, each of
/// whose tokens has the place of the whole comment.
pub(super) fn without_docs(tokens: TokenStream) -> Vec<TokenTree> {
    let mut is_doc = false;
    let is_code = |token: &TokenTree| match token {
        TokenTree::Punct(punct) if punct.span().byte_range().len() > 1 => {
            is_doc = true;
            false
        }
        TokenTree::Group(_) => !std::mem::take(&mut is_doc),
        _ => true,
    };
    tokens.into_iter().filter(is_code).collect()
}

#[cfg(test)]
mod tests {
    use super::{read, without_docs};

    #[test]
    fn doc_comments_are_left_out_and_attributes_are_not() {
        let text = "//! A\n/// B\n#[doc = \"C\"] /** D */ fn e() {}";
        let left: Vec<String> = without_docs(read(text).unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(left, ["#", "[doc = \"C\"]", "fn", "e", "()", "{ }"]);
    }
}
