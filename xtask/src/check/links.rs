//! Relative links of Markdown: each leads to a file of the repository, and where it names a heading
//! the page has it.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::sources::{is, root, sources};

/// Fails with all links that lead nowhere.
pub(super) fn check() -> Result<()> {
    let pages: HashMap<PathBuf, Page> =
        sources(|path| is(path, "md"))?.into_iter().map(|(path, text)| (path, Page::read(&text))).collect();
    let exists = |path: &Path| root().join(path).exists();
    let mut dead: Vec<String> =
        pages.iter().flat_map(|(path, page)| dead(path, page, &pages, &exists)).collect();
    dead.sort();
    ensure!(dead.is_empty(), "links that lead nowhere:\n  {}", dead.join("\n  "));
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    println!("{} pages, {links} links", pages.len());
    Ok(())
}

/// A page's own places, and where its links lead.
struct Page {
    anchors: HashSet<String>,
    links: Vec<(usize, String)>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self { anchors: HashSet::new(), links: Vec::new() };
        let mut heading: Option<String> = None;
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
        for (event, place) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    let line = text[..place.start].matches('\n').count() + 1;
                    page.links.push((line, dest_url.into_string()));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.add_heading(&heading.take().unwrap_or_default()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        *heading += &text;
                    }
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    let ids = html.split(['"', '\'']).collect::<Vec<_>>();
                    let named = ids
                        .as_chunks()
                        .0
                        .iter()
                        .filter(|[name, _]| name.ends_with("id=") || name.ends_with("name="));
                    page.anchors.extend(named.map(|[_, anchor]| (*anchor).to_owned()));
                }
                _ => {}
            }
        }
        page
    }

    /// As GitHub makes them: lower case, blanks become hyphens, punctuation goes, and the second of
    /// a name is `name-1`.
    fn add_heading(&mut self, text: &str) {
        let slug: String = text
            .to_lowercase()
            .chars()
            .filter_map(|char| match char {
                ' ' => Some('-'),
                '-' | '_' => Some(char),
                char => char.is_alphanumeric().then_some(char),
            })
            .collect();
        let numbered = (1_usize..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(numbered).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

/// The links of a page that lead nowhere, each with its place.
fn dead(
    path: &Path,
    page: &Page,
    pages: &HashMap<PathBuf, Page>,
    exists: &dyn Fn(&Path) -> bool,
) -> Vec<String> {
    let is_dead = |link: &str| {
        // Another site, or a mail address.
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { Some(path.to_owned()) } else { below_root(path, file) };
        let Some(target) = target else { return Some("is outside of the repository") };
        if !exists(&target) {
            return Some("there is no such file");
        }
        let anchors = pages.get(&target).map(|page| &page.anchors);
        match (anchor, anchors) {
            (Some(anchor), Some(anchors)) if !anchors.contains(anchor) => {
                Some("the page has no such heading")
            }
            _ => None,
        }
    };
    let dead = page.links.iter().filter_map(|(line, link)| {
        is_dead(link).map(|why| format!("{}:{line}: {link}: {why}", path.display()))
    });
    dead.collect()
}

/// The path of a link from the root, of a page with this path.
fn below_root(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_links(text: &str) -> Vec<String> {
        let other =
            ("docs/other.md".into(), Page::read("# Two words, `code` – and more\n\n## Twice\n\n## Twice\n"));
        let pages: HashMap<PathBuf, Page> = [other].into();
        let exists = |path: &Path| {
            ["docs/other.md", "docs/page.md", "README.md"].iter().any(|is| path == Path::new(is))
        };
        dead(Path::new("docs/page.md"), &Page::read(text), &pages, &exists)
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](other.md) [b](../README.md) [c](other.md#two-words-code--and-more) [d](other.md#twice-1)\n\
                    [e](https://example.org/gone.md) [f](mailto:a@example.org) `[g](gone.md)` [h]\n\n[h]: other.md#twice\n";
        assert_eq!(dead_links(text), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let text = "[a](gone.md)\n![b](gone.svg)\n[c](other.md#gone)\n[d](../../README.md)\n[e](other.md#twice-2)\n\n[f]\n\n[f]: /etc/f\n";
        let lines: Vec<String> =
            dead_links(text).iter().map(|dead| dead.split(':').nth(1).unwrap().to_owned()).collect();
        assert_eq!(lines, ["1", "2", "3", "4", "5", "7"]);
    }
}
