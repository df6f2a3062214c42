//! The modules of a crate, and which file defines what a path names.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::graph::Import;
use super::source::{self, File, Module};
use crate::check::tokens;

/// Names that a search has asked for, each with its module. None is asked for twice: modules may import
/// all names of each other, and a name may be its own alias.
type Asked = HashSet<(usize, String)>;

/// A crate, or another target of a package, from its root file on.
pub(super) struct Modules {
    /// The root is the first.
    all: Vec<Placed>,
    /// By the path from the root.
    by_path: HashMap<Vec<String>, usize>,
}

struct Placed {
    module: Module,
    path: Vec<String>,
    file: PathBuf,
}

/// What a path leads to.
enum Target {
    Module(usize),
    /// An item, by the module that defines it.
    Item(usize),
}

impl Modules {
    /// `read` gives a file's text, if there is such a file.
    pub(super) fn read(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Result<Self> {
        let mut modules = Self { all: Vec::new(), by_path: HashMap::new() };
        let directory = root.parent().unwrap_or(Path::new("")).to_owned();
        modules.add(root, &directory, &[], read)?;
        Ok(modules)
    }

    /// Adds a file and those below it. Its modules lie in `directory`.
    fn add(
        &mut self,
        file: &Path,
        directory: &Path,
        path: &[String],
        read: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let tokens = tokens::read(&text).with_context(|| file.display().to_string())?;
        for mut module in source::modules(tokens) {
            let own = [path, &module.path].concat();
            let inner = module.path.iter().fold(directory.to_owned(), |directory, name| directory.join(name));
            let files = std::mem::take(&mut module.files);
            self.by_path.insert(own.clone(), self.all.len());
            self.all.push(Placed { module, path: own.clone(), file: file.to_owned() });
            for File { name, path } in files {
                let below = [&own[..], std::slice::from_ref(&name)].concat();
                let beside = file.parent().unwrap_or(Path::new(""));
                let (flat, nested) = (inner.join(format!("{name}.rs")), inner.join(&name).join("mod.rs"));
                if let Some(place) = path {
                    let place = beside.join(place);
                    // It is a `mod.rs`, whatever its name.
                    self.add(&place, place.parent().unwrap_or(Path::new("")), &below, read)?;
                } else if read(&flat).is_some() {
                    self.add(&flat, &inner.join(&name), &below, read)?;
                } else {
                    self.add(&nested, &inner.join(&name), &below, read)?;
                }
            }
        }
        Ok(())
    }

    /// All imports between files.
    pub(super) fn imports(&self) -> Vec<Import> {
        let mut words: HashMap<&Path, HashSet<&String>> = HashMap::new();
        for placed in &self.all {
            words.entry(&placed.file).or_default().extend(&placed.module.words);
        }
        let mut imports = Vec::new();
        for (place, Placed { module, file, .. }) in self.all.iter().enumerate() {
            let is_named = |name: &String| words.get(&**file).is_some_and(|words| words.contains(name));
            let used = module.imports.iter().filter_map(|import| {
                let is_used = !import.is_re_export || import.name.as_ref().is_some_and(is_named);
                let target =
                    is_used.then(|| self.resolve(place, &import.path, &mut Asked::new())).flatten()?;
                match target {
                    Target::Item(to) => Some((to, &import.path, import.line)),
                    // All that it has may be named.
                    Target::Module(to) if import.name.is_none() => Some((to, &import.path, import.line)),
                    // Only what is named through it counts.
                    Target::Module(_) => None,
                }
            });
            let named = module.paths.iter().filter_map(|named| {
                match self.resolve(place, &named.path, &mut Asked::new())? {
                    Target::Item(to) => Some((to, &named.path, named.line)),
                    Target::Module(_) => None,
                }
            });
            for (to, path, line) in used.chain(named) {
                let to = &self.all[to].file;
                if to != file {
                    let name = path.last().cloned().unwrap_or_default();
                    imports.push(Import { from: file.clone(), to: to.clone(), line, name });
                }
            }
        }
        imports
    }

    /// What a path names in a module; `None`: something outside of the crate.
    fn resolve(&self, from: usize, path: &[String], asked: &mut Asked) -> Option<Target> {
        let (mut here, mut rest) = (from, path);
        let mut is_of_crate = false;
        while let Some((first, behind)) = rest.split_first() {
            here = match &**first {
                "crate" => 0,
                "self" => here,
                "super" => {
                    let (_, parent) = self.all[here].path.split_last()?;
                    *self.by_path.get(parent)?
                }
                _ => break,
            };
            is_of_crate = true;
            rest = behind;
        }
        for name in rest {
            match self.named(here, name, asked) {
                Some(Target::Module(module)) => here = module,
                Some(item) => return Some(item),
                // What a macro has made is its module's.
                None => return is_of_crate.then_some(Target::Item(here)),
            }
            is_of_crate = true;
        }
        Some(Target::Module(here))
    }

    /// What a name is in a module.
    fn named(&self, module: usize, name: &String, asked: &mut Asked) -> Option<Target> {
        let Placed { module: here, path, .. } = &self.all[module];
        let child = [&path[..], std::slice::from_ref(name)].concat();
        if let Some(child) = self.by_path.get(&child) {
            return Some(Target::Module(*child));
        }
        if here.items.contains(name) {
            return Some(Target::Item(module));
        }
        if !asked.insert((module, name.clone())) {
            return None;
        }
        let is_name = |import: &&source::Use| import.name.as_ref() == Some(name);
        if let Some(import) = here.imports.iter().find(is_name) {
            return self.resolve(module, &import.path, asked);
        }
        let globs = here.imports.iter().filter(|import| import.name.is_none());
        globs.into_iter().find_map(|glob| match self.resolve(module, &glob.path, asked)? {
            Target::Module(other) if other != module => self.named(other, name, asked),
            _ => None,
        })
    }
}
