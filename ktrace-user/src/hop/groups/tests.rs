//! Members of one client, distinguished.

use kafka::{GroupProtocol, MemberState};

use super::*;

const BROKER: u8 = 1;

fn line(connection: u64) -> Line {
    Line { connection: ConnectionId(connection), broker: ([10, 0, 0, BROKER], 9092).into() }
}

fn at(partition: i32) -> TopicPartition<'static> {
    TopicPartition { id: None, name: Some("orders"), partition }
}

struct World {
    groups: Groups,
    client: Client,
    now_ns: u64,
}

impl World {
    fn new() -> Self {
        let client = Client { speaker: Speaker::Process(1), id: Some("rdkafka".into()) };
        Self { groups: Groups::default(), client, now_ns: 1000 }
    }

    fn tell(&mut self, on: u64, group: &str, id: &str, state: MemberState, error: i16) -> bool {
        self.now_ns += 10;
        let member = kafka::Member {
            protocol: GroupProtocol::Classic,
            group_id: group,
            member_id: id,
            instance_id: None,
            generation_or_epoch: 1,
            state,
            error,
        };
        let heard = Heard { client: &self.client, line: line(on), now_ns: self.now_ns };
        self.groups.member(heard, &member)
    }

    fn joins(&mut self, on: u64, group: &str, id: &str) {
        self.tell(on, group, id, MemberState::Joining, 0);
    }

    fn assign(&mut self, on: u64, group: &str, id: &str, partitions: &[i32]) {
        self.now_ns += 10;
        let heard = Heard { client: &self.client, line: line(on), now_ns: self.now_ns };
        self.groups.assignment_begins(heard, group, id, 1);
        for partition in partitions {
            self.groups.assigned(heard, group, id, at(*partition));
        }
    }

    fn commits(&mut self, on: u64, group: &str, id: &str, partition: i32) -> bool {
        let heard = Heard { client: &self.client, line: line(on), now_ns: self.now_ns };
        self.groups.reads(heard, group, id, at(partition))
    }

    /// The group and the member that fetches now.
    fn fetch(&mut self, on: u64, partition: i32) -> String {
        self.now_ns += 10;
        self.fetch_asked(on, partition, self.now_ns)
    }

    fn fetch_asked(&mut self, on: u64, partition: i32, asked_ns: u64) -> String {
        let asked = FetchFrom { at: at(partition), ns: asked_ns, offset: 7 };
        match self.groups.reader(&self.client, line(on), asked).0 {
            Reader::Unknown => "?".to_owned(),
            Reader::Group(group) => group.to_string(),
            Reader::Member(member) => format!("{}/{}", member.group, member.id),
        }
    }
}

#[test]
fn members_of_one_client_are_told_apart_by_what_they_read() {
    let mut world = World::new();
    for (on, group, id, partition) in [(1, "a", "a1", 0), (2, "a", "a2", 1), (3, "b", "b1", 2)] {
        world.joins(on, group, id);
        assert_eq!(world.fetch(10 + on, partition), "?", "before it is assigned");
        world.assign(on, group, id, &[partition]);
    }
    assert_eq!(world.fetch(12, 1), "a/a2");
    assert_eq!(world.fetch(11, 0), "a/a1");
    assert_eq!(world.fetch(13, 2), "b/b1");
    assert_eq!(world.fetch(14, 7), "?", "nobody's");
    assert_eq!(world.fetch(14, 0), "?", "its member reads elsewhere: this one takes partitions by itself");
}

/// Two groups that read the same: who comes first is known, and then the other too.
#[test]
fn groups_that_read_the_same_are_told_apart_by_who_could_read_when() {
    let mut world = World::new();
    world.joins(1, "a", "a1");
    world.joins(2, "b", "b1");
    world.assign(1, "a", "a1", &[0]);
    assert_eq!(world.fetch(11, 0), "a/a1");
    world.assign(2, "b", "b1", &[0]);
    assert_eq!(world.fetch(12, 0), "b/b1");
    // The connection of the one ends: a new one is its own.
    world.groups.gone(ConnectionId(11), world.now_ns);
    assert_eq!(world.fetch(13, 0), "a/a1");
}

