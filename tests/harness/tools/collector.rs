//! The OpenTelemetry Collector, put together by its own builder.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache;

/// The builder's version, the same as that of all modules in `builder.yaml`.
const VERSION: &str = "v0.145.0";

/// The program.
pub fn collector() -> Result<PathBuf> {
    let recipe = include_str!("../../tools/collector/builder.yaml");
    let dir = cache::tool("collector", &[recipe, VERSION], |dir| {
        cache::step("go", |go| {
            go.args(["install", &format!("go.opentelemetry.io/collector/cmd/builder@{VERSION}")])
                .env("GOBIN", dir)
        })?;
        let config = dir.join("builder.yaml");
        let output = dir.join("build");
        fs::write(
            &config,
            recipe.replacen("dist:", &format!("dist:\n  output_path: {}", output.display()), 1),
        )?;
        cache::step(dir.join("builder"), |builder| builder.arg("--config").arg(config))?;
        fs::rename(output.join("otelcol"), dir.join("otelcol"))?;
        fs::remove_dir_all(output)?;
        Ok(fs::remove_file(dir.join("builder"))?)
    })?;
    Ok(dir.join("otelcol"))
}
