//! What a source file defines, imports and names, read from its tokens.

use std::collections::HashSet;
use std::iter;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A module as it stands in a file: the file's own, or one in braces inside it.
#[derive(Default)]
pub(super) struct Module {
    /// From the file's own module.
    pub(super) path: Vec<String>,
    pub(super) items: HashSet<String>,
    pub(super) imports: Vec<Use>,
    /// Paths of two segments or more.
    pub(super) paths: Vec<Named>,
    /// All identifiers outside of imports.
    pub(super) words: HashSet<String>,
    pub(super) files: Vec<File>,
}

/// One name of a `use`.
pub(super) struct Use {
    pub(super) path: Vec<String>,
    /// As it is called here; `None`: all names of a module (`*`).
    pub(super) name: Option<String>,
    /// `pub`, whatever stands behind it.
    pub(super) is_re_export: bool,
    pub(super) line: usize,
}

pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// `mod name;`
pub(super) struct File {
    pub(super) name: String,
    /// `#[path = "…"]`
    pub(super) path: Option<String>,
}

/// The modules of a file, its own first.
pub(super) fn modules(tokens: TokenStream) -> Vec<Module> {
    let mut modules = vec![Module::default()];
    Reader { modules: &mut modules, module: 0 }.read(tokens, true);
    modules
}

struct Reader<'a> {
    modules: &'a mut Vec<Module>,
    /// The one that is being read.
    module: usize,
}

impl Reader<'_> {
    /// `is_module`: these tokens are items of the module, not of a function or a type in it.
    fn read(&mut self, tokens: TokenStream, is_module: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut path_of_file = None;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let Some((attribute, behind)) = attribute(&tokens, at) else {
                        at += 1;
                        continue;
                    };
                    at = if is_of_tests(attribute) { behind_item(&tokens, behind) } else { behind };
                    path_of_file = value_of_path(attribute).or(path_of_file);
                    self.read(attribute.stream(), false);
                }
                TokenTree::Group(group) => {
                    self.read(group.stream(), false);
                    at += 1;
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    at = match &*word {
                        "pub" => self.behind_visibility(&tokens, at + 1),
                        "use" if !is_punct(&tokens, at + 1, '<') => self.import(&tokens, at, false),
                        "mod" if is_module => self.submodule(&tokens, at, path_of_file.take()),
                        _ => self.word(&tokens, at, is_module.then_some(&*word)),
                    };
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }

    fn here(&mut self) -> &mut Module {
        &mut self.modules[self.module]
    }

    /// Behind `pub` and what it is limited to; an import behind it is a re-export.
    fn behind_visibility(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let is_limited = matches!(
            tokens.get(at),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
        );
        let at = at + usize::from(is_limited);
        if is_word(tokens, at, "use") { self.import(tokens, at, true) } else { at }
    }

    /// `use` and its tree.
    fn import(&mut self, tokens: &[TokenTree], at: usize, is_re_export: bool) -> usize {
        let end = tokens[at..].iter().position(is_semicolon).map_or(tokens.len(), |len| at + len);
        self.tree(&tokens[at + 1..end], &[], is_re_export);
        end + 1
    }

    /// A tree of imports, below a prefix.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String], is_re_export: bool) {
        for branch in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
        {
            let mut path = prefix.to_vec();
            let mut name = None;
            let Some(line) = branch.first().map(|token| token.span().start().line) else { continue };
            let mut words = branch
                .iter()
                .filter(|token| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':'));
            let mut is_group = false;
            let mut is_glob = false;
            while let Some(token) = words.next() {
                match token {
                    TokenTree::Ident(word) if word == "as" => name = words.next().map(ToString::to_string),
                    TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.tree(&inner, &path, is_re_export);
                        is_group = true;
                    }
                    TokenTree::Punct(_) => is_glob = true,
                    TokenTree::Literal(_) => {}
                }
            }
            if !is_group && !path.is_empty() {
                let name = if is_glob { None } else { name.or_else(|| path.last().cloned()) };
                self.here().imports.push(Use { path, name, is_re_export, line });
            }
        }
    }

    /// `mod name;` or `mod name { … }`
    fn submodule(&mut self, tokens: &[TokenTree], at: usize, path: Option<String>) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return at + 1 };
        let name = name.to_string();
        match tokens.get(at + 2) {
            Some(TokenTree::Group(group)) => {
                let outer = self.module;
                let path = [&self.modules[outer].path[..], &[name]].concat();
                self.modules.push(Module { path, ..Module::default() });
                self.module = self.modules.len() - 1;
                self.read(group.stream(), true);
                self.module = outer;
            }
            _ => self.here().files.push(File { name, path }),
        }
        at + 3
    }

    /// A name, or a path that begins here; behind it. `keyword`: it may also be one that begins an
    /// item.
    fn word(&mut self, tokens: &[TokenTree], at: usize, keyword: Option<&str>) -> usize {
        const ITEMS: [&str; 9] =
            ["struct", "enum", "union", "trait", "fn", "const", "static", "type", "macro_rules"];
        if keyword.is_some_and(|word| ITEMS.contains(&word)) {
            let is_filler = |token: &&TokenTree| {
                let text = token.to_string();
                ["fn", "unsafe", "async", "extern", "mut", "!"].contains(&&*text)
            };
            let mut behind = tokens[at + 1..].iter().skip_while(is_filler);
            if let Some(TokenTree::Ident(name)) = behind.next() {
                self.here().items.insert(name.to_string());
            }
            return at + 1;
        }
        let is_continued = at >= 2 && is_colons(tokens, at - 2);
        let mut path = Vec::new();
        let mut next = at;
        while let Some(TokenTree::Ident(word)) = tokens.get(next) {
            path.push(word.to_string());
            next += 1;
            if !is_colons(tokens, next) || !matches!(tokens.get(next + 2), Some(TokenTree::Ident(_))) {
                break;
            }
            next += 2;
        }
        let line = tokens[at].span().start().line;
        let here = self.here();
        here.words.extend(path.iter().cloned());
        // Behind `::` it is a path from outside (`::std`), or of a type (`<T as Trait>::f`).
        if path.len() > 1 && !is_continued {
            here.paths.push(Named { path, line });
        }
        next
    }
}

