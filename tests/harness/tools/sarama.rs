//! The truth-logging Go client, built; versions of everything below it are in `go.mod` and
//! `go.sum`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, tools};

/// The program.
pub fn sarama() -> Result<PathBuf> {
    let recipe = [
        include_str!("../../clients/go/crowd.go"),
        include_str!("../../clients/go/main.go"),
        include_str!("../../clients/go/produce.go"),
        include_str!("../../clients/go/proxy.go"),
        include_str!("../../clients/go/security.go"),
        include_str!("../../clients/go/truth.go"),
        include_str!("../../clients/go/go.mod"),
        include_str!("../../clients/go/go.sum"),
    ];
    let dir = cache::tool("sarama", &recipe, |dir| {
        cache::step("go", |go| {
            // as Go programs are shipped: without symbols
            go.args(["build", "-ldflags", "-s -w", "-o"])
                .arg(dir.join("sarama"))
                .arg(".")
                .current_dir(tools::sources().join("clients/go"))
        })
    })?;
    Ok(dir.join("sarama"))
}
