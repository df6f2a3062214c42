//! Authentication: in requests of its own, and in raw tokens; what it says is kept nowhere.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use ktrace_kafka::Speaks;

use crate::conversation::*;

fn handshake(version: i16, id: i32, mechanism: &'static str) -> Said {
    let message = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    client(request(ApiKey::SaslHandshake, version, id, &message))
}

fn shaken(version: i16, id: i32, error: i16) -> Said {
    broker(response(version, id, &SaslHandshakeResponse::default().with_error_code(error)))
}

/// What an application says once it is let in.
fn talk(id: i32) -> [Said; 4] {
    [
        client(request(ApiKey::ApiVersions, 3, id, &ApiVersionsRequest::default())),
        broker(response(3, id, &ApiVersionsResponse::default())),
        client(produce(9, id + 1, -1, batch(&three(0), Compression::None))),
        broker(produced(9, id + 1, 100, 0)),
    ]
}

struct Heard {
    lines: Vec<String>,
    tokens: u64,
    troubles: u64,
}

/// The same in segments of many sizes.
fn heard(said: &[Said]) -> Heard {
    let heard = |size: usize| {
        let mut observed = Observed::default();
        for part in segments(said, 77, |len| len.min(size)) {
            observed.push(&part);
        }
        assert_eq!(observed.connection.speaks(), Speaks::Kafka);
        let (lines, scratch) = observed.finish();
        let counters = scratch.counters;
        let troubles =
            counters.lost().map(|(_, count)| count).chain(counters.malformed().map(|(_, count)| count));
        Heard { lines, tokens: counters.sasl_tokens, troubles: troubles.sum() }
    };
    let whole = heard(usize::MAX);
    for size in [1, 3, 5, 20, 40] {
        let cut = heard(size);
        assert_eq!(
            (cut.lines, cut.tokens, cut.troubles),
            (whole.lines.clone(), whole.tokens, whole.troubles),
            "{size}"
        );
    }
    whole
}

fn records(heard: &Heard) -> usize {
    heard.lines.iter().filter(|line| line.starts_with("produced acks=-1 orders[2]@10")).count()
}

#[test]
fn tokens_in_requests() {
    for version in 0..=2 {
        let authenticate = |id, bytes: &'static [u8]| {
            let message = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(bytes));
            client(request(ApiKey::SaslAuthenticate, version, id, &message))
        };
        let authenticated = |id| broker(response(version, id, &SaslAuthenticateResponse::default()));
        // Later again, in the middle of a running connection (KIP-368).
        let said: Vec<Said> = [
            vec![handshake(1, 0, "SCRAM-SHA-256"), shaken(1, 0, 0)],
            vec![authenticate(1, b"n,,n=user,r=secret"), authenticated(1)],
            vec![authenticate(2, b"c=biws,r=secret,p=proof"), authenticated(2)],
            talk(10).to_vec(),
            vec![client(
                [produce(9, 20, 1, batch(&three(0), Compression::None)), handshake(1, 21, "PLAIN").1]
                    .concat(),
            )],
            vec![broker([produced(9, 20, 103, 0), shaken(1, 21, 0).1].concat())],
            vec![authenticate(22, b"\0user\0secret"), authenticated(22)],
            talk(30).to_vec(),
        ]
        .concat();
        let heard = heard(&said);
        assert_eq!(
            (heard.lines.len(), records(&heard), heard.tokens, heard.troubles),
            (11, 6, 0, 0),
            "v{version}"
        );
        assert_eq!(heard.lines[0], "sasl SCRAM-SHA-256 error=0");
    }
}

