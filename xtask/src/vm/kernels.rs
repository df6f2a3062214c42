//! Debian's kernels, each out of the suite that has it, by a private directory of apt: the host's own lists stay as they are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use harness::cache;

/// How old a suite's index may be before it is asked for anew.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Debian's "cloud" kernels: small, with BTF, a serial console, and all that BPF needs built in.
const FLAVOUR: &str = "cloud-amd64";

/// What the init loads, in this order: sockets are listed by `sock_diag`, loss and reordering are made by netem.
const MODULES: [&str; 5] = ["inet_diag", "tcp_diag", "mptcp_diag", "veth", "sch_netem"];

/// A kernel, by its version; the newest by its suite, as its version moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kernel {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    Sid,
}

impl Kernel {
    pub(super) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Sid];

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// A kernel on this disk.
pub(super) struct Image {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    /// Names and contents of [`MODULES`], those that this kernel has.
    pub(super) modules: Vec<(String, Vec<u8>)>,
}

/// The newest version of the kernel that its suite has, downloaded once.
pub(super) fn fetch(kernel: Kernel) -> Result<Image> {
    let apt = Apt::new(kernel.suite())?;
    apt.update()?;
    let meta = format!("linux-image-{FLAVOUR}");
    let package = apt
        .depends(&meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-") && name.ends_with(FLAVOUR))
        .with_context(|| format!("{} has no {meta}", apt.suite))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let dir = cache::tool(&format!("linux-{release}"), &["packages unpacked"], |dir| {
        // newer releases are in several packages: linux-binary, linux-modules
        let parts = apt.depends(&package)?;
        let parts = parts.iter().filter(|name| name.starts_with("linux-") && name.ends_with(&release));
        for name in [&package].into_iter().chain(parts) {
            let file = apt.download(name, dir)?;
            cache::step("dpkg-deb", |command| command.arg("-x").arg(&file).arg(dir))?;
            fs::remove_file(file)?;
        }
        Ok(())
    })?;
    let files = files(&dir)?;
    let named = |start: &str| {
        files
            .iter()
            .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
    };
    let vmlinuz = named("vmlinuz").with_context(|| format!("{package} has no vmlinuz"))?.clone();
    let mut modules = Vec::new();
    for name in MODULES {
        if let Some(file) = named(&format!("{name}.ko")) {
            modules.push((format!("{name}.ko"), read_module(file)?));
        }
    }
    Ok(Image { release, vmlinuz, modules })
}

/// Uncompressed: not every kernel can do that itself.
fn read_module(file: &Path) -> Result<Vec<u8>> {
    if file.extension() != Some(OsStr::new("xz")) {
        return Ok(fs::read(file)?);
    }
    let output = Command::new("xz").arg("-dc").arg(file).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "xz cannot read {}", file.display());
    Ok(output.stdout)
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
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

/// One suite of the archive that this host's packages come from.
struct Apt {
    suite: &'static str,
    dir: PathBuf,
}

impl Apt {
    fn new(suite: &'static str) -> Result<Self> {
        let dir = cache::root()?.join(format!("apt-{suite}"));
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        Ok(Self { suite, dir })
    }

    /// A command of apt's, which sees only this suite.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
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
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["depends", package]).output()?;
        ensure!(output.status.success(), "{} has no {package}", self.suite);
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
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
