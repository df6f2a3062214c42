//! The processors that ktrace is built for, and how cargo builds for each of them on an x86-64 host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use harness::cache;

use crate::apt::Apt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    #[value(name = "x86-64")]
    X86_64,
    Arm64,
}

#[derive(Args)]
pub struct Options {
    /// The processor that it is built for
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
}

/// Builds the agent as it is released, and tells its path.
pub fn build(options: &Options) -> Result<()> {
    println!("{}", options.arch.build("ktrace-user", "ktrace")?.display());
    Ok(())
}

impl Arch {
    /// As Debian calls it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's target: static, without a C library of the system's.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Builds a program of the workspace as it is released, and gives its path.
    pub fn build(self, package: &str, program: &str) -> Result<PathBuf> {
        let target = self.target();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "--release", "--target", target, "-p", package, "--bin", program]);
        if self == Self::Arm64 {
            // The C parts of mimalloc, ring and zstd: clang compiles for all processors. What it lacks are headers.
            let musl = cache::tool("musl-arm64", &["bookworm", "musl-dev"], |dir| {
                Apt::new("bookworm", self)?.unpack("musl-dev", dir)
            })?;
            let musl = musl.display();
            cargo
                .env("CC_aarch64_unknown_linux_musl", "clang-22")
                .env("AR_aarch64_unknown_linux_musl", "llvm-ar-22")
                .env(
                    "CFLAGS_aarch64_unknown_linux_musl",
                    format!("--sysroot={musl} -isystem {musl}/usr/include/aarch64-linux-musl"),
                )
                // rustc's own, as are the C library and the objects that a program begins and ends with
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
        }
        ensure!(cargo.status()?.success(), "{program} does not build for {target}");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let targets = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(targets.join(target).join("release").join(program))
    }
}
