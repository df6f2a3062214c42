//! The trace header styles that a producer can write, each message with a context of its own.

use std::io::Read as _;

use rdkafka::message::{Header, OwnedHeaders};

pub fn write(style: &str, number: u64) -> OwnedHeaders {
    let traceparent = format!("00-{}-{}-01", hex(16), hex(8));
    let b3 = format!("{}-{}-1", hex(16), hex(8));
    let all: Vec<(&str, Option<&[u8]>)> = match (style, number % 4) {
        ("none", _) | ("edges", 3) => Vec::new(),
        ("traceparent", _) => vec![("traceparent", Some(traceparent.as_bytes()))],
        ("edges", 0) => {
            vec![("content-type", Some(b"text/plain")), ("traceparent", Some(traceparent.as_bytes()))]
        }
        ("edges", 1) => vec![("b3", Some(b3.as_bytes())), ("twice", Some(b"1")), ("twice", Some(b"2"))],
        ("edges", _) => vec![("nothing", None), ("", Some(b"empty key")), ("bytes", Some(b"\xff\0\xfe"))],
        (other, _) => panic!("unknown header style: {other}"),
    };
    all.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value }))
}

fn hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut from| from.read_exact(&mut random))
        .expect("random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
