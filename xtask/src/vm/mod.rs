//! `cargo xtask vm`: Debian's kernels in QEMU, by software emulation, each with a test of ours as all of its user space.

mod initramfs;
mod kernels;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use harness::need;
use harness::scratch::Scratch;

use initramfs::Archive;
use kernels::Kernel;

/// What every program in a machine is built for: the initramfs has no C library.
const TARGET: &str = "x86_64-unknown-linux-musl";

#[derive(Args)]
pub struct Options {
    /// Kernels to boot; all of them if none is named
    #[arg(value_enum)]
    kernels: Vec<Kernel>,
    /// Load the programs and send a little, rather than everything
    #[arg(long)]
    short: bool,
    /// A static program of your own, with its arguments, instead of the traffic test
    #[arg(last = true, value_name = "PROGRAM")]
    run: Vec<String>,
}

/// Runs the program on each kernel, one after the other; an error if it failed on any.
pub fn vm(options: Options) -> Result<()> {
    let kernels = if options.kernels.is_empty() { Kernel::ALL.to_vec() } else { options.kernels };
    let init = build()?;
    let mut failed = Vec::new();
    for kernel in kernels {
        let image = kernels::fetch(kernel)?;
        let scratch = Scratch::new()?;
        let initramfs = scratch.join("initramfs");
        fs::write(&initramfs, archive(&init, &image, &options.run, options.short)?)?;
        println!("== {}", image.release);
        match machine::run(&image.vmlinuz, &initramfs) {
            Ok(0) => println!("== {}: ok", image.release),
            Ok(status) => failed.push(format!("{}: exit status {status}", image.release)),
            Err(error) => failed.push(format!("{}: {error:#}", image.release)),
        }
    }
    ensure!(failed.is_empty(), "failed on\n  {}", failed.join("\n  "));
    Ok(())
}

/// The traffic test, which is also the machines' init.
fn build() -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "-q", "--release", "--target", TARGET, "-p", "ktrace-kernel-tests"])
        .status()?;
    ensure!(status.success(), "the traffic test does not build");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(TARGET).join("release/traffic"))
}

/// What the machine boots into: our init, the kernel's modules that it loads, the program, and a shell for tests that want one.
fn archive(init: &Path, image: &kernels::Image, run: &[String], short: bool) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
        archive.directory(directory);
    }
    archive.program("init", &fs::read(init).with_context(|| init.display().to_string())?);
    for (index, (name, module)) in image.modules.iter().enumerate() {
        archive.file(&format!("modules/{index}-{name}"), module);
    }
    let mut command = vec!["/init".to_owned(), "traffic".into()];
    if short {
        command.push("--short".into());
    }
    if let Some((program, arguments)) = run.split_first() {
        let bytes = fs::read(program).with_context(|| program.clone())?;
        // PT_INTERP names the dynamic loader, which is not there
        if bytes.windows(7).any(|window| window == b"/lib64/") {
            bail!("{program} is not static: build it for {TARGET}");
        }
        archive.program("program", &bytes);
        command = vec!["/program".into()];
        command.extend_from_slice(arguments);
    }
    archive.file("command", command.join("\0").as_bytes());
    if let Some(busybox) = need::on_path("busybox") {
        archive.program("bin/busybox", &fs::read(busybox)?);
        for name in ["sh", "ip", "unshare", "sleep", "cat", "ls", "mount"] {
            archive.link(&format!("bin/{name}"), "busybox");
        }
    }
    if let Some(bash) = need::on_path("bash-static") {
        archive.program("bin/bash", &fs::read(bash)?);
    }
    Ok(archive.finish())
}
