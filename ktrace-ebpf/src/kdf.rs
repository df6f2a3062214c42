//! Secrets of TLS connections, seen where libraries derive their keys: OpenSSL's `EVP_KDF_derive`,
//! whose arguments are public ABI, and Go's `crypto/tls.(*Config).writeKeyLog`, which is called
//! whether or not anything is logged. Both are called in handshakes alone.
//!
//! These programs run in every process that has the file mapped. All but those that have just
//! connected to a Kafka port ([`EXPECTING`]) leave at once: secrets of others never reach the ring.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, generated},
    macros::{map, uprobe},
    maps::{LruHashMap, RingBuf},
    programs::{ProbeContext, SockAddrContext},
};
use ktrace_common::{
    BLANK_BYTES, Counter, KEY_EXPANSION, LABEL_BYTES, Parameter, SECRET_BYTES, Secret, SecretKind,
};

use crate::maps::{blank, count};

/// Whether secrets are wanted at all; set before loading.
#[unsafe(no_mangle)]
static SECRETS_WANTED: Global<u8> = Global::new(0);

/// A handshake begins right after the connect. Librdkafka gives one 30 s
/// (`socket.connection.setup.timeout.ms`).
const PATIENCE_NS: u64 = 60_000_000_000;
/// The agent looks again at what a process has mapped, when it connects after so long: it may have
/// loaded a library meanwhile.
const AGAIN_NS: u64 = 5_000_000_000;
/// OpenSSL passes 8 at most (`tls1_PRF` in `ssl/t1_enc.c`, `tls13_hkdf_expand` in
/// `ssl/tls13_enc.c`), the last of which ends them.
const PARAMETERS: usize = 10;

/// Secrets, and the processes that connect. The agent overwrites what it has read.
#[map]
pub static SECRETS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// When each process has last connected to a port that TLS is read on.
#[map]
static EXPECTING: LruHashMap<u32, u64> = LruHashMap::with_max_entries(8192, 0);

/// What secret a thread has just derived: the keys that come from it are derived next, by the same
/// thread.
#[map]
static DERIVED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1024, 0);

/// The current process connects to a port that TLS is read on.
#[inline(always)]
pub fn connecting(ctx: &SockAddrContext) {
    if SECRETS_WANTED.load() == 0 {
        return;
    }
    let pid = ctx.tgid();
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the word is written as a whole.
    let last = EXPECTING.get_ptr(&pid).map_or(0, |last| unsafe { last.read_volatile() });
    if EXPECTING.insert(&pid, &now, 0).is_err() || now.wrapping_sub(last) < AGAIN_NS {
        return;
    }
    let Some(mut entry) = SECRETS.reserve::<Secret>(0) else {
        count(Counter::SecretLost, 0);
        return;
    };
    let secret = entry.as_mut_ptr();
    // SAFETY: the reservation is exclusive and has room for the whole; its first two fields of 8
    // bytes are written, the rest is set to zero.
    unsafe {
        secret.cast::<u32>().write(u32::from_ne_bytes([SecretKind::Connecting as u8, 0, 0, 0]));
        (&raw mut (*secret).pid).write(pid);
        (&raw mut (*secret).time_ns).write(now);
        zero((&raw mut (*secret).client_random).cast(), 4);
        zero((&raw mut (*secret).secret).cast(), SECRET_BYTES / 8);
    }
    // Wakes the agent: the handshake comes in a moment.
    entry.submit(0);
}

/// Whether the process may be in a handshake with a broker.
#[inline(always)]
fn expects(pid: u32) -> bool {
    // SAFETY: the word is written as a whole.
    let Some(last) = EXPECTING.get_ptr(&pid).map(|last| unsafe { last.read_volatile() }) else {
        return false;
    };
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_ns() }.wrapping_sub(last) < PATIENCE_NS
}

