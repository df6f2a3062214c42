//! Packages of any of Debian's suites and architectures, by a private directory of apt: the host's
//! own lists stay as they are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::cache;

use crate::arch::Arch;

/// How old a suite's index may be before it is asked for anew.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// One suite of the archive that this host's packages come from.
pub struct Apt {
    suite: &'static str,
    arch: Arch,
    dir: PathBuf,
}

impl Apt {
    /// With an index that is at most a day old, if it can be had.
    pub fn new(suite: &'static str, arch: Arch) -> Result<Self> {
        let dir = cache::root()?.join(format!("apt-{suite}-{}", arch.debian()));
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let apt = Self { suite, arch, dir };
        apt.update()?;
        Ok(apt)
    }

    /// A command of apt's, which sees only this suite, and it as a host of this architecture does.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let (dir, arch) = (self.dir.display(), self.arch.debian());
        for option in [
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Dir::State::status=/dev/null".into(),
            "Acquire::Languages=none".into(),
            // else root's downloads would have to be in a place that apt's own user may write to
            "APT::Sandbox::User=root".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Asks for the suite's index, if it is not there or old; where that fails, an old one does.
    fn update(&self) -> Result<()> {
        let updated = self.dir.join("updated");
        let age =
            fs::metadata(&updated).and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {} main\n",
            mirror()?,
            self.suite
        );
        fs::write(self.dir.join("sources.list"), source)?;
        let output = self.command("apt-get").args(["-qq", "update"]).output()?;
        if output.status.success() {
            fs::write(updated, "")?;
        } else {
            let why = String::from_utf8_lossy(&output.stderr);
            ensure!(updated.exists(), "cannot read the index of {}:\n{why}", self.suite);
            eprintln!("setup: the index of {} is an old one: {why}", self.suite);
        }
        Ok(())
    }

    /// What a package depends on, by name.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["depends", package]).output()?;
        ensure!(output.status.success(), "{} has no {package}", self.suite);
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// Downloads a package, and unpacks it into the directory.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let file = self.download(package, into)?;
        cache::step("dpkg-deb", |command| command.arg("-x").arg(&file).arg(into))?;
        Ok(fs::remove_file(file)?)
    }

    /// Downloads a package into the directory, and gives its path.
    fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        let output = command.args(["-qq", "download", package]).current_dir(into).output()?;
        ensure!(
            output.status.success(),
            "cannot download {package}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        files(into)?
            .into_iter()
            .find(|file| {
                file.extension() == Some(OsStr::new("deb"))
                    && file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(package))
            })
            .with_context(|| format!("{package} was not downloaded"))
    }
}

/// Where this host's Debian packages come from.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"])
        .output()
        .context("needs Debian's apt")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.ends_with(" Debian Debian"));
    let site = line.and_then(|line| line.split(' ').next());
    Ok(site.context("this host has no packages of Debian's main archive")?.to_owned())
}

/// All files below a directory.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
