//! The terminal while it is a full screen: taken, and given back whatever happens.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::DefaultTerminal;

/// Standard output is a full screen, which other lines would tear.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether the terminal is a full screen now: then nothing else may write to it.
#[must_use]
pub fn is_taken() -> bool {
    TAKEN.load(Ordering::Relaxed)
}

/// Gives the terminal back, if it was taken: for who ends the process at once.
pub fn restore() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // Nothing else can be done for a terminal that is gone.
        let _ = ratatui::try_restore();
    }
}

/// Ratatui's own panic hook gives the terminal back; this one has the drawing thread stop.
fn give_back_in_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        TAKEN.store(false, Ordering::Relaxed);
        hook(info);
    }));
}

/// The full screen, until it is dropped. A panic of any thread gives the terminal back before its
/// message is printed.
pub struct Screen {
    pub terminal: DefaultTerminal,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        TAKEN.store(true, Ordering::Relaxed);
        match ratatui::try_init() {
            Ok(mut terminal) => {
                give_back_in_panic();
                // Not every terminal has a second screen that is empty.
                let _ = terminal.clear();
                Ok(Self { terminal })
            }
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Else it stays hidden.
        let _ = self.terminal.show_cursor();
        restore();
    }
}
