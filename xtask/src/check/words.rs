//! Prose of the repository, word by word: Markdown, and comments of code.

use std::path::Path;

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::sources::is;
use super::tokens;

/// What the glossary of CONTRIBUTING.md has plainer words for.
const UNWANTED: [&[&str]; 6] =
    [&["told"], &["nobody"], &["somebody"], &["what", "waits"], &["past", "it"], &["shown", "early"]];

/// A word in lower case, and its line.
type Word = (String, usize);

/// The unwanted ones of a file, with their lines.
pub(super) fn unwanted(path: &Path, text: &str) -> Result<Vec<(usize, String)>> {
    let words = words(path, text)?;
    let is_at = |at: usize, phrase: &[&str]| {
        phrase
            .iter()
            .enumerate()
            .all(|(next, wanted)| words.get(at + next).is_some_and(|(word, _)| word == wanted))
    };
    Ok((0..words.len())
        .flat_map(|at| {
            UNWANTED.iter().filter(move |phrase| is_at(at, phrase)).map(move |phrase| (at, phrase))
        })
        .map(|(at, phrase)| (words[at].1, phrase.join(" ")))
        .collect())
}

/// All words of a file's prose; none where it is not known what its comments look like.
fn words(path: &Path, text: &str) -> Result<Vec<Word>> {
    let lines = if is(path, "md") {
        return Ok(markdown(text));
    } else if is(path, "rs") {
        comments_of_rust(text).with_context(|| path.display().to_string())?
    } else if ["go", "java", "js"].iter().any(|extension| is(path, extension)) {
        behind(text, "//")
    } else if ["toml", "yaml", "yml", "py", "sh"].iter().any(|extension| is(path, extension))
        || ["dev", "Dockerfile"].iter().any(|name| path.ends_with(name))
    {
        behind(text, "#")
    } else {
        Vec::new()
    };
    Ok(lines.iter().flat_map(|(number, line)| words_of_line(line, *number)).collect())
}

/// What is in backticks is code, and where a link leads is a path.
fn words_of_line(line: &str, number: usize) -> impl Iterator<Item = Word> {
    let without_target = |prose: &str| match prose.split_once("](") {
        Some((before, target)) => [before, target.split_once(')').map_or("", |(_, behind)| behind)].join(" "),
        None => prose.to_owned(),
    };
    let prose = line.split('`').step_by(2).map(without_target);
    prose.flat_map(move |prose| {
        let words = prose.split(|char: char| !char.is_alphanumeric() && char != '_' && char != '\'');
        let words = words.filter(|word| !word.is_empty());
        words.map(|word| (word.to_lowercase(), number)).collect::<Vec<_>>()
    })
}

/// What stands behind a mark that begins a line or follows a blank.
fn behind(text: &str, mark: &str) -> Vec<(usize, String)> {
    let comment = |line: &str| {
        let (at, _) = line
            .match_indices(mark)
            .find(|(at, _)| line[..*at].chars().last().is_none_or(char::is_whitespace))?;
        Some(line[at..].to_owned())
    };
    (1..).zip(text.lines()).filter_map(|(number, line)| Some((number, comment(line)?))).collect()
}

/// What is left of each line when all tokens are taken away.
fn comments_of_rust(text: &str) -> Result<Vec<(usize, String)>> {
    let mut left = text.as_bytes().to_vec();
    take_away(tokens::read(text)?, &mut left);
    let left = String::from_utf8(left)?;
    Ok((1..).zip(left.lines().map(str::to_owned)).collect())
}

fn take_away(tokens: TokenStream, left: &mut [u8]) {
    let mut blank = |span: proc_macro2::Span| {
        let bytes = left.get_mut(span.byte_range()).into_iter().flatten();
        bytes.filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut groups = Vec::new();
    for token in tokens::without_docs(tokens) {
        match token {
            TokenTree::Group(group) => {
                blank(group.span_open());
                blank(group.span_close());
                groups.push(group.stream());
            }
            token => blank(token.span()),
        }
    }
    groups.into_iter().for_each(|group| take_away(group, left));
}

fn markdown(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut is_code = false;
    let (mut line, mut counted) = (1, 0);
    for (event, place) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_)) => is_code = true,
            Event::End(TagEnd::CodeBlock) => is_code = false,
            Event::Text(text_here) if !is_code => {
                if let Some(between) = text.get(counted..place.start) {
                    line += between.matches('\n').count();
                    counted = place.start;
                }
                words.extend(words_of_line(&text_here, line));
            }
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unwanted;

    fn found(name: &str, text: &str) -> Vec<(usize, String)> {
        unwanted(Path::new(name), text).unwrap()
    }

    #[test]
    fn comments_of_rust_are_read_and_code_is_not() {
        let text = "//! Nobody.\nfn told() { let told = \"told\"; } // It is told\n/* what\n waits */ const A: char = '\"'; // told";
        let lines: Vec<usize> = found("a.rs", text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 3, 4]);
        assert!(found("a.rs", "/// [`told`](crate::told)\nfn a() {} // `nobody`, so untold").is_empty());
    }

    #[test]
    fn a_phrase_may_go_on_in_the_next_line() {
        assert_eq!(found("a.rs", "/// It is shown\n/// early.\nfn f() {}"), [(1, "shown early".to_owned())]);
    }

    #[test]
    fn prose_of_markdown_is_read_and_code_is_not() {
        let text = "# Told\n\n`told`\n\n```text\ntold\n```\n\n| a |\n| - |\n| past it |\n";
        assert_eq!(found("a.md", text), [(1, "told".to_owned()), (11, "past it".to_owned())]);
    }

    #[test]
    fn other_comments_are_known_by_their_mark() {
        assert_eq!(
            found("dev", "a=b # told\n# told\na#told"),
            [(1, "told".to_owned()), (2, "told".to_owned())]
        );
        assert_eq!(
            found("A.java", "told(); // told, by http://told"),
            [(1, "told".to_owned()), (1, "told".to_owned())]
        );
    }
}
