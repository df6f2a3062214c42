//! Files that reach each other by imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One file names something that another defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// Of the name, in `from`.
    pub(super) line: usize,
    pub(super) name: String,
}

/// Files each of which reaches all others, two at least.
pub(super) struct Circle {
    pub(super) files: BTreeSet<PathBuf>,
    /// Those between its files, one for each pair.
    imports: Vec<Import>,
}

impl Circle {
    /// For who is to break it: the imports, by their places below `top`.
    pub(super) fn describe(&self, top: &Path) -> String {
        let short = |path: &Path| path.strip_prefix(top).unwrap_or(path).display().to_string();
        let mut text = format!("{} files import each other in a circle:", self.files.len());
        for import in &self.imports {
            let Import { from, to, line, name } = import;
            text += &format!("\n  {}:{line} names {name} of {}", short(from), short(to));
        }
        text
    }
}

/// All circles, each as large as it is: a file is in one at most.
pub(super) fn circles(imports: &[Import]) -> Vec<Circle> {
    let mut arrows: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for import in imports {
        arrows.entry(&import.from).or_default().insert(&import.to);
    }
    // A crate has some hundred files: a search from each of them is fast enough.
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        arrows.keys().map(|file| (*file, reached_from(file, &arrows))).collect();
    let reaches = |from: &Path, to: &Path| reached.get(from).is_some_and(|files| files.contains(to));
    let mut circles: Vec<Circle> = Vec::new();
    for file in arrows.keys().filter(|file| reaches(file, file)) {
        if circles.iter().any(|circle| circle.files.contains(*file)) {
            continue;
        }
        let files: BTreeSet<PathBuf> = arrows
            .keys()
            .filter(|other| reaches(file, other) && reaches(other, file))
            .map(|other| other.to_path_buf())
            .collect();
        let mut inside: Vec<Import> = imports
            .iter()
            .filter(|import| files.contains(&import.from) && files.contains(&import.to))
            .cloned()
            .collect();
        inside.sort();
        inside.dedup_by(|later, first| (&later.from, &later.to) == (&first.from, &first.to));
        circles.push(Circle { files, imports: inside });
    }
    circles
}

/// What a file reaches in one step or more.
fn reached_from<'a>(file: &Path, arrows: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&Path> = arrows.get(file).into_iter().flatten().copied().collect();
    while let Some(next) = pending.pop() {
        if reached.insert(next) {
            pending.extend(arrows.get(next).into_iter().flatten());
        }
    }
    reached
}
