//! Circles of imports between the files of a crate. Files in a circle can only be read, tested and
//! moved together.
//!
//! A file imports another if it names something that the other defines, in a `use` or in a path. A
//! re-export is followed to the file that defines what is named, so a `mod.rs` that only re-exports
//! from its files is not in a circle with them. Code under `#[cfg(test)]` is left out: tests name
//! what they test.

mod graph;
mod modules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::graph::{Circle, circles};
use self::modules::Modules;
use super::sources::{root, sources};

/// Folders in which a circle is known and is about to go. One without a circle fails the check: it
/// is to be deleted here.
const KNOWN: &[&str] = &[
    "ktrace-ebpf/src",
    "ktrace-kafka/tests/oracle",
    "ktrace-user/src/capture",
    "ktrace-user/src/cli",
    "ktrace-user/src/export",
    "ktrace-user/src/hop/appends",
    "ktrace-user/src/hop/groups",
];

/// Fails with the files of each circle, and with the imports that close it.
pub(super) fn check() -> Result<()> {
    let roots = roots()?;
    ensure!(!roots.is_empty(), "no crates were found");
    let read = |path: &Path| fs::read_to_string(path).ok();
    let mut found = Vec::new();
    for root in &roots {
        let modules = Modules::read(root, &read).with_context(|| root.display().to_string())?;
        found.extend(circles(&modules.imports()));
    }
    let top = root().canonicalize()?;
    let failures = judge(&found, &top, KNOWN);
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    println!(
        "{} crates and targets: no circles{}",
        roots.len(),
        if KNOWN.is_empty() { "" } else { " but known ones" }
    );
    Ok(())
}

/// What is wrong: circles that are not known, and known ones that are gone.
fn judge(found: &[Circle], top: &Path, known: &[&str]) -> Vec<String> {
    let lies_in =
        |circle: &Circle, folder: &&str| circle.files.iter().all(|file| file.starts_with(top.join(folder)));
    let unknown = found.iter().filter(|circle| !known.iter().any(|folder| lies_in(circle, folder)));
    let gone = known.iter().filter(|folder| !found.iter().any(|circle| lies_in(circle, folder)));
    unknown
        .map(|circle| circle.describe(top))
        .chain(
            gone.map(|folder| {
                format!("{folder} has no circle any more: delete it from KNOWN in {}", file!())
            }),
        )
        .collect()
}

