//! A key log (`SSLKEYLOGFILE`): read once for a capture file, or followed as programs write to it.
//!
//! A file that is followed may be made later, cut short, or replaced by another. It is looked at by
//! name and size, which holds on every filesystem and through links. No line of it reaches a
//! message, as each holds a secret; buffers are overwritten.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use ktrace_tls::keylog::{KeyLog, MAX_LINE};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::hop::versioned::Versioned;
use crate::losses::Reason;
use crate::privilege;

/// What key logs have said: workers look when its number has changed.
pub type SharedKeyLog = Arc<Versioned<KeyLog>>;

/// So long does a record wait for secrets that were written already. A look that finds nothing is
/// one system call.
const PAUSE: Duration = Duration::from_millis(50);

/// Of a longer file the end is read: as many lines as there may be connections, with five secrets
/// each.
const MOST_BYTES: u64 = 64 << 20;

const BUFFER: usize = 64 << 10;

/// Why a key log cannot be followed.
#[derive(Debug, Error)]
pub enum KeyLogError {
    #[error("cannot read the key log {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the key log {} is no file", path.display())]
    NotAFile { path: PathBuf },
    #[error("the key log {} cannot come to be: {} is no directory", path.display(), dir.display())]
    NoDirectory { path: PathBuf, dir: PathBuf },
}

impl KeyLogError {
    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Read { .. } => {
                "check the path, and that ktrace may read it: CAP_DAC_READ_SEARCH reads all files"
            }
            Self::NotAFile { .. } => "name the file that programs write, as SSLKEYLOGFILE does for them",
            Self::NoDirectory { .. } => {
                "make the directory, or correct the path; the file itself may be made later, by the first \
                program"
            }
        }
    }
}

/// Reads a whole key log, and counts what is no line of one.
///
/// # Errors
/// As reading fails. What was read before is kept.
pub fn read(mut input: impl Read, log: &SharedKeyLog) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut buffer = Zeroizing::new(vec![0; BUFFER]);
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                let read = buffer.get(..len).unwrap_or_default();
                log.update(|log| lines.take(read, log));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    log.update(|log| lines.end(log));
    Ok(())
}

/// What of key logs is of no use, as the summary names it.
#[must_use]
pub fn losses(log: &SharedKeyLog) -> [(Reason, u64); 2] {
    let counts = log.read(KeyLog::counts);
    [(Reason::TlsLogLine, counts.bad), (Reason::TlsLogForgotten, counts.forgotten)]
}

/// A key log that is followed.
pub struct KeyLogFile {
    path: PathBuf,
    /// `None` where it is not there yet.
    open: Option<Opened>,
    lines: Lines,
    buffer: Zeroizing<Vec<u8>>,
    log: SharedKeyLog,
    said: Said,
}

struct Opened {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    /// Up to where it was read.
    offset: u64,
}

/// What was said already: each once, until it has changed.
#[derive(Default)]
struct Said {
    trouble: Option<String>,
    bad_lines: bool,
}