/// Tokens of each mechanism as they are on the wire; some look like the beginning of a request.
fn mechanisms() -> Vec<(&'static str, Vec<Said>)> {
    let token = framed;
    let gssapi: Vec<u8> = [&[0x60, 0x82, 0x02, 0x58, 0x06, 0x09][..], &[7; 598]].concat();
    vec![
        // The broker's answer is an empty frame.
        ("PLAIN", vec![client(token(b"\0user\0secret")), broker(token(b""))]),
        ("PLAIN", vec![client(token(b"\0\x12\0\x03\0secret\0secret")), broker(token(b""))]),
        ("PLAIN", vec![client(token(b"admin\0admin\0admin-secret")), broker(token(b""))]),
        (
            "SCRAM-SHA-512",
            vec![
                client(token(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")),
                broker(token(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")),
                client(token(b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X")),
                broker(token(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")),
            ],
        ),
        ("OAUTHBEARER", vec![client(token(b"n,,\x01auth=Bearer eyJhbGciOi\x01\x01")), broker(token(b""))]),
        // Empty tokens the other way round, and a last one without an answer.
        (
            "GSSAPI",
            vec![
                client(token(&gssapi)),
                broker(token(&[0x60, 0x81, 0x90, 1, 2, 3, 4])),
                client(token(b"")),
                broker(token(&[5, 4, 5, 0xff, 0, 12, 0, 0, 0, 0, 0, 0])),
                client(token(&[5, 4, 4, 0xff, 0, 12, 0, 0, 0, 0, 0, 0, 9, 9, 9])),
            ],
        ),
    ]
}

#[test]
fn raw_tokens_after_a_handshake_of_version_0() {
    for (mechanism, tokens) in mechanisms() {
        let count = tokens.len() as u64;
        let said = [vec![handshake(0, 0, mechanism), shaken(0, 0, 0)], tokens, talk(1).to_vec()].concat();
        let heard = heard(&said);
        assert_eq!(
            (heard.lines.len(), records(&heard), heard.tokens, heard.troubles),
            (4, 3, count, 0),
            "{mechanism}"
        );
        assert_eq!(heard.lines[0], format!("sasl {mechanism} error=0"));
    }
}

#[test]
fn a_mechanism_that_is_refused_has_no_tokens() {
    let said = [vec![handshake(0, 0, "PLAIN"), shaken(0, 0, 33)], talk(1).to_vec()].concat();
    let heard = heard(&said);
    assert_eq!((heard.lines.len(), records(&heard), heard.tokens, heard.troubles), (4, 3, 0, 0));
    assert_eq!(heard.lines[0], "sasl PLAIN error=33");
}

/// As clients of 0.9 do.
#[test]
fn a_connection_that_begins_with_a_token() {
    let (_, tokens) = mechanisms().pop().unwrap();
    let count = tokens.len() as u64;
    let heard = heard(&[tokens, talk(1).to_vec()].concat());
    assert_eq!((heard.lines.len(), records(&heard), heard.tokens, heard.troubles), (3, 3, count, 0));
}

#[test]
fn tokens_differ_from_other_protocols_and_have_an_end() {
    let mut observed = Observed::default();
    // ASN.1, but of another length.
    for part in segments(&[client(framed(&[0x60, 0x82, 1, 1, 6, 9, 9, 9, 9, 9, 9, 9]))], 5, |len| len) {
        observed.push(&part);
    }
    assert_eq!(observed.connection.speaks(), Speaks::Other);
    let mut observed = Observed::default();
    let said = vec![client(framed(&[0x60, 0x0a, 6, 9, 9, 9, 9, 9, 9, 9, 9, 9])); 100];
    for part in segments(&said, 5, |len| len) {
        observed.push(&part);
    }
    assert_eq!(observed.connection.speaks(), Speaks::Other);
    assert_eq!(observed.connection.held_bytes(), 0);
}

/// While a token or a password is on its way it is held; not a moment longer.
#[test]
fn nothing_of_a_secret_is_held() {
    let message = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(vec![b's'; 5000]));
    let authenticate = client(request(ApiKey::SaslAuthenticate, 2, 1, &message));
    let raw = client(framed(&[b's'; 5000]));
    for (version, secret) in [(1, authenticate), (0, raw)] {
        let mut observed = Observed::default();
        let mut most = 0;
        for part in
            segments(&[handshake(version, 0, "PLAIN"), shaken(version, 0, 0), secret], 5, |len| len.min(1000))
        {
            observed.push(&part);
            most = most.max(observed.connection.held_bytes());
        }
        assert!(most >= 4000);
        assert!(observed.connection.held_bytes() < 1000);
    }
}
