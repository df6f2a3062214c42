//! Debian's kernels, each out of the suite that has it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use harness::cache;

use crate::apt::{self, Apt};
use crate::arch::Arch;

/// What the init loads, in this order: sockets are listed by `sock_diag`, loss and reordering are
/// made by netem.
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
    /// Of arm64 alone: memory in pages of 16 KiB
    #[value(name = "6.12-16k")]
    V6_12Pages16k,
    Sid,
}

impl Kernel {
    /// All that there are for a processor.
    pub(super) fn all(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::X86_64 => &[Self::V5_10, Self::V6_1, Self::V6_12, Self::Sid],
            Arch::Arm64 => &[Self::V5_10, Self::V6_1, Self::V6_12, Self::V6_12Pages16k, Self::Sid],
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 | Self::V6_12Pages16k => "trixie",
            Self::Sid => "sid",
        }
    }

    /// Debian's "cloud" kernels are small, with BTF, a serial console, and all that BPF needs built
    /// in.
    fn flavour(self, arch: Arch) -> String {
        match self {
            Self::V6_12Pages16k => "arm64-16k".into(),
            _ => format!("cloud-{}", arch.debian()),
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
pub(super) fn fetch(kernel: Kernel, arch: Arch) -> Result<Image> {
    let apt = Apt::new(kernel.suite(), arch)?;
    let flavour = kernel.flavour(arch);
    let meta = format!("linux-image-{flavour}");
    let package = apt
        .depends(&meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-") && name.ends_with(&flavour))
        .with_context(|| format!("{} has no {meta}", kernel.suite()))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let dir = cache::tool(&format!("linux-{release}"), &["packages unpacked"], |dir| {
        // newer releases are in several packages: linux-binary, linux-modules
        let parts = apt.depends(&package)?;
        let parts = parts.iter().filter(|name| name.starts_with("linux-") && name.ends_with(&release));
        for name in [&package].into_iter().chain(parts) {
            apt.unpack(name, dir)?;
        }
        Ok(())
    })?;
    let files = apt::files(&dir)?;
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
