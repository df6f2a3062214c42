//! OpenTelemetry's standard environment: every variable of the specification, and what ktrace makes
//! of it.
//!
//! [`VARIABLES`] is the one list. Values are read through it, variables that are set and not
//! honoured are reported by it, and a test compares the table in `docs/configuration.md` with it.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use super::ExportError;
pub(super) use table::{Kind, VARIABLES, Variable};

/// The variables that are set; an empty value counts as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    set: BTreeMap<String, String>,
}

impl Environment {
    /// This process's.
    #[must_use]
    pub fn of_process() -> Self {
        // What is not UTF-8 fails where the value is read, and is shown with replacement characters
        // there.
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    /// The value as it stands, without space around it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The first that is set and can be read. A value that cannot be read counts as not set, as the
    /// specification has it.
    pub(super) fn first<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, &str)> {
        names.into_iter().find_map(|name| Some((name, self.get(name).filter(|value| reads(name, value))?)))
    }

    pub(super) fn number(&self, name: &'static str) -> Option<u64> {
        self.first([name])?.1.parse().ok()
    }

    pub(super) fn milliseconds(&self, name: &'static str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    fn is_true(&self, name: &'static str) -> bool {
        self.first([name]).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"))
    }

    /// Whether a signal is to go out by OTLP: `OTEL_SDK_DISABLED`, and the variable that names its
    /// exporter.
    pub(super) fn exports(&self, exporter: &'static str) -> bool {
        let none = self.first([exporter]).is_some_and(|(_, value)| value.eq_ignore_ascii_case("none"));
        !none && !self.is_true("OTEL_SDK_DISABLED")
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub(super) fn resource_attributes(&self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        self.first([NAME]).and_then(|(_, list)| pairs(NAME, list).ok()).unwrap_or_default()
    }

    /// Lines about variables that are not honoured, or that are ignored because they cannot be
    /// read.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let (mut remarks, mut unknown) = (Vec::new(), Vec::new());
        for name in self.set.keys().filter(|name| name.starts_with("OTEL_")) {
            let Some(value) = self.get(name) else { continue };
            match VARIABLES.iter().find(|variable| variable.name == name) {
                Some(Variable { kind: Kind::Ignored { harmless, .. }, .. }) if harmless.contains(&value) => {}
                Some(Variable { kind: Kind::Ignored { why, .. }, .. }) => {
                    remarks.push(format!("{name} is not honoured: {why}"));
                }
                Some(Variable { kind, .. }) if !kind.reads(value) => {
                    let value = super::printable(value);
                    remarks.push(format!("{name}={value} is ignored: it is not {}", kind.wanted()));
                }
                Some(Variable { name, off: Some((value_off, what)), .. })
                    if value.eq_ignore_ascii_case(value_off) =>
                {
                    remarks.push(format!("{name}={value_off}: {what}"));
                }
                Some(_) => {}
                None if is_of_a_service(name) => {}
                None => unknown.push(name.as_str()),
            }
        }
        if !unknown.is_empty() {
            remarks.push(format!("not known, and not honoured: {}", unknown.join(", ")));
        }
        remarks
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { set: pairs.into_iter().collect() }
    }
}

fn reads(name: &str, value: &str) -> bool {
    VARIABLES.iter().find(|variable| variable.name == name).is_none_or(|variable| variable.kind.reads(value))
}

/// Kubernetes gives every container the addresses of the services in its namespace:
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_GRPC`, `NAME_PORT`,
/// `NAME_PORT_4317_TCP`, `NAME_PORT_4317_TCP_ADDR`. One that is named `ktrace` or `otel` says
/// nothing to ktrace by that.
///
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
#[must_use]
pub fn is_of_a_service(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        let last = matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"));
        number && protocol && last && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name.match_indices("_PORT_").any(|(at, found)| is_port(&name[at + found.len()..]))
}

/// `key=value,key=value`, the values with percent escapes.
///
/// # Errors
/// [`ExportError::Otlp`] names the part that is no pair.
pub(super) fn pairs(name: &str, list: &str) -> Result<Vec<(String, String)>, ExportError> {
    let pairs = list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) =
            pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()).ok_or_else(|| {
                // The value of a header is often a secret, so it is not shown.
                let what = format!("{name} is not a list of KEY=VALUE, separated by commas");
                ExportError::Otlp { what }
            })?;
        Ok((key.trim().to_owned(), percent_decoded(value.trim())))
    });
    pairs.collect()
}

/// Decodes percent escapes; anything else stays as it is.
fn percent_decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
