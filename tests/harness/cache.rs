//! Where downloaded and built tools are kept between runs, each in a directory named for what it is
//! and for the hash of the recipe that made it: a changed pin makes a new directory, an unchanged
//! one is used as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// `$XDG_CACHE_HOME/ktrace-dev`, else `~/.cache/ktrace-dev`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("ktrace-dev"))
}

/// The directory of a tool; made by `build` if it is not there yet. Two processes that ask at the
/// same time build once; a build that broke off is begun anew.
pub fn tool(name: &str, recipe: &[&str], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    let dir = root.join(format!("{name}-{:08x}", fingerprint(recipe)));
    let ready = dir.join(".ready");
    if ready.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(&root)?;
    let lock = File::create(root.join(format!(".{name}.lock")))?;
    lock.lock()?;
    if ready.exists() {
        return Ok(dir);
    }
    let since = Instant::now();
    eprintln!("setup: {name} …");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    build(&dir).with_context(|| format!("cannot set up {name}"))?;
    fs::write(&ready, "")?;
    eprintln!("setup: {name} ready after {:.0} s", since.elapsed().as_secs_f32());
    Ok(dir)
}

/// Runs a step of a build at low priority; its output is shown only when it fails.
pub fn step(
    program: impl AsRef<std::ffi::OsStr>,
    change: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<()> {
    let mut command = Command::new("nice");
    command.arg(program);
    change(&mut command);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// FNV-1a, folded to 32 bits: names must stay the same from one Rust version to the next, which
/// std's hash does not promise.
fn fingerprint(recipe: &[&str]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in recipe.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn recipes_differ_by_their_parts() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_eq!(fingerprint(&["ab", "c"]), fingerprint(&["ab", "c"]));
    }
}