/// `int EVP_KDF_derive(EVP_KDF_CTX *, unsigned char *, size_t, const OSSL_PARAM *)`.
///
/// TLS 1.3 derives a secret by its label and then, from the secret, what has the labels `key` and
/// `iv`: so the next call of the thread that is for a `key` has the secret. TLS 1.2 derives all its
/// keys by one call, behind the label `key expansion`.
#[uprobe]
pub fn kdf_derive(ctx: ProbeContext) -> u32 {
    on_derive(&ctx)
}

/// The same, attached by a link (Linux 6.6).
#[uprobe(multi)]
pub fn kdf_derive_link(ctx: ProbeContext) -> u32 {
    on_derive(&ctx)
}

#[inline(always)]
fn on_derive(ctx: &ProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if expects((thread >> 32) as u32)
        && let Some(parameters) = ctx.arg::<*const [u64; 5]>(3)
    {
        derive(thread, parameters);
    }
    0
}

/// Bytes of the process.
#[derive(Clone, Copy)]
struct Bytes {
    at: u64,
    length: u64,
}

const NONE: Bytes = Bytes { at: 0, length: 0 };

#[inline(always)]
fn derive(thread: u64, parameters: *const [u64; 5]) {
    let (mut key, mut label, mut secret) = (NONE, NONE, NONE);
    let (mut first_seed, mut third_seed, mut seeds) = (NONE, NONE, 0_u32);
    for index in 0..PARAMETERS {
        // `struct ossl_param_st`: name, type, data, size of the data, size that is returned.
        // SAFETY: the helper reads what is mapped, and fails otherwise.
        let Ok([name, _, at, length, _]) = (unsafe { bpf_probe_read_user(parameters.wrapping_add(index)) })
        else {
            count(Counter::SecretLost, 0);
            return;
        };
        if name == 0 {
            break;
        }
        // SAFETY: as above.
        let Ok(name) = (unsafe { bpf_probe_read_user(name as *const [u8; 8]) }) else {
            count(Counter::SecretLost, 0);
            return;
        };
        let bytes = Bytes { at, length };
        match Parameter::of_name(name) {
            Parameter::Key => key = bytes,
            Parameter::Label => label = bytes,
            Parameter::Secret => secret = bytes,
            Parameter::Seed => {
                match seeds {
                    0 => first_seed = bytes,
                    2 => third_seed = bytes,
                    _ => {}
                }
                seeds += 1;
            }
            Parameter::Other => {}
        }
    }
    if label.length != 0 {
        // SAFETY: as above.
        if label.length == 3 && unsafe { bpf_probe_read_user(label.at as *const [u8; 3]) } == Ok(*b"key") {
            // SAFETY: the word is written as a whole.
            let kind = DERIVED.get_ptr(&thread).map_or(0, |kind| unsafe { kind.read_volatile() });
            if kind != 0 {
                let _ = DERIVED.remove(&thread);
                give(thread, kind as u8, key, NONE);
            }
            return;
        }
        let kind = if label.length == LABEL_BYTES as u64 {
            // SAFETY: as above.
            unsafe { bpf_probe_read_user(label.at as *const [u8; LABEL_BYTES]) }
                .ok()
                .and_then(SecretKind::of_label)
        } else {
            None
        };
        match kind {
            // Where the kernel has no room for it, the secret is not known.
            Some(kind) => _ = DERIVED.insert(&thread, &u32::from(kind as u8), 0),
            None => _ = DERIVED.remove(&thread),
        }
    } else if secret.length == SECRET_BYTES as u64
        && first_seed.length == KEY_EXPANSION.len() as u64
        && third_seed.length == 32
        // SAFETY: as above.
        && unsafe { bpf_probe_read_user(first_seed.at as *const [u8; KEY_EXPANSION.len()]) } == Ok(KEY_EXPANSION)
    {
        give(thread, SecretKind::Master as u8, secret, third_seed);
    }
}