/// As with kafka-go: that one reads another partition elsewhere does not make it the other's.
#[test]
fn of_clients_with_a_connection_for_each_partition_none_is_taken_for_another() {
    let mut world = World::new();
    world.joins(1, "a", "a1");
    world.assign(1, "a", "a1", &[0]);
    world.joins(2, "b", "b1");
    world.assign(2, "b", "b1", &[0, 1]);
    assert_eq!(world.fetch(11, 1), "b/b1");
    assert_eq!(world.fetch(12, 0), "?", "either's");
    // One connection for all after all.
    assert_eq!(world.fetch(11, 0), "b/b1");
    assert_eq!(world.fetch(12, 0), "a/a1");
}

#[test]
fn who_cannot_be_told_is_not_named() {
    let mut world = World::new();
    for (on, group, id) in [(1, "a", "a1"), (2, "b", "b1")] {
        world.joins(on, group, id);
        world.assign(on, group, id, &[0]);
    }
    assert_eq!(world.fetch(11, 0), "?");
    // It comes out when one of them gets what the other has not.
    world.assign(2, "b", "b1", &[0, 1]);
    assert_eq!(world.fetch(11, 1), "b/b1");
    assert_eq!(world.fetch(11, 0), "b/b1");
    assert_eq!(world.fetch(12, 0), "a/a1");
}

/// Of two that read one of its partitions, one does not read the other.
#[test]
fn what_a_connection_has_read_before_counts() {
    let mut world = World::new();
    for (on, group, id, partitions) in
        [(1, "a", "a1", &[0, 1][..]), (2, "b", "b1", &[0, 2]), (3, "c", "c1", &[1, 2])]
    {
        world.joins(on, group, id);
        world.assign(on, group, id, partitions);
    }
    assert_eq!(world.fetch(12, 0), "?");
    assert_eq!(world.fetch(12, 2), "b/b1");
}

#[test]
fn who_was_told_an_offset_begins_there() {
    let mut world = World::new();
    for (on, group, id) in [(1, "a", "a1"), (2, "b", "b1")] {
        world.joins(on, group, id);
        world.assign(on, group, id, &[0, 1]);
    }
    let asked_ns = world.now_ns + 1;
    for (on, group, partition, offset) in [(1, "a", 0, 7), (2, "b", 0, 7), (1, "a", 1, 5), (2, "b", 1, 7)] {
        world.now_ns += 10;
        let heard = Heard { client: &world.client, line: line(on), now_ns: world.now_ns };
        world.groups.position(heard, group, at(partition), offset);
    }
    assert_eq!(world.fetch(12, 0), "?");
    assert_eq!(world.fetch_asked(12, 1, asked_ns), "?", "nobody reads before it is told from where");
    assert_eq!(world.fetch(13, 1), "b/b1");
}

#[test]
fn who_speaks_on_the_very_connection_is_the_one() {
    let mut world = World::new();
    for (on, group, id) in [(1, "a", "a1"), (2, "b", "b1")] {
        world.joins(on, group, id);
        world.assign(on, group, id, &[0]);
    }
    assert_eq!(world.fetch(1, 0), "a/a1");
    assert_eq!(world.fetch(2, 0), "b/b1");
}

#[test]
fn a_rebalance_moves_partitions() {
    let mut world = World::new();
    world.joins(1, "a", "a1");
    world.assign(1, "a", "a1", &[0, 1]);
    assert_eq!(world.fetch(11, 1), "a/a1");
    let asked_ns = world.now_ns;
    world.joins(2, "a", "a2");
    world.assign(1, "a", "a1", &[0]);
    world.assign(2, "a", "a2", &[1]);
    assert_eq!(world.fetch_asked(11, 1, asked_ns), "a/a1", "asked before");
    assert_eq!(world.fetch(11, 1), "a/a1", "asked when it had not taken note yet");
    assert_eq!(world.fetch(12, 1), "a/a2");
    assert_eq!(world.fetch(11, 0), "a/a1");
    world.tell(2, "a", "a2", MemberState::Leaving, 0);
    world.assign(1, "a", "a1", &[0, 1]);
    assert_eq!(world.fetch(11, 1), "a/a1");
}

