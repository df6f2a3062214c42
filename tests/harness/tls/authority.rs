//! A certificate authority that lives as long as its test: it signs a broker and a client. Its keys
//! are on a curve, as those are made in a moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache;

/// Its files are below its directory.
#[derive(Clone, Debug)]
pub struct Authority {
    dir: PathBuf,
}

/// Of the broker's key store.
pub(super) const STORE_PASSWORD: &str = "key-store-password";

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    /// Makes the authority and its two identities in `dir/tls`.
    pub fn new(dir: &Path) -> Result<Self> {
        let authority = Self { dir: dir.join("tls") };
        fs::create_dir_all(&authority.dir)?;
        authority.openssl(|openssl| {
            openssl.args(["req", "-x509"]).args(KEY).args(["-days", "2", "-subj", "/CN=ktrace tests"]);
            openssl.args(["-addext", "keyUsage=critical,keyCertSign", "-keyout", "ca.key", "-out", "ca.pem"])
        })?;
        authority.sign("broker")?;
        authority.sign("client")?;
        authority.openssl(|openssl| {
            openssl.args(["pkcs12", "-export", "-in", "broker.pem", "-certfile", "ca.pem"]);
            openssl.args(["-passout", &format!("pass:{STORE_PASSWORD}"), "-out", "broker.p12"])
        })?;
        Ok(authority)
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The client's key and certificate in one PEM file.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.dir.join("client.pem")
    }

    /// The broker's key and certificate, PKCS12.
    pub(super) fn broker_store(&self) -> PathBuf {
        self.dir.join("broker.p12")
    }

    /// The certificate is for whoever is on loopback, so that clients can check the host's name, as
    /// they do by default.
    fn sign(&self, name: &str) -> Result<()> {
        let file = |extension: &str| format!("{name}.{extension}");
        self.openssl(|openssl| {
            openssl.arg("req").args(KEY).args(["-subj", &format!("/CN={name}")]);
            openssl.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
            openssl.args(["-keyout", &file("key"), "-out", &file("csr")])
        })?;
        self.openssl(|openssl| {
            openssl.args(["x509", "-req", "-in", &file("csr"), "-CA", "ca.pem", "-CAkey", "ca.key"]);
            openssl.args(["-days", "2", "-copy_extensions", "copy", "-out", &file("crt")])
        })?;
        let key = fs::read_to_string(self.dir.join(file("key")))?;
        let certificate = fs::read_to_string(self.dir.join(file("crt")))?;
        Ok(fs::write(self.dir.join(file("pem")), key + &certificate)?)
    }

    fn openssl(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
        cache::step("openssl", |openssl| change(openssl.current_dir(&self.dir)))
    }
}
