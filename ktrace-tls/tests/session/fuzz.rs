//! The talks of the fuzz target `session`: `cargo test -p ktrace-tls --test session -- --ignored`
//! writes them anew.

use std::path::Path;

use ktrace_tls::Sender;

use crate::wire::*;
use crate::{AES_256, TLS12};

/// In front of keys, where others say who sends.
const KEY: u8 = 2;

fn encode(talk: &Talk) -> Vec<u8> {
    let mut out = vec![];
    let chunks = talk.chunks.iter().map(|chunk| (chunk.from as u8, &chunk.bytes[..]));
    for (kind, bytes) in chunks.chain(talk.keys.iter().map(|keys| (KEY, &keys.key[..]))) {
        out.push(kind);
        out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend(bytes);
    }
    out
}

#[test]
#[ignore = "writes the talks anew"]
fn write_talks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ktrace-kafka/fuzz");
    let talks = [
        ("tls-13.bin", Talk::tls13(AES_256), true),
        ("tls-middle.bin", Talk::middle(AES_256, 253, 65_530), true),
        ("tls-12.bin", Talk::tls12(TLS12[1]), false),
    ];
    for (name, mut talk, updates) in talks {
        for len in [20, 0, 300, 1, 40, 1200, 7, 90, 30, 5] {
            for from in BOTH {
                talk.say(from, &vec![len as u8; len]);
            }
            if updates && len == 40 {
                talk.key_update(Sender::Server);
            }
        }
        std::fs::write(folder.join(name), encode(&talk)).unwrap();
    }
}
