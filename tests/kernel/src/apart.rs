//! Work in a process of its own: a fork, whose result comes back through a pipe.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::marker::PhantomData;

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call;

/// Seconds after which a process that still waits for its peer is ended.
const PATIENCE: libc::c_uint = 300;

/// A process at work.
pub struct Apart<T> {
    pid: libc::pid_t,
    result: File,
    kind: PhantomData<T>,
}

/// Does the work in a fork of this process, which must have no other threads.
pub fn apart<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> Result<T>) -> Result<Apart<T>> {
    let (out, into) = call::pipe()?;
    // SAFETY: this process has one thread, so the child finds everything in a sane state.
    let pid = call::result(unsafe { libc::fork() } as isize)? as libc::pid_t;
    if pid == 0 {
        drop(out);
        // SAFETY: no pointers.
        unsafe { libc::alarm(PATIENCE) };
        let result = work().map_err(|error| format!("{error:#}"));
        let told =
            serde_json::to_vec(&result).is_ok_and(|result| File::from(into).write_all(&result).is_ok());
        // SAFETY: no pointers. Nothing of what the parent has is to be dropped here.
        unsafe { libc::_exit(i32::from(!told)) }
    }
    Ok(Apart { pid, result: File::from(out), kind: PhantomData })
}

impl<T: DeserializeOwned> Apart<T> {
    /// Waits for its end.
    pub fn join(mut self) -> Result<T> {
        let mut told = Vec::new();
        self.result.read_to_end(&mut told)?;
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        let result: Result<T, String> =
            serde_json::from_slice(&told).context("a process ended without a word")?;
        result.map_err(|error| anyhow!(error))
    }
}