/// `func (c *Config) writeKeyLog(label string, clientRandom, secret []byte) error`, called as Go
/// does since 1.17: arguments in registers (<https://go.dev/s/regabi>), the receiver first.
#[uprobe]
pub fn go_key_log(ctx: ProbeContext) -> u32 {
    on_key_log(&ctx)
}

/// The same, attached by a link (Linux 6.6).
#[uprobe(multi)]
pub fn go_key_log_link(ctx: ProbeContext) -> u32 {
    on_key_log(&ctx)
}

#[inline(always)]
fn on_key_log(ctx: &ProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if !expects((thread >> 32) as u32) {
        return 0;
    }
    // SAFETY: the kernel passes the registers.
    let regs = unsafe { &*ctx.regs };
    #[cfg(not(bpf_target_arch = "aarch64"))]
    let [label, label_length, random, random_length, secret, length] =
        [regs.rbx, regs.rcx, regs.rdi, regs.rsi, regs.r9, regs.r10];
    #[cfg(bpf_target_arch = "aarch64")]
    let [label, label_length, random, random_length, secret, length] =
        [regs.regs[1], regs.regs[2], regs.regs[3], regs.regs[4], regs.regs[6], regs.regs[7]];
    // SAFETY: the helper reads what is mapped, and fails otherwise.
    if let Ok(start) = unsafe { bpf_probe_read_user(label as *const [u8; 8]) }
        && let Some(kind) = SecretKind::of_logged(start, label_length)
        && random_length == 32
    {
        let (secret, random) = (Bytes { at: secret, length }, Bytes { at: random, length: random_length });
        give(thread, kind as u8, secret, random);
    }
    0
}

/// Hands a secret to the agent.
#[inline(always)]
fn give(thread: u64, kind: u8, from: Bytes, random: Bytes) {
    let long = from.length == SECRET_BYTES as u64;
    if !long && from.length != 32 {
        return;
    }
    let Some(mut entry) = SECRETS.reserve::<Secret>(0) else {
        count(Counter::SecretLost, 0);
        return;
    };
    let secret = entry.as_mut_ptr();
    let has_random = u8::from(random.at != 0);
    // SAFETY: the reservation is exclusive and has room for the whole, of which every byte is
    // written. The helpers read what is mapped of the process, and fail otherwise.
    let failed = unsafe {
        secret.cast::<u32>().write(u32::from_ne_bytes([kind, from.length as u8, has_random, 0]));
        (&raw mut (*secret).pid).write((thread >> 32) as u32);
        (&raw mut (*secret).time_ns).write(bpf_ktime_get_ns());
        let random_to = (&raw mut (*secret).client_random).cast::<c_void>();
        let secret_to = (&raw mut (*secret).secret).cast::<c_void>();
        zero(random_to.cast(), 4);
        zero(secret_to.cast(), SECRET_BYTES / 8);
        let mut failed = 0;
        if has_random != 0 {
            failed |= generated::bpf_probe_read_user(random_to, 32, random.at as *const c_void);
        }
        failed
            | if long {
                generated::bpf_probe_read_user(secret_to, SECRET_BYTES as u32, from.at as *const c_void)
            } else {
                generated::bpf_probe_read_user(secret_to, 32, from.at as *const c_void)
            }
    };
    if failed == 0 {
        // Wakes the agent: a process that ends at once has its records waiting.
        entry.submit(0);
    } else {
        entry.discard(0);
        count(Counter::SecretLost, 0);
    }
}

/// # Safety
///
/// There is room for `words`.
#[inline(always)]
unsafe fn zero(to: *mut u64, words: usize) {
    for index in 0..words {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write_volatile(0) };
    }
}

/// Appends a blank record to the ring of secrets.
#[inline(always)]
pub fn overwrite() {
    if let Some(blank) = blank() {
        let blank: &[u8; BLANK_BYTES] = blank;
        // A full ring is overwritten by what fills it.
        let _ = SECRETS.output(blank, u64::from(BPF_RB_NO_WAKEUP));
    }
}