/// The attribute at a `#`, and what is behind it.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(&Group, usize)> {
    let at = at + 1 + usize::from(is_punct(tokens, at + 1, '!'));
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some((group, at + 1)),
        _ => None,
    }
}

/// `cfg(test)`, alone or with more.
fn is_of_tests(attribute: &Group) -> bool {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    let Some(TokenTree::Group(condition)) = tokens.get(1) else { return false };
    let words: Vec<String> = words(condition.stream()).collect();
    is_word(&tokens, 0, "cfg")
        && words.iter().any(|word| word == "test")
        && words.iter().all(|word| word != "not")
}

fn words(tokens: TokenStream) -> impl Iterator<Item = String> {
    tokens.into_iter().flat_map(|token| -> Box<dyn Iterator<Item = String>> {
        match token {
            TokenTree::Ident(word) => Box::new(iter::once(word.to_string())),
            TokenTree::Group(group) => Box::new(words(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => Box::new(iter::empty()),
        }
    })
}

/// The value of `path = "…"`.
fn value_of_path(attribute: &Group) -> Option<String> {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    let Some(TokenTree::Literal(value)) = tokens.get(2) else { return None };
    is_word(&tokens, 0, "path").then(|| value.to_string().trim_matches('"').to_owned())
}

/// Behind the item that begins here: at its first block, or its semicolon.
fn behind_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some((_, behind)) = is_punct(tokens, at, '#').then(|| attribute(tokens, at)).flatten() {
        at = behind;
    }
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_semicolon(token),
    };
    tokens[at..].iter().position(is_end).map_or(tokens.len(), |len| at + len + 1)
}

fn is_word(tokens: &[TokenTree], at: usize, word: &str) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Ident(is)) if is == word)
}

fn is_punct(tokens: &[TokenTree], at: usize, punct: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(is)) if is.as_char() == punct)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}
