//! What passes, added up on a full screen: tables of topics, groups and services, once a second.

mod figures;
mod latency;
mod screen;
mod view;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use self::figures::Figures;
use self::screen::Screen;
pub use self::screen::{is_taken, restore};
pub use self::view::Agent;
use self::view::{View, Wish};
use super::print::QUEUE;
use super::queue::{Counters, Receiver, queue};
use super::{ExportError, Sink, WhenFull};
use crate::hop::Hops;
use crate::privilege;

/// How often the screen is drawn.
const TURN: Duration = Duration::from_secs(1);
/// How long a key press may wait while no messages pass: short enough not to be felt.
const KEYS: Duration = Duration::from_millis(100);
/// How long hops wait to be added up together with others.
const TOGETHER: Duration = Duration::from_millis(50);
/// Hops that are added up without waiting for more.
const ENOUGH: usize = QUEUE / 2;

/// Reads the state of the agent itself.
pub type ReadAgent = Box<dyn FnMut() -> Agent + Send>;

/// Opens the full screen. Called once the capture runs, so that an error before that is printed as
/// usual.
pub struct Begin(oneshot::Sender<ReadAgent>);

impl Begin {
    pub fn begin(self, read_agent: ReadAgent) {
        // A thread that is gone has reported why.
        let _ = self.0.send(read_agent);
    }
}

/// Starts the view, which sets `stop` when the user quits.
///
/// # Errors
/// [`ExportError::Thread`].
pub fn top(stop: Arc<AtomicBool>) -> Result<(Sink, Begin), ExportError> {
    let (sender, queued, counters) = queue("top", QUEUE, WhenFull::Drop);
    let runtime = Builder::new_current_thread().enable_time().build().map_err(ExportError::Thread)?;
    let (begin, begun) = oneshot::channel();
    let run = move || {
        privilege::shed();
        // The run ends with the view, whatever ends it.
        let _stop = StopAtEnd(stop.clone());
        let Ok(read_agent) = runtime.block_on(begun) else { return Ok(()) };
        let view = View::default();
        let mut top = Top { queued, counters, read_agent, figures: Figures::default(), view, stop };
        top.run(|queued, hops| {
            runtime.block_on(async { timeout(KEYS, queued.take(hops, ENOUGH, TOGETHER)).await }) != Ok(false)
        })
        .map_err(ExportError::Screen)
    };
    let thread =
        std::thread::Builder::new().name("ktrace-top".to_owned()).spawn(run).map_err(ExportError::Thread)?;
    Ok((Sink { sender, thread, limit: None, begin: None, bytes: 0 }, Begin(begin)))
}

struct StopAtEnd(Arc<AtomicBool>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Top {
    queued: Receiver,
    counters: Arc<Counters>,
    read_agent: ReadAgent,
    figures: Figures,
    view: View,
    stop: Arc<AtomicBool>,
}

impl Top {
    /// `take` gives hops and whether there may be more.
    fn run(&mut self, mut take: impl FnMut(&mut Receiver, &mut Hops) -> bool) -> io::Result<()> {
        let mut screen = Screen::open()?;
        let (mut hops, mut turned) = (Hops::default(), Instant::now());
        let mut agent = (self.read_agent)();
        screen.terminal.draw(|frame| self.view.draw(frame, &self.figures, &agent))?;
        // A thread that panics has given it back.
        while is_taken() && take(&mut self.queued, &mut hops) {
            self.figures.add(&hops);
            self.queued.begin(hops.len());
            self.counters.deliver(hops.len());
            let mut look = self.keys()?;
            let passed = turned.elapsed();
            if passed >= TURN {
                turned = Instant::now();
                self.figures.turn(passed.as_secs_f64());
                agent = (self.read_agent)();
                look = true;
            }
            if look {
                screen.terminal.draw(|frame| self.view.draw(frame, &self.figures, &agent))?;
            }
        }
        Ok(())
    }

    /// Whether there is something else to look at.
    fn keys(&mut self) -> io::Result<bool> {
        let mut look = false;
        while event::poll(Duration::ZERO)? {
            let wish = match event::read()? {
                Event::Key(key) if key.is_press() => self.view.key(key),
                Event::Resize(..) => Wish::Look,
                _ => Wish::Nothing,
            };
            match wish {
                Wish::Nothing => {}
                Wish::Look => look = true,
                Wish::Quit => self.stop.store(true, Ordering::Relaxed),
            }
        }
        Ok(look)
    }
}
