//! How a verb fails: an exit code, one line that says what failed, and one that says what to do.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::capture::file::FileError;
use crate::export::ExportError;

/// The end of a verb that did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Failed { what: String, advice: String },
    /// Exit code 2.
    Usage { what: String, advice: String },
    /// Exit code 3: this host cannot capture. The advice may have several lines.
    CannotCapture { what: String, advice: String },
    /// The message was printed already.
    Quiet(ExitCode),
}

impl Failure {
    pub fn failed(what: impl Display, advice: impl Display) -> Self {
        Self::Failed { what: what.to_string(), advice: advice.to_string() }
    }

    /// The end of a verb whose work is to print. A reader that is gone (`| head`) is no error: it
    /// has seen what it wanted.
    ///
    /// # Errors
    /// [`Failure::Failed`] where it could not be written.
    pub fn of_printing(printed: io::Result<()>) -> Result<ExitCode, Self> {
        match printed.and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Self::failed(
                format_args!("cannot write to standard output: {error}"),
                "check that there is space where standard output goes",
            )),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    /// Prints it on standard error, and returns the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        let (code, what, advice) = match self {
            Self::Failed { what, advice } => (1, what, advice),
            Self::Usage { what, advice } => (2, what, advice),
            Self::CannotCapture { what, advice } => (3, what, advice),
            Self::Quiet(code) => return *code,
        };
        let red = anstyle::AnsiColor::Red.on_default().bold();
        anstream::eprintln!("{red}ktrace:{red:#} {what}\n        {advice}");
        ExitCode::from(code)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::failed(&error, error.advice())
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        const OTLP: &str = "check --otlp and the environment variables OTEL_EXPORTER_OTLP_… and OTEL_BSP_…";
        let advice = match error {
            ExportError::Closed => return Self::Quiet(ExitCode::SUCCESS),
            ExportError::Otlp { .. } => {
                return Self::Usage { what: error.to_string(), advice: OTLP.to_owned() };
            }
            ExportError::Undelivered { .. } => OTLP,
            ExportError::Screen(_) => "leave --top out, or use another terminal",
            ExportError::Thread(_) => "check the limits on threads and open files (ulimit -a)",
            ExportError::Write(_) => "check that there is space where standard output goes",
        };
        Self::failed(error, advice)
    }
}
