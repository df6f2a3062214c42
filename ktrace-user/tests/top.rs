//! `observe --top` on a terminal: taken, and given back as it was. Needs root; says so and passes without it, but not in CI.

mod host;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command};

/// A terminal: the end of who looks at it, and the program's.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 12, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let none = std::ptr::null_mut();
    // SAFETY: places for two descriptors; no name and no settings are asked for, and the size is only read.
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), &raw const size as *mut _)
    };
    assert_eq!(opened, 0);
    // SAFETY: both were just opened, and are owned here alone.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// The terminal's settings.
fn settings(of: &OwnedFd) -> (u32, u32, u32, [u8; 32]) {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: an open terminal, and a place for its settings.
    assert_eq!(unsafe { libc::tcgetattr(of.as_raw_fd(), settings.as_mut_ptr()) }, 0);
    // SAFETY: the call has filled it in.
    let settings = unsafe { settings.assume_init() };
    (settings.c_iflag, settings.c_oflag, settings.c_lflag, settings.c_cc)
}

/// What the program shows until `mark` is among it.
fn until(screen: &mut File, mark: &str) {
    let (mut seen, mut more) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(mark) {
        let len = screen
            .read(&mut more)
            .unwrap_or_else(|error| panic!("{error} before {mark:?}: {}", String::from_utf8_lossy(&seen)));
        seen.extend(&more[..len]);
    }
}

/// What ends the program.
type End = fn(&mut File, &Child);

const ON: &str = "\x1b[?1049h";
const OFF: &str = "\x1b[?1049l";

#[test]
fn the_terminal_is_given_back_as_it_was() {
    let Some(_alone) = host::alone() else { return };
    let term: End = |_, child| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    };
    let quit: End = |screen, _| screen.write_all(b"q").unwrap();
    let ends: [(&str, End); 2] = [("SIGTERM", term), ("q", quit)];
    for (name, end) in ends {
        let (mut screen, theirs) = terminal();
        let before = settings(&theirs);
        let mut child = Command::new(env!("CARGO_BIN_EXE_ktrace"))
            .args(["observe", "--top"])
            .env("TERM", "xterm")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs.try_clone().unwrap())
            .spawn()
            .unwrap();
        until(&mut screen, ON);
        until(&mut screen, "lost");
        assert_ne!(settings(&theirs), before, "{name}");
        end(&mut screen, &child);
        until(&mut screen, OFF);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        assert_eq!(settings(&theirs), before, "{name}");
    }
}