impl KeyLogFile {
    /// Opens what is there, with the privileges that the caller has now. A file that is not there
    /// is waited for.
    ///
    /// # Errors
    /// Where there is something else than a readable file, or no directory for it.
    pub fn open(path: &Path, log: SharedKeyLog) -> Result<Self, KeyLogError> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let path = path.to_owned();
        if !dir.is_dir() {
            return Err(KeyLogError::NoDirectory { path, dir: dir.to_owned() });
        }
        let mut file = Self {
            path,
            open: None,
            lines: Lines::default(),
            buffer: Zeroizing::new(vec![0; BUFFER]),
            log,
            said: Said::default(),
        };
        file.open_anew()?;
        Ok(file)
    }

    /// Where its lines go.
    #[must_use]
    pub fn log(&self) -> &SharedKeyLog {
        &self.log
    }

    /// Whether there is a file by now.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.open.is_some()
    }

    /// Reads what was written since the last time.
    ///
    /// # Errors
    /// Where it cannot be read, or has become something else than a file. The next look may
    /// succeed.
    pub fn look(&mut self) -> Result<(), KeyLogError> {
        let failed = |path: &Path, source| KeyLogError::Read { path: path.to_owned(), source };
        let there = match fs::metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&self.path, error)),
        };
        let is_at_hand = match (&self.open, &there) {
            (Some(open), Some(there)) => open.id == id(there),
            _ => false,
        };
        if is_at_hand {
            let len = there.map_or(0, |there| there.size());
            return self.read_to(len).map_err(|error| failed(&self.path, error));
        }
        // Who has the old one open goes on writing to it, if it was removed and until another is
        // there.
        if let Some(open) = &self.open {
            let len = open.file.metadata().map_or(0, |metadata| metadata.size());
            self.read_to(len).map_err(|error| failed(&self.path, error))?;
        }
        if there.is_some() {
            self.open_anew()?;
            if let Some(open) = &self.open {
                let len = open.file.metadata().map_or(0, |metadata| metadata.size());
                self.read_to(len).map_err(|error| failed(&self.path, error))?;
            }
        }
        Ok(())
    }

    /// Follows it in a thread of its own, until that is dropped. Called before privileges are given
    /// up: the thread keeps what reads a file of another user that is made later.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn follow(mut self, say: fn(&str)) -> io::Result<Following> {
        let (stop, stopped) = mpsc::channel();
        let follow = move || {
            privilege::shed();
            if !self.is_there() {
                say(&format!("the key log {} is not there yet: it is waited for", self.path.display()));
            }
            loop {
                self.turn(say);
                // The other end is dropped when the run ends.
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("ktrace-keylog".to_owned()).spawn(follow)?;
        Ok(Following { stop: Some(stop), thread: Some(thread) })
    }

    /// A look, and what there is to say of it.
    fn turn(&mut self, say: fn(&str)) {
        let trouble = self.look().err().map(|error| error.to_string());
        if self.said.trouble != trouble {
            if let Some(trouble) = &trouble {
                say(trouble);
            }
            self.said.trouble = trouble;
        }
        if !self.said.bad_lines && self.log.read(KeyLog::counts).bad > 0 {
            self.said.bad_lines = true;
            let path = self.path.display();
            say(&format!("{path} has lines that are none of a key log: they are counted as tls_log_line"));
        }
    }

    fn open_anew(&mut self) -> Result<(), KeyLogError> {
        // What the one before has left without an end stays without.
        self.lines.clear();
        self.open = None;
        // A pipe is not waited for, and a terminal not taken; both are refused below.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let path = || self.path.clone();
        let with_metadata = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match with_metadata {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(KeyLogError::Read { path: path(), source }),
        };
        if !metadata.is_file() {
            return Err(KeyLogError::NotAFile { path: path() });
        }
        let offset = metadata.size().saturating_sub(MOST_BYTES);
        self.lines.skips = offset > 0;
        self.open = Some(Opened { file, id: id(&metadata), offset });
        Ok(())
    }

    /// Reads on as far as the file went a moment ago: who writes without end keeps nothing from
    /// coming back.
    fn read_to(&mut self, len: u64) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if len < open.offset {
            // It was cut, and begins anew.
            open.offset = 0;
            self.lines.clear();
        }
        if len == open.offset {
            return Ok(());
        }
        while open.offset < len {
            let read = match open.file.read_at(&mut self.buffer, open.offset) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            open.offset = open.offset.saturating_add(read as u64);
            let (lines, bytes) = (&mut self.lines, self.buffer.get(..read).unwrap_or_default());
            self.log.update(|log| lines.take(bytes, log));
        }
        self.buffer.as_mut_slice().zeroize();
        Ok(())
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The thread that follows a key log. Ends when it is dropped.
pub struct Following {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Lines out of pieces.
struct Lines {
    /// Of a line that has not ended yet, at most [`MAX_LINE`].
    begun: Zeroizing<Vec<u8>>,
    /// Until the end of this line.
    skips: bool,
}

impl Default for Lines {
    fn default() -> Self {
        // Never moved, as it never grows beyond.
        Self { begun: Zeroizing::new(Vec::with_capacity(MAX_LINE)), skips: false }
    }
}

impl Lines {
    /// Whether the log has learnt anything.
    fn take(&mut self, bytes: &[u8], log: &mut KeyLog) -> bool {
        let mut is_news = false;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if self.skips {
                self.skips = !ends;
            } else if ends && self.begun.is_empty() {
                is_news |= log.line(piece).is_some();
            } else if self.begun.len().saturating_add(piece.len()) > MAX_LINE {
                log.bad();
                self.clear();
                self.skips = !ends;
            } else {
                self.begun.extend_from_slice(piece);
                if ends {
                    is_news |= self.end(log);
                }
            }
        }
        is_news
    }

    /// What has begun is a line.
    fn end(&mut self, log: &mut KeyLog) -> bool {
        let is_news = log.line(&self.begun).is_some();
        self.clear();
        is_news
    }

    fn clear(&mut self) {
        self.begun.zeroize();
        self.skips = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A directory of a test's own.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ktrace-keylog-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn log(&self) -> PathBuf {
            self.0.join("keys.log")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn line(number: u8) -> String {
        format!("CLIENT_RANDOM {} {}\n", format!("{number:02x}").repeat(32), "77".repeat(48))
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Which of the first connections are known, and the lines that were bad.
    fn known(log: &SharedKeyLog) -> (Vec<u8>, u64) {
        log.read(|log| {
            ((0..20).filter(|number| log.secrets(&[*number; 32]).is_some()).collect(), log.counts().bad)
        })
    }

    #[test]
    fn a_file_is_followed_as_it_grows_line_by_line() {
        let dir = Dir::new("grows");
        let log = SharedKeyLog::default();
        let mut file = KeyLogFile::open(&dir.log(), Arc::clone(&log)).unwrap();
        file.look().unwrap();
        assert!(!file.is_there() && log.version() == 0);
        append(&dir.log(), &line(1));
        file.look().unwrap();
        assert_eq!((known(&log), log.version()), ((vec![1], 0), 1));
        // In pieces, of which none is a line.
        let text = line(2) + &line(3);
        let (first, rest) = text.split_at(50);
        append(&dir.log(), first);
        file.look().unwrap();
        assert_eq!((known(&log), log.version()), ((vec![1], 0), 1));
        append(&dir.log(), rest);
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2, 3], 0));
        let number = log.version();
        append(&dir.log(), "# nothing new\n");
        append(&dir.log(), &line(3));
        file.look().unwrap();
        assert_eq!(log.version(), number);
    }

    #[test]
    fn a_file_that_is_cut_or_replaced_or_removed_is_followed_on() {
        let dir = Dir::new("replaced");
        let log = SharedKeyLog::default();
        append(&dir.log(), &(line(1) + &line(2)));
        let mut file = KeyLogFile::open(&dir.log(), Arc::clone(&log)).unwrap();
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2], 0));
        // Cut, with the beginning of a line left over.
        append(&dir.log(), "CLIENT_RAN");
        file.look().unwrap();
        fs::write(dir.log(), line(3)).unwrap();
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2, 3], 0));
        // Another in its place, behind what still was written to this one.
        append(&dir.log(), &line(4));
        let next = dir.0.join("next");
        append(&next, &(line(5) + &line(6)));
        fs::rename(&next, dir.log()).unwrap();
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2, 3, 4, 5, 6], 0));
        // Removed while a program goes on writing to it.
        let mut written = OpenOptions::new().append(true).open(dir.log()).unwrap();
        fs::remove_file(dir.log()).unwrap();
        written.write_all(line(7).as_bytes()).unwrap();
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2, 3, 4, 5, 6, 7], 0));
        append(&dir.log(), &line(8));
        file.look().unwrap();
        assert_eq!(known(&log), (vec![1, 2, 3, 4, 5, 6, 7, 8], 0));
    }

    #[test]
    fn of_a_long_file_the_end_is_read() {
        let dir = Dir::new("long");
        let file = File::create(dir.log()).unwrap();
        file.write_all_at(line(1).as_bytes(), 0).unwrap();
        // A hole takes no space.
        let begin = MOST_BYTES + 1000;
        file.write_all_at(line(2).as_bytes(), begin - 50).unwrap();
        file.write_all_at((line(3) + &line(4)).as_bytes(), begin - 50 + line(2).len() as u64).unwrap();
        file.set_len(begin + MOST_BYTES).unwrap();
        file.write_all_at(format!("\n{}", line(5)).as_bytes(), begin + MOST_BYTES).unwrap();
        let log = SharedKeyLog::default();
        let mut file = KeyLogFile::open(&dir.log(), Arc::clone(&log)).unwrap();
        file.look().unwrap();
        // The third begins in front of the part that is read.
        assert_eq!(known(&log), (vec![4, 5], 1));
    }

    #[test]
    fn what_is_no_key_log_is_counted_and_holds_nothing() {
        let log = SharedKeyLog::default();
        let mut text = vec![b'x'; 300_000];
        text.extend(b"\nhello\n");
        text.extend(line(1).into_bytes());
        text.extend(b"y".repeat(MAX_LINE + 1));
        text.extend(format!("\r\n{}", line(2).trim_end()).into_bytes());
        read(&*text, &log).unwrap();
        assert_eq!(known(&log), (vec![1, 2], 3));
        assert_eq!(losses(&log), [(Reason::TlsLogLine, 3), (Reason::TlsLogForgotten, 0)]);
    }

    #[test]
    fn what_cannot_be_one_is_refused_with_advice() {
        let dir = Dir::new("refused");
        let open = |path: &Path| KeyLogFile::open(path, SharedKeyLog::default()).err().unwrap();
        let missing = open(&dir.0.join("none/keys.log"));
        assert!(matches!(missing, KeyLogError::NoDirectory { .. }), "{missing}");
        assert!(missing.to_string().ends_with("none is no directory"), "{missing}");
        let directory = open(&dir.0);
        assert!(matches!(directory, KeyLogError::NotAFile { .. }), "{directory}");
        let device = open(Path::new("/dev/null"));
        assert!(matches!(device, KeyLogError::NotAFile { .. }), "{device}");
    }

    #[test]
    fn a_thread_follows_until_it_is_dropped() {
        let dir = Dir::new("thread");
        let log = SharedKeyLog::default();
        let file = KeyLogFile::open(&dir.log(), Arc::clone(&log)).unwrap();
        let following = file.follow(|_| {}).unwrap();
        append(&dir.log(), &line(1));
        while log.version() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What was written before the end is read at the end.
        append(&dir.log(), &line(2));
        drop(following);
        assert_eq!(known(&log).0[0], 1);
    }
}
