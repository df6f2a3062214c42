//! Builds programs of the workspace as they are released, for each processor, on an x86-64 host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use harness::cache;

use crate::apt::Apt;
use crate::arch::Arch;

#[derive(Args)]
pub struct Options {
    /// The processor that it is built for
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
}

/// Builds the agent as it is released, and prints its path.
pub fn agent(options: &Options) -> Result<()> {
    println!("{}", program(options.arch, "ktrace-user", "ktrace")?.display());
    Ok(())
}

/// Builds a program of the workspace as it is released, and gives its path.
pub fn program(arch: Arch, package: &str, program: &str) -> Result<PathBuf> {
    let target = arch.target();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q", "--release", "--target", target, "-p", package, "--bin", program]);
    if arch == Arch::Arm64 {
        // The C parts of mimalloc, ring and zstd: clang compiles for all processors. What it lacks are
        // headers.
        let musl = cache::tool("musl-arm64", &["bookworm", "musl-dev"], |dir| {
            Apt::new("bookworm", arch)?.unpack("musl-dev", dir)
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
