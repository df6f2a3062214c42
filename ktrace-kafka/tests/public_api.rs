//! The public API of the crates that others use is the one in `tests/public-api/`, so a change of
//! it is meant and is seen in review. `UPDATE_PUBLIC_API=1` writes the files anew.
//!
//! The list comes from rustdoc's JSON. That is unstable, so the pinned toolchain has to be allowed
//! to, and what it writes is what the version of the `public-api` crate in `Cargo.lock` reads.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rustdoc, allowed to use what is unstable. The variable is set for it alone: for cargo it would
/// have the dependencies built anew.
fn rustdoc() -> PathBuf {
    let rustdoc = Path::new(env!("CARGO")).with_file_name("rustdoc");
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rustdoc");
    std::fs::write(&script, format!("#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec '{}' \"$@\"\n", rustdoc.display()))
        .expect("the script is written");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("the script may be run");
    script
}

fn check(package: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().expect("the workspace");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the folder of all builds");
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .env("RUSTDOC", rustdoc())
        .args(["rustdoc", "--quiet", "--lib", "--package", package, "--target-dir"])
        .arg(target)
        .args(["--", "-Zunstable-options", "--output-format=json", "--cap-lints=allow"])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "rustdoc of {package}");

    let json = target.join("doc").join(package.replace('-', "_")).with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .expect("the JSON is read");
    let now = api.to_string();

    let file = here.join("tests/public-api").join(package).with_extension("txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some_and(|update| update == "1") {
        std::fs::write(&file, &now).expect("the list is written");
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let only = |mine: &str, other: &str| -> Vec<String> {
        mine.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    let (added, removed) = (only(&now, &before), only(&before, &now));
    assert!(
        added.is_empty() && removed.is_empty(),
        "the public API of {package} has changed. If that is meant, run this test with UPDATE_PUBLIC_API=1.\n\
         added: {added:#?}\nremoved: {removed:#?}"
    );
}

#[test]
fn the_public_api_is_the_one_in_the_list() {
    check("ktrace-kafka");
    check("ktrace-tls");
}
