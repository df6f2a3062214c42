//! What runs in the kernel: the two programs on the way of every packet, those that report who owns
//! a socket, one that overwrites what was read, and, where secrets of TLS are asked for, those that
//! see them derived.
//!
//! Nothing here keeps a packet back, changes it or waits: `egress` and `ingress` always return 1
//! ("pass"), `connect4` and `connect6` as well. Needs Linux 5.8: ring buffer (5.8), socket cookies
//! and process ids in these programs (5.8), cgroup `bpf_link` (5.7); `sock_release` needs 5.9.
//! Built for the BPF targets only; for any other target this is an empty program, so that checks
//! over the whole workspace pass.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod kdf;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod owner;
#[cfg(target_arch = "bpf")]
mod recognition;
#[cfg(target_arch = "bpf")]
mod request;
#[cfg(target_arch = "bpf")]
mod scrub;
#[cfg(target_arch = "bpf")]
mod segment;
#[cfg(target_arch = "bpf")]
mod socket;

/// Lets the programs use helpers that the kernel keeps for GPL-compatible ones.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses programs that could.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
