//! `cargo xtask vm`: Debian's kernels in QEMU, by software emulation, each with a test of ours as
//! all of its user space.

mod initramfs;
mod kernels;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use harness::scratch::Scratch;
use harness::{cache, need};

use initramfs::Archive;
use kernels::Kernel;

use crate::apt::Apt;
use crate::arch::Arch;
use crate::release_build;

#[derive(Args)]
pub struct Options {
    /// Kernels to boot; all of them if none is named
    #[arg(value_enum)]
    kernels: Vec<Kernel>,
    /// The processor that is emulated
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// Load the programs and send a little, rather than everything
    #[arg(long)]
    short: bool,
    /// A static program of your own, with its arguments, instead of the traffic test
    #[arg(last = true, value_name = "PROGRAM")]
    run: Vec<String>,
}

/// Runs the program on each kernel, one after the other; an error if it failed on any.
pub fn vm(options: &Options) -> Result<()> {
    let arch = options.arch;
    let kernels = if options.kernels.is_empty() { Kernel::all(arch) } else { &options.kernels };
    // The traffic test is also the machines' init.
    let init = release_build::program(arch, "ktrace-kernel-tests", "traffic")?;
    let mut failed = Vec::new();
    for &kernel in kernels {
        let image = kernels::fetch(kernel, arch)?;
        let scratch = Scratch::new()?;
        let initramfs = scratch.join("initramfs");
        fs::write(&initramfs, archive(&init, &image, options)?)?;
        println!("== {}", image.release);
        match machine::run(arch, &image.vmlinuz, &initramfs) {
            Ok(0) => println!("== {}: ok", image.release),
            Ok(status) => failed.push(format!("{}: exit status {status}", image.release)),
            Err(error) => failed.push(format!("{}: {error:#}", image.release)),
        }
    }
    ensure!(failed.is_empty(), "failed on\n  {}", failed.join("\n  "));
    Ok(())
}

/// What the machine boots into: our init, the kernel's modules that it loads, the program, and a
/// shell for tests that want one.
fn archive(init: &Path, image: &kernels::Image, options: &Options) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
        archive.directory(directory);
    }
    archive.program("init", &fs::read(init).with_context(|| init.display().to_string())?);
    for (index, (name, module)) in image.modules.iter().enumerate() {
        archive.file(&format!("modules/{index}-{name}"), module);
    }
    let mut command = vec!["/init".to_owned(), "traffic".into()];
    if options.short {
        command.push("--short".into());
    }
    if let Some((program, arguments)) = options.run.split_first() {
        let bytes = fs::read(program).with_context(|| program.clone())?;
        // PT_INTERP names the dynamic loader, which is not there
        if bytes.windows(10).any(|window| window == b"/ld-linux-") {
            bail!("{program} is not static: build it for {}", options.arch.target());
        }
        archive.program("program", &bytes);
        command = vec!["/program".into()];
        command.extend_from_slice(arguments);
    }
    archive.file("command", command.join("\0").as_bytes());
    if let Some(busybox) = shell(options.arch, "busybox")? {
        archive.program("bin/busybox", &fs::read(busybox)?);
        for name in ["sh", "ip", "unshare", "sleep", "cat", "ls", "mount"] {
            archive.link(&format!("bin/{name}"), "busybox");
        }
    }
    if let Some(bash) = shell(options.arch, "bash-static")? {
        archive.program("bin/bash", &fs::read(bash)?);
    }
    Ok(archive.finish())
}

/// A static program: this host's own, if it has it, or Debian's for another processor.
fn shell(arch: Arch, name: &str) -> Result<Option<PathBuf>> {
    if arch == Arch::X86_64 {
        return Ok(need::on_path(name));
    }
    let packages = ["busybox-static", "bash-static"];
    let root = cache::tool(&format!("shells-{}", arch.debian()), &packages, |dir| {
        let apt = Apt::new("bookworm", arch)?;
        packages.iter().try_for_each(|package| apt.unpack(package, dir))
    })?;
    Ok(Some(root.join("bin").join(name)))
}