/// The root files of every target of every crate of the repository, also of those that are
/// workspaces of their own.
fn roots() -> Result<Vec<PathBuf>> {
    let mut manifests: BTreeSet<PathBuf> = sources(|path| path.ends_with("Cargo.toml"))?
        .into_iter()
        .filter(|(_, text)| text.contains("[package]"))
        .map(|(path, _)| root().canonicalize().map(|top| top.join(path)))
        .collect::<Result<_, _>>()?;
    let mut roots = BTreeSet::new();
    while let Some(manifest) = manifests.pop_first() {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
            .arg(&manifest)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        for package in metadata["packages"].as_array().context("no packages")? {
            // All members of a workspace are described at once.
            manifests.remove(Path::new(package["manifest_path"].as_str().context("no manifest")?));
            for target in package["targets"].as_array().context("no targets")? {
                roots.insert(PathBuf::from(target["src_path"].as_str().context("no root")?));
            }
        }
    }
    Ok(roots.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The circles of a crate whose files are given, by the names of their files.
    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        circles_of(files)
            .iter()
            .map(|circle| circle.files.iter().map(|file| file.display().to_string()).collect())
            .collect()
    }

    fn circles_of(files: &[(&str, &str)]) -> Vec<Circle> {
        let read = |path: &Path| {
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*text).to_owned())
        };
        circles(&Modules::read(Path::new("lib.rs"), &read).unwrap().imports())
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; mod c;");

    #[test]
    fn two_files_that_use_each_other_are_found() {
        let files = [
            ROOT,
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B(crate::a::A);"),
            ("c.rs", ""),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
        let text = circles_of(&files)[0].describe(Path::new(""));
        assert!(text.contains("a.rs:1 names B of b.rs") && text.contains("b.rs:1 names A of a.rs"), "{text}");
    }

    #[test]
    fn a_circle_of_three_is_found_and_one_way_is_none() {
        let a = ("a.rs", "use crate::b::{self, Other}; pub struct A; fn f() { b::run(Other) }");
        let c = ("c.rs", "use super::a::A as First; pub fn g(_: First) {}");
        let b = ("b.rs", "pub struct Other; pub fn run(_: Other) { super::c::g(todo()) }");
        assert_eq!(found(&[ROOT, a, b, c]), [["a.rs", "b.rs", "c.rs"]]);
        let b = ("b.rs", "pub struct Other; pub fn run(_: Other) {}");
        assert!(found(&[ROOT, a, b, c]).is_empty());
    }

    #[test]
    fn a_module_that_only_re_exports_is_in_no_circle() {
        let child = ("a/inner.rs", "use super::Shape; pub struct Inner(Shape);");
        let re_exports = ("a/mod.rs", "mod inner; pub use inner::Inner; pub struct Shape;");
        let root = ("lib.rs", "mod a;");
        assert!(found(&[root, child, re_exports]).is_empty());
        let uses = ("a/mod.rs", "mod inner; pub use inner::Inner; pub struct Shape; fn f(_: Inner) {}");
        assert_eq!(found(&[root, child, uses]), [["a/inner.rs", "a/mod.rs"]]);
    }

    #[test]
    fn a_re_export_is_followed_to_the_file_that_defines() {
        let root = ("lib.rs", "mod a; mod b; pub use b::*;");
        let a = ("a.rs", "pub struct A; fn f(_: crate::B) {}");
        assert_eq!(found(&[root, a, ("b.rs", "pub struct B(crate::a::A);")]), [["a.rs", "b.rs"]]);
        assert!(found(&[root, a, ("b.rs", "pub struct B;")]).is_empty());
    }

    #[test]
    fn attributes_macros_and_functions_count() {
        for a in [
            "#[arg(value_parser = crate::b::parse)] pub struct A;",
            "pub struct A; fn f() { println!(\"{}\", crate::b::parse()) }",
            "pub struct A; fn f() { use super::b::parse; }",
            "pub struct A; mod inner { use super::super::b::*; }",
        ] {
            let files =
                [("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", "use crate::a::A; pub fn parse() {}")];
            assert_eq!(found(&files), [["a.rs", "b.rs"]], "{a}");
        }
    }

    #[test]
    fn tests_and_comments_do_not_count() {
        for a in [
            "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
            "pub struct A; #[cfg(test)] use crate::b::{B}; ",
            "/// See [`crate::b::B`].\npub struct A; // crate::b::B",
            "pub struct A; #[cfg(test)] mod tests;",
        ] {
            let tests = ("a/tests.rs", "use crate::b::B;");
            let files =
                [("lib.rs", "mod a; mod b;"), ("a.rs", a), tests, ("b.rs", "pub struct B(crate::a::A);")];
            assert!(found(&files).is_empty(), "{a}");
        }
    }

    #[test]
    fn a_known_circle_passes_until_it_is_gone() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; fn f(_: b::B) {} pub struct A;"),
            ("a/b.rs", "pub struct B(super::A);"),
        ];
        let found = circles_of(&files);
        assert_eq!(judge(&found, Path::new(""), &[]).len(), 1);
        assert!(judge(&found, Path::new(""), &["a"]).is_empty());
        assert_eq!(judge(&[], Path::new(""), &["a"]).len(), 1);
        assert_eq!(judge(&found, Path::new(""), &["elsewhere"]).len(), 2);
    }

    /// Modules that import all names of each other, and a name that none of them has.
    #[test]
    fn a_search_through_globs_ends() {
        let names: Vec<String> = (0..30).map(|number| format!("m{number}")).collect();
        let globs: String = names.iter().map(|name| format!("pub use crate::{name}::*;")).collect();
        let root: String = names.iter().map(|name| format!("mod {name};")).collect();
        let text = format!("{globs} fn f() {{ unknown::name() }}");
        let paths: Vec<String> = names.iter().map(|name| format!("{name}.rs")).collect();
        let mut files = vec![("lib.rs", &*root)];
        files.extend(paths.iter().map(|path| (&**path, &*text)));
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_file_that_is_missing_is_an_error() {
        let read = |path: &Path| (path == Path::new("lib.rs")).then(|| "mod gone;".to_owned());
        assert!(Modules::read(Path::new("lib.rs"), &read).is_err());
    }
}
