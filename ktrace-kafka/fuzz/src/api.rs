//! One exchange of any API: three bytes pick the API, its version, and what of the connection's
//! beginning was seen; the rest are the bodies of the request and the response. Both are framed as
//! they should be, so that every API's reader gets the bytes; an API that is new in the table is
//! fuzzed with no change here.

use std::cell::RefCell;

use ktrace_kafka::context::Extractor;
use ktrace_kafka::counters::Counters;
use ktrace_kafka::protocol::api::Api;
use ktrace_kafka::{Connection, Direction, Limits, Push, Scratch};
use ktrace_testkit::framed;

use super::input::Input;
use super::watch::Watch;

const LIMITS: Limits = Limits {
    frame_bytes: 64 << 10,
    held_bytes: 16 << 10,
    pending: 16,
    pending_bytes: 64 << 10,
    decompressed_bytes: 64 << 10,
    exchange_bytes: 128 << 10,
    kept_bytes: 64 << 10,
    search_bytes: 64 << 10,
};

/// The beginning of this direction was not seen: its frames are searched for.
const NO_REQUEST_SYN: u8 = 1;
const NO_RESPONSE_SYN: u8 = 2;
/// The tagged fields of the headers are the fuzzer's.
const OWN_TAGS: u8 = 4;

fn apis() -> i16 {
    (0..i16::MAX).take_while(|key| Api::of(*key).is_some()).last().map_or(1, |last| last + 1)
}

/// The bytes as this target understands them.
#[must_use]
pub fn encode(api_key: i16, version: i16, request: &[u8], response: &[u8]) -> Vec<u8> {
    let mut out = vec![api_key as u8, version as u8, 0];
    out.extend((request.len() as u16).to_be_bytes());
    [&out, request, response].concat()
}

/// Runs one input.
pub fn run(data: &[u8]) {
    thread_local! {
        static APIS: i16 = apis();
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(LIMITS, Extractor::default()));
    }
    let mut input = Input(data);
    let key = i16::from(input.u8()) % APIS.with(|apis| *apis);
    let api = Api::of(key).expect("a key of the table");
    let version = i16::from(input.u8()) % (api.newest + 2);
    let flags = input.u8();
    let split = usize::from(input.u16());
    let (request, response) = (input.take(split), input.0);
    let tags = |flexible: bool| if flexible && flags & OWN_TAGS == 0 { &[0][..] } else { &[] };

    let mut sent = [key.to_be_bytes(), version.to_be_bytes()].concat();
    sent.extend(7_i32.to_be_bytes());
    sent.extend(b"\0\x02me");
    sent.extend(tags(api.is_flexible(version)));
    sent.extend(request);
    let mut answer = 7_i32.to_be_bytes().to_vec();
    answer.extend(tags(api.response_header_is_flexible(version)));
    answer.extend(response);

    SCRATCH.with_borrow_mut(|scratch| {
        scratch.counters = Counters::default();
        let (mut connection, mut watch) = (Connection::default(), Watch::default());
        let mut push = |direction, seq, syn, bytes: &[u8]| {
            let len = bytes.len() as u32;
            let push =
                Push { direction, seq, ack: None, syn, fin: false, bytes, len, time_ns: u64::from(seq) };
            connection.push(scratch, push, &mut watch);
        };
        if flags & NO_REQUEST_SYN == 0 {
            push(Direction::ToBroker, 0, true, &[]);
        }
        if flags & NO_RESPONSE_SYN == 0 {
            push(Direction::ToClient, 0, true, &[]);
        }
        push(Direction::ToBroker, 1, false, &framed(&sent));
        push(Direction::ToClient, 1, false, &framed(&answer));
        connection.finish(scratch, &mut watch);
        assert_eq!(connection.held_bytes(), 0);
        // ControlledShutdown 0 has another header.
        if flags == 0 && (key, version) != (7, 0) {
            assert_eq!(scratch.counters.exchanges, 1, "{} {version}: {:?}", api.name, scratch.counters);
        }
    });
}