#[test]
fn a_member_that_was_sent_away_comes_back_under_another_name() {
    let mut world = World::new();
    world.joins(1, "a", "a1");
    world.assign(1, "a", "a1", &[0]);
    assert_eq!(world.fetch(11, 0), "a/a1");
    assert!(world.tell(1, "a", "a1", MemberState::Stable, 25));
    world.joins(1, "a", "a9");
    assert_eq!(world.fetch(11, 0), "a/a9", "asked when it had not taken note yet");
    assert_eq!(world.fetch(11, 1), "?", "it was assigned nothing");
    world.assign(1, "a", "a9", &[0]);
    assert_eq!(world.fetch(11, 0), "a/a9");
    assert_eq!(world.list().len(), 1);
}

/// An agent that comes later has heard no assignment.
#[test]
fn the_only_member_is_the_one_and_commits_tell_more() {
    let mut world = World::new();
    assert_eq!(world.fetch(11, 0), "?");
    world.tell(1, "a", "a1", MemberState::Stable, 0);
    assert_eq!(world.fetch(11, 0), "a/a1");
    world.tell(2, "a", "a2", MemberState::Stable, 0);
    assert_eq!(world.fetch(11, 0), "a", "one of the group");
    world.tell(3, "b", "b1", MemberState::Stable, 0);
    assert_eq!(world.fetch(11, 0), "?");
    assert!(world.commits(1, "a", "a1", 0));
    assert!(!world.commits(1, "a", "a1", 0));
    assert_eq!(world.fetch(11, 0), "?", "the other group may read it too");
    world.assign(3, "b", "b1", &[5]);
    assert_eq!(world.fetch(11, 0), "a/a1");
}

