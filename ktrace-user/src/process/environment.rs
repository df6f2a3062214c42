//! What a process's environment says about its resource: `OTEL_SERVICE_NAME` and
//! `OTEL_RESOURCE_ATTRIBUTES`, as in the OpenTelemetry specification
//! (`specification/resource/sdk.md`). No other variable is looked at or kept.

/// The two variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// `OTEL_SERVICE_NAME`, unless empty; otherwise `service.name` of the attributes.
    pub(super) service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` without `service.name`.
    pub(super) attributes: Vec<(String, String)>,
}

/// Attributes taken from one process, and bytes of each: it is the process that decides what stands
/// there.
const MOST_ATTRIBUTES: usize = 64;
const LONGEST_VALUE: usize = 1024;

/// Reads an environment block: `NAME=value`, each ended by a zero byte.
pub(super) fn parse(block: &[u8]) -> Environment {
    let mut environment = Environment::default();
    for variable in block.split(|byte| *byte == 0) {
        if let Some(value) = variable.strip_prefix(b"OTEL_SERVICE_NAME=") {
            let name = String::from_utf8_lossy(value);
            let name = name.trim();
            if !name.is_empty() {
                environment.service_name = Some(cut(name).to_owned());
            }
        } else if let Some(value) = variable.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES=") {
            environment.attributes = attributes(value).unwrap_or_default();
        }
    }
    if let Some(at) = environment.attributes.iter().position(|(key, _)| key == "service.name") {
        let (_, value) = environment.attributes.remove(at);
        environment.service_name = environment.service_name.or(Some(value)).filter(|name| !name.is_empty());
    }
    environment
}

/// `key=value,key=value`, both percent-encoded. `None` if any part is wrong: then the specification
/// discards the whole variable.
fn attributes(text: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut attributes: Vec<(String, String)> = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).take(MOST_ATTRIBUTES) {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
        if key.is_empty() {
            return None;
        }
        attributes.retain(|(known, _)| *known != key);
        attributes.push((key, cut(&value).to_owned()));
    }
    Some(attributes)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_VALUE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(service_name: Option<&str>, attributes: &[(&str, &str)]) -> Environment {
        Environment {
            service_name: service_name.map(str::to_owned),
            attributes: attributes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn blocks() {
        for (block, expected) in [
            ("", environment(None, &[])),
            ("PATH=/bin\0PASSWORD=x\0", environment(None, &[])),
            ("OTEL_SERVICE_NAME=orders\0", environment(Some("orders"), &[])),
            ("OTEL_SERVICE_NAME=\0OTEL_RESOURCE_ATTRIBUTES=service.name=b\0", environment(Some("b"), &[])),
            (
                "OTEL_RESOURCE_ATTRIBUTES=service.name=b,a=1\0OTEL_SERVICE_NAME=a\0",
                environment(Some("a"), &[("a", "1")]),
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=prod, team = caf%C3%A9%20%2C ,\0",
                environment(None, &[("deployment.environment.name", "prod"), ("team", "café ,")]),
            ),
            ("OTEL_RESOURCE_ATTRIBUTES=a=1=2,a=3\0", environment(None, &[("a", "3")])),
            // Wrong anywhere: nothing of it counts.
            ("OTEL_RESOURCE_ATTRIBUTES=a=1,b\0", environment(None, &[])),
            ("OTEL_RESOURCE_ATTRIBUTES=a=%zz\0", environment(None, &[])),
            ("OTEL_RESOURCE_ATTRIBUTES=a=%C3\0", environment(None, &[])),
            ("OTEL_RESOURCE_ATTRIBUTES==1\0", environment(None, &[])),
            ("XOTEL_SERVICE_NAME=a\0OTEL_SERVICE_NAMES=b\0", environment(None, &[])),
        ] {
            assert_eq!(parse(block.as_bytes()), expected, "{block:?}");
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let block = format!("OTEL_SERVICE_NAME={}\0", "é".repeat(2000));
        let name = parse(block.as_bytes()).service_name.unwrap();
        assert_eq!(name.len(), LONGEST_VALUE);
    }
}
