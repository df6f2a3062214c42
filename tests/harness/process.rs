//! A process of a test: its output in a file, its readiness a line in there, its end with the
//! value's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(20);

/// What a time limit is multiplied by. Limits are there to end a test that has failed; on a machine
/// whose cores build something else meanwhile, one that is well takes several times as long.
const SLACK: u32 = 6;

/// When to give up what takes so long on an idle machine.
#[must_use]
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + within * SLACK
}

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
    left_running: bool,
}

/// A command that the kernel kills when the starting thread ends, however it ends.
#[must_use]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Process {
    /// Starts `command` with standard output and standard error in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        Self::start_with_output(name, command, file, log)
    }

    /// Starts `command` with standard output in `output` and standard error in `log`.
    pub fn start_with_output(
        name: &str,
        command: &mut Command,
        output: impl Into<Stdio>,
        log: &Path,
    ) -> Result<Self> {
        let errors = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.into(), child, log: log.into(), status: None, left_running: false })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its log has a line with `text`; the limit is for an idle machine ([`deadline`]),
    /// as all here.
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> Result<()> {
        let deadline = deadline(within);
        loop {
            // read the state first: a process that said it and ended at once has said it
            let ended = self.child.try_wait()?;
            if self.said().contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before it said `{text}`:\n{}", self.name, self.tail());
            }
            ensure!(Instant::now() < deadline, "{} never said `{text}`:\n{}", self.name, self.tail());
            sleep(POLL);
        }
    }

    /// Waits for its end, and kills it when the time is up, which is an error.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = deadline(within);
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.status = Some(status);
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill()?;
                bail!("{} did not end within {within:?}:\n{}", self.name, self.tail());
            }
            sleep(POLL);
        }
    }

    /// Waits for its end, which has to be a good one.
    pub fn finish(&mut self, within: Duration) -> Result<()> {
        let status = self.wait(within)?;
        ensure!(status.success(), "{} failed ({status}):\n{}", self.name, self.tail());
        Ok(())
    }

    /// SIGTERM, then its end.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if self.status.is_none() && self.child.try_wait()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        self.wait(within)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.status = Some(self.child.wait()?);
        Ok(())
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// All that it has written to its log.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Lets it live on when this value goes.
    pub fn leave_running(&mut self) {
        self.left_running = true;
    }

    fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() && !self.left_running {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