#[test]
fn who_takes_partitions_by_itself_and_commits_has_a_group() {
    let mut world = World::new();
    assert!(world.commits(1, "tool", "", 3));
    assert_eq!(world.fetch(11, 3), "tool/");
    // A member's own questions make no second one of it.
    world.joins(2, "a", "a1");
    world.assign(2, "a", "a1", &[0]);
    assert!(!world.commits(2, "a", "", 0));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn what_goes_is_forgotten() {
    let mut world = World::new();
    world.commits(1, "tool", "", 3);
    world.fetch(11, 3);
    assert!(world.groups.gone(ConnectionId(1), 0));
    assert!(!world.groups.gone(ConnectionId(1), 0));
    assert!(world.groups.clients.is_empty() && world.groups.connections.is_empty());
    // A member may come back on other connections with what it had.
    world.joins(1, "a", "a1");
    world.assign(1, "a", "a1", &[0]);
    world.groups.gone(ConnectionId(1), world.now_ns);
    world.tell(2, "a", "a1", MemberState::Stable, 0);
    assert_eq!(world.fetch(11, 0), "a/a1");
    for number in 0..2 * MAX_INSTANCES {
        world.joins(3, "a", &number.to_string());
    }
    assert!(world.list().len() <= MAX_INSTANCES);
}

/// Hostile: as many names as there may be, each said once or with all that there may be of it.
#[test]
fn all_of_it_is_bounded_and_members_forgotten_are_counted() {
    let long = "x".repeat(900);
    type Tell<'x> = &'x dyn Fn(&mut World, u64);
    let worlds: [(&str, Tell<'_>); 4] = [
        ("groups", &|world, number| world.joins(1, &format!("{number}-{long}"), "m")),
        ("members", &|world, number| world.joins(1, "a", &format!("{number}-{long}"))),
        ("clients", &|world, number| {
            world.client.id = Some(format!("{number}-{long}").into());
            world.joins(number, "a", "a1");
        }),
        ("partitions", &|world, number| {
            world.client.id = Some(number.to_string().into());
            world.assign(number, "a", "a1", &(0..1000).collect::<Vec<_>>());
        }),
    ];
    for (what, tell) in worlds {
        let mut world = World::new();
        let count = if what == "partitions" { 2_000 } else { 100_000 };
        for number in 0..count {
            tell(&mut world, number);
            assert!(world.groups.bytes() <= MAX_BYTES + (1 << 20), "{what}");
        }
        let held: usize =
            world.groups.clients.iter().map(|(client, list)| Groups::weight(client, list)).sum();
        assert!(held <= world.groups.bytes(), "{what}: {held}");
        let [clients, members] = world.sizes();
        assert!(world.groups.connections.len() <= clients.max(1), "{what}");
        let forgotten = world.groups.take_evicted();
        assert!(forgotten > 0 && forgotten + members as u64 == count, "{what}: {forgotten} {members}");
    }
}

#[test]
fn who_was_heard_last_is_kept() {
    let mut world = World::new();
    world.groups.hold_at_most(100.0 / (48.0 * 1024.0));
    for number in 0..1000 {
        world.client.id = Some(number.to_string().into());
        world.joins(number, "a", "a1");
        world.client.id = Some("faithful".into());
        world.joins(5000, "a", "a1");
    }
    assert!(world.groups.clients.peek(&world.client).is_some());
    assert!((10..500).contains(&world.groups.clients.len()));
}

impl World {
    /// The members of the client.
    fn list(&self) -> &[Instance] {
        self.groups.clients.peek(&self.client).unwrap()
    }

    /// Clients, and members of all of them.
    fn sizes(&self) -> [usize; 2] {
        [0, 1].map(|row| self.groups.rows()[row].1)
    }

    fn asks(&mut self, on: u64, group: &str, partition: i32, offset: i64) -> bool {
        self.now_ns += 10;
        let heard = Heard { client: &self.client, line: line(on), now_ns: self.now_ns };
        self.groups.position(heard, group, at(partition), offset)
    }

    fn fetch_from(&mut self, on: u64, partition: i32, offset: i64) -> String {
        self.now_ns += 10;
        let asked = FetchFrom { at: at(partition), ns: self.now_ns, offset };
        let reader = self.groups.reader(&self.client, line(on), asked).0;
        reader.group().map_or("?".to_owned(), ToString::to_string)
    }
}

#[test]
fn who_takes_partitions_by_itself_reads_from_where_its_group_stands() {
    let mut world = World::new();
    assert!(world.asks(1, "a", 0, 7));
    assert!(world.asks(1, "a", 1, 9));
    assert!(!world.asks(1, "a", 2, -1), "nothing is committed there");
    assert_eq!(world.fetch_from(2, 0, 6), "?", "from elsewhere");
    assert_eq!(world.fetch_from(2, 2, 0), "?", "not asked for");
    assert_eq!(world.fetch_from(2, 0, 7), "a");
    // From then on, and all that it has asked for.
    assert_eq!(
        [world.fetch_from(2, 0, 8), world.fetch_from(2, 1, 9), world.fetch_from(2, 2, 0)],
        ["a", "a", "?"]
    );
    // What it commits it reads.
    world.commits(1, "a", "", 2);
    assert_eq!(world.fetch_from(2, 2, 5), "a");
    // It is a member of the same group after all.
    let mut world = World::new();
    world.asks(1, "a", 0, 7);
    world.assign(1, "a", "m", &[0]);
    assert_eq!(world.fetch(2, 0), "a/m");
    assert_eq!(world.sizes(), [1, 1]);
}

/// It asks for many groups, and reads for none.
#[test]
fn who_watches_groups_reads_for_none_of_them_and_makes_none_forgotten() {
    let mut world = World::new();
    for group in 0..1000 {
        for partition in 0..3 {
            world.asks(1, &format!("g{group}"), partition, 7);
        }
    }
    assert_eq!((world.sizes()[1], world.groups.take_evicted()), (MAX_ASKED, 0));
    assert_eq!(world.fetch_from(2, 0, 7), "?", "of many groups");
    assert_eq!(world.fetch_from(2, 0, 8), "?");
    // A real member is known all the same.
    world.assign(3, "b", "b1", &[5]);
    assert_eq!(world.fetch_from(4, 5, 0), "b");
}
