//! Builds the eBPF programs into the agent.
//!
//! Sets the cfg `ktrace_ebpf` where that was done. It is not where `bpf-linker` is missing or `AYA_BUILD_SKIP=1`: then the agent builds and its
//! tests pass all the same, but it cannot capture from the kernel.

use std::env;

use anyhow::Context as _;

/// The toolchain of `rust-toolchain.toml`, for builds that rustup did not start.
const TOOLCHAIN: &str = "1.98.0";

fn main() -> anyhow::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(ktrace_ebpf)");
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../ktrace-common/src");
    println!("cargo::rerun-if-changed=../ktrace-ebpf");

    if env::var_os("AYA_BUILD_SKIP").is_some_and(|skip| skip == "1" || skip.eq_ignore_ascii_case("true")) {
        println!("cargo::warning=AYA_BUILD_SKIP is set: built without eBPF, live capture will not work");
        return Ok(());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let linker =
        env::split_paths(&path).map(|folder| folder.join("bpf-linker")).find(|linker| linker.is_file());
    let Some(linker) = linker else {
        println!("cargo::rerun-if-env-changed=PATH");
        println!("cargo::warning=no bpf-linker in PATH: built without eBPF, live capture will not work");
        return Ok(());
    };
    println!("cargo::rerun-if-changed={}", linker.display());
    if env::var_os("RUSTC_BOOTSTRAP").is_none() {
        // The BPF targets have no prebuilt core, and a stable toolchain builds its own only with this set.
        // SAFETY: the build script has one thread.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    // Its progress would come as warnings of this crate.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| TOOLCHAIN.to_owned());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../ktrace-ebpf");
    let package = aya_build::Package { name: "ktrace-ebpf", root_dir: root, ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain))
        .context("building the eBPF programs")?;
    println!("cargo::rustc-cfg=ktrace_ebpf");
    Ok(())
}
