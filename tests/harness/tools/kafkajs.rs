//! The truth-logging Node client with its packages; their versions are in `package-lock.json`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache;

/// The script, to be run with `node`.
pub fn kafkajs() -> Result<PathBuf> {
    let files = [
        ("client.js", include_str!("../../clients/node/client.js")),
        ("codecs.js", include_str!("../../clients/node/codecs.js")),
        ("instrumented.js", include_str!("../../clients/node/instrumented.js")),
        ("package.json", include_str!("../../clients/node/package.json")),
        ("package-lock.json", include_str!("../../clients/node/package-lock.json")),
    ];
    let dir = cache::tool("kafkajs", &files.map(|(_, text)| text), |dir| {
        for (name, text) in files {
            fs::write(dir.join(name), text)?;
        }
        cache::step("npm", |npm| npm.args(["ci", "--ignore-scripts", "--silent"]).current_dir(dir))
    })?;
    Ok(dir.join("client.js"))
}
