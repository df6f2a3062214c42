//! Names that come once, as long as they may be.

use ktrace_testkit::Fields;

use crate::clients::{Connection, MILLISECOND_NS, START_NS, process};
use crate::traffic::{Read, Traffic};
use crate::wire::{
    self, Batch, END_TXN, FETCH, JOIN_GROUP, LIST_OFFSETS, METADATA, OFFSET_COMMIT, PRODUCE, SYNC_GROUP,
    TXN_OFFSET_COMMIT, Writer,
};

const CONNECTIONS: u64 = 64;

/// As much of a name as is the same in all.
const REST: usize = 600;

pub struct Hostile {
    connections: Vec<Connection>,
    rest: String,
    number: u64,
}

impl Default for Hostile {
    fn default() -> Self {
        let connections = (1..=CONNECTIONS).map(|id| Connection::new(id, &process(id as usize))).collect();
        Self { connections, rest: "x".repeat(REST), number: 0 }
    }
}

impl Traffic for Hostile {
    fn millisecond(&mut self, read: Read<'_>) {
        let Self { connections, rest, number } = self;
        let now_ns = START_NS + *number * MILLISECOND_NS;
        if *number == 0 {
            connections.iter().for_each(|connection| connection.open(read));
        }
        let name = |what: &str| format!("{what}-{number}-{rest}");
        let (client, group, member) = (name("client"), name("group"), name("member"));
        let (topic, producer) = (&name("topic")[..240], 1000 + *number as i64);
        let ask = |api, version| wire::request(api, version, &client);
        let connection = &mut connections[(*number % CONNECTIONS) as usize];
        let mut say = |request, response| connection.say(now_ns, request, response, read);

        let id = u128::from(*number).to_be_bytes();
        let request = ask(METADATA, 10).raw([0, 0, 0, 0, 0, 0]);
        let cluster = [&[200, 1][..], &name("cluster").as_bytes()[..199]].concat();
        let named = [&[0, 0, 241, 1][..], topic.as_bytes(), &id, &[0, 1, 0, 0, 0, 0, 0]].concat();
        let response = wire::response().raw([0, 0, 0, 0, 0, 1]).raw(&cluster).i32(1);
        say(request, response.raw([2]).raw(&named).raw([0, 0, 0, 0, 0]));

        let request = ask(JOIN_GROUP, 0).old(&group).i32(45_000).old("").old("consumer").i32(0);
        say(request, wire::response().i16(0).i32(1).old("range").old(&member).old(&member).i32(0));
        let assigned = Fields::default().i16(0).i32(1).old(topic).i32(50);
        let assigned = (0..50).fold(assigned, Fields::i32).i32(-1).0;
        let request = ask(SYNC_GROUP, 1).old(&group).i32(1).old(&member).i32(0);
        say(request, wire::response().i32(0).i16(0).bytes(&assigned));

        let request = ask(LIST_OFFSETS, 1).i32(-1).i32(1).old(topic).i32(1).i32(0).i64(-1);
        say(request, wire::response().i32(1).old(topic).i32(1).i32(0).i16(0).i64(-1).i64(0));
        let batch = Batch::new(Writer::Plain, false, 1).bytes;
        let request = ask(FETCH, 4).i32(-1).i32(500).i32(1).i32(1 << 20).i8(0);
        let response = wire::response().i32(0).i32(1).old(topic).i32(1).i32(0).i16(0).i64(1).i64(1);
        let request = request.i32(1).old(topic).i32(1).i32(0).i64(0).i32(1 << 20);
        say(request, response.i32(-1).bytes(&batch));
        let request = ask(OFFSET_COMMIT, 2).old(&group).i32(1).old(&member).i64(-1);
        let request = request.i32(1).old(topic).i32(1).i32(0).i64(1).old("");
        say(request, wire::response().i32(1).old(topic).i32(1).i32(0).i16(0));

        for (writer, error) in [(Writer::Idempotent(producer), 6), (Writer::Transactional(producer), 0)] {
            let batch = Batch::new(writer, false, 1).bytes;
            let request = match writer {
                Writer::Transactional(_) => ask(PRODUCE, 3).old(&client),
                _ => ask(PRODUCE, 3).i16(-1),
            };
            let request = request.i16(-1).i32(30_000).i32(1).old(topic).i32(1).i32(0).bytes(&batch);
            let response = wire::response().i32(1).old(topic).i32(1).i32(0).i16(error).i64(0).i64(-1);
            say(request, response.i32(0));
        }
        let request = ask(TXN_OFFSET_COMMIT, 0).old(&client).old(&group).i64(producer).i16(0);
        let request = request.i32(1).old(topic).i32(1).i32(0).i64(1).old("");
        say(request, wire::response().i32(0).i32(1).old(topic).i32(1).i32(0).i16(0));
        // Another one ends its own: this one never ends.
        let request = ask(END_TXN, 0).old(&client).i64(-producer).i16(0).i8(1);
        say(request, wire::response().i32(0).i16(0));
        *number += 1;
    }

    fn records(&self) -> u64 {
        3 * self.number
    }
}
