//! Jaeger all-in-one, built from its module; versions of everything below it are in `go.mod` and
//! `go.sum`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache;

/// The program.
pub fn jaeger() -> Result<PathBuf> {
    let (module, sums) =
        (include_str!("../../tools/jaeger/go.mod"), include_str!("../../tools/jaeger/go.sum"));
    let dir = cache::tool("jaeger", &[module, sums], |dir| {
        fs::write(dir.join("go.mod"), module)?;
        fs::write(dir.join("go.sum"), sums)?;
        cache::step("go", |go| {
            go.args(["build", "-o", "jaeger", "github.com/jaegertracing/jaeger/cmd/all-in-one"])
                .current_dir(dir)
        })
    })?;
    Ok(dir.join("jaeger"))
}
