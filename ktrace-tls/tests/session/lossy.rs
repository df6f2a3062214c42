//! Bytes go missing: what is given is right, and goes on with the next record.

use ktrace_tls::secret::Keys;
use ktrace_tls::session::{Plain, Session};
use ktrace_tls::{Sender, Version};

use crate::wire::*;
use crate::{AES_128, AES_256, CBC, CHACHA20, TLS12, feed, is_gcm};

/// Talks that are tried: a hundred times as many with `KTRACE_FULL=1`. `KTRACE_SEED` names one.
fn seeds() -> std::ops::Range<u64> {
    0..if std::env::var_os("KTRACE_FULL").is_some() { 100_000 } else { 1000 }
}

/// How keys come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// Secrets, with the hellos.
    Secrets,
    /// A search, after some records.
    Memory,
}

enum Event {
    Data(u32, Vec<u8>),
    Gap(u64, bool),
}

struct Trial {
    session: Session,
    events: [Vec<Event>; 2],
    heard: Heard,
    /// Ranges that were delivered, of each direction, as positions from its first byte on.
    delivered: [Vec<(u64, u64)>; 2],
}

impl Trial {
    fn new(from_beginning: bool) -> Self {
        Self {
            session: Session::new(from_beginning),
            events: [vec![], vec![]],
            heard: Heard::default(),
            delivered: [vec![], vec![]],
        }
    }

    fn drain(&mut self, heard: Vec<(Sender, Event)>) {
        for (from, event) in heard {
            self.events[from as usize].push(event);
        }
    }

    fn data(&mut self, chunk: &Chunk, time_ns: u64) {
        let mut heard = vec![];
        self.session.data(chunk.from, chunk.seq, &chunk.bytes, time_ns, &mut |from, plain| {
            heard.push((from, event(plain)));
        });
        self.drain(heard);
    }

    fn gap(&mut self, from: Sender, bytes: usize) {
        let mut heard = vec![];
        self.session.gap(from, bytes as u64, &mut |from, plain| heard.push((from, event(plain))));
        self.drain(heard);
    }

    fn search(&mut self, keys: &[Keys]) {
        search(&mut self.session, keys, &mut self.heard);
        let said = std::mem::take(&mut self.heard.said);
        // The order of gaps and data is lost here, so gaps count for nothing.
        let heard = said.into_iter().map(|(from, seq, bytes)| (from, Event::Data(seq, bytes))).collect();
        self.drain(heard);
    }
}

fn event(plain: Plain<'_>) -> Event {
    match plain {
        Plain::Data { seq, bytes, .. } => Event::Data(seq, bytes.to_vec()),
        Plain::Gap { bytes, exact } => Event::Gap(bytes, exact),
    }
}

/// A talk of the seed's own kind.
fn talk(random: &mut Random) -> Talk {
    let mut talk = match random.below(8) {
        0 => Talk::tls13(AES_128),
        1 | 2 => Talk::tls13(AES_256),
        3 => Talk::tls13(CHACHA20),
        4 => Talk::tls12(TLS12[random.below(4) as usize]),
        5 if random.below(2) == 0 => Talk::tls12(CBC[random.below(4) as usize]),
        5 => Talk::middle12(TLS12[1], random.below(3000), random.below(3000)),
        _ => {
            let around = [1 << 8, 1 << 16, 1 << 32, 40][random.below(4) as usize];
            let mut number = || around - random.below(30);
            Talk::middle(AES_256, number(), number())
        }
    };
    // Half of TLS 1.2's senders count from zero.
    if random.below(2) == 0 && talk.client.number == 1 {
        talk.client.explicit = 0;
    }
    talk
}

/// Cuts chunks into pieces, and joins some.
fn pieces(chunks: &[Chunk], random: &mut Random) -> Vec<Chunk> {
    let mut pieces: Vec<Chunk> = vec![];
    for chunk in chunks {
        let mut at = 0;
        while at < chunk.bytes.len() {
            let len = match random.below(4) {
                0 => 1 + random.below(8),
                1 => 1 + random.below(100),
                _ => 1 + random.below(3000),
            };
            let end = (at + len as usize).min(chunk.bytes.len());
            let bytes = chunk.bytes[at..end].to_vec();
            match pieces.last_mut() {
                Some(last) if last.from == chunk.from && random.below(3) == 0 => last.bytes.extend(bytes),
                _ => pieces.push(Chunk { from: chunk.from, seq: chunk.seq.wrapping_add(at as u32), bytes }),
            }
            at = end;
        }
    }
    pieces
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut talk = talk(&mut random);
    let source = match random.below(2) {
        0 if is_gcm(&talk) => Source::Memory,
        // They need the randoms of the handshake.
        _ if talk.chunks.is_empty() && talk.client.version == Version::Tls12 => Source::Memory,
        _ => Source::Secrets,
    };
    let handshake = talk.chunks.len();
    let from_beginning = handshake > 0;
    if random.below(2) == 0 {
        talk.secrets.client_handshake = None;
        talk.secrets.server_handshake = None;
    }
    let exchanges = 5 + random.below(20);
    talk.exchanges(&mut random, exchanges);
    if talk.client.secret.len() > 1 && source == Source::Secrets && random.below(3) == 0 {
        talk.key_update(BOTH[random.below(2) as usize]);
        talk.exchanges(&mut random, 5);
    }
    // Bytes of the handshake may be missing, too: then less is known.
    let early = random.below(4) == 0;
    let lossy_end = talk.chunks.len();
    talk.exchanges(&mut random, 6);

    let what = format!("seed {seed}: {:?} {source:?}, beginning {from_beginning}", talk.client.suite);
    let mut trial = Trial::new(from_beginning);
    let mut time_ns = 0;
    let mut keyed = false;
    for (index, chunks) in
        [&talk.chunks[..handshake], &talk.chunks[handshake..lossy_end], &talk.chunks[lossy_end..]]
            .into_iter()
            .enumerate()
    {
        let mut missing = [0_usize; 2];
        let lossy = index == 1 || index == 0 && early;
        for piece in pieces(chunks, &mut random) {
            let from = piece.from as usize;
            time_ns += 1;
            if lossy && random.below(12) == 0 {
                missing[from] += piece.bytes.len();
                continue;
            }
            if missing[from] > 0 {
                trial.gap(piece.from, std::mem::take(&mut missing[from]));
            }
            let start = u64::from(piece.seq.wrapping_sub(if from == 0 { u32::MAX - 700 } else { 5 }));
            trial.delivered[from].push((start, start + piece.bytes.len() as u64));
            trial.data(&piece, time_ns);
            if source == Source::Memory && !trial.session.lacks().is_empty() && random.below(10) == 0 {
                trial.search(&talk.keys);
            }
            let asked = !keyed && trial.session.hello().suite.is_some() || !trial.session.lacks().is_empty();
            if source == Source::Secrets && asked {
                let mut heard = vec![];
                keyed |= trial.session.take_secrets(&talk.secrets, &mut |from, plain| {
                    heard.push((from, event(plain)));
                });
                trial.drain(heard);
            }
        }
        for from in BOTH {
            if missing[from as usize] > 0 {
                trial.gap(from, missing[from as usize]);
            }
        }
    }
    if source == Source::Memory {
        trial.search(&talk.keys);
        trial.search(&talk.keys);
    }
    let whole = source == Source::Secrets && from_beginning && is_gcm(&talk) && !early;
    for from in BOTH {
        check(
            &trial,
            &talk,
            from,
            whole,
            source == Source::Secrets && from_beginning && !early,
            early,
            &what,
        );
    }
}

fn check(trial: &Trial, talk: &Talk, from: Sender, whole: bool, gaps: bool, early: bool, what: &str) {
    let origin = if from == Sender::Client { u32::MAX - 700 } else { 5 };
    let said: Vec<_> = talk.said.iter().filter(|(sender, ..)| *sender == from).collect();
    let mut next = 0;
    let mut gap = (0, true);
    let mut heard = vec![false; said.len()];
    for event in &trial.events[from as usize] {
        match event {
            Event::Gap(bytes, exact) => gap = (gap.0 + bytes, gap.1 && *exact),
            Event::Data(seq, bytes) => {
                let at = said.iter().position(|(_, position, _)| position == seq);
                let at = at.unwrap_or_else(|| panic!("{what}: {from:?} gives what was not said at {seq}"));
                assert!(at >= next, "{what}: {from:?} gives {at} behind {next}");
                assert!(said[at].2 == *bytes, "{what}: {from:?} gives something else for {at}");
                let missed: usize = said[next..at].iter().map(|(.., bytes)| bytes.len()).sum();
                if gaps {
                    let (bytes, exact) = std::mem::replace(&mut gap, (0, true));
                    let fits = if exact { bytes == missed as u64 } else { bytes >= missed as u64 };
                    assert!(fits, "{what}: {from:?} misses {missed} before {at}, a gap says {bytes} {exact}");
                }
                heard[at] = true;
                next = at + 1;
            }
        }
    }
    // What was delivered whole, piece by piece, is given; all of it where tags prove the records
    // behind a gap.
    let mut delivered = trial.delivered[from as usize].clone();
    delivered.dedup_by(|next, last| {
        let joins = last.1 == next.0;
        if joins {
            last.1 = next.1;
        }
        joins
    });
    // Without both randoms there are no keys out of a master secret.
    let hello = trial.session.hello();
    if early
        && talk.client.version == Version::Tls12
        && hello.client_random.zip(hello.server_random).is_none()
    {
        return;
    }
    let (last, _) = *delivered.last().expect("the last part is delivered");
    for (index, (_, seq, bytes)) in said.iter().enumerate() {
        let start = u64::from(seq.wrapping_sub(origin));
        let record = start..start + 5 + bytes.len() as u64 + 16;
        let there = delivered.iter().any(|(from, to)| *from <= record.start && record.end + 8 <= *to);
        // Elsewhere it may take a second header, and the last in the talk has none behind it.
        let wanted = if whole { there } else { there && record.start >= last && index + 1 < said.len() };
        let first = said.iter().position(|(_, seq, _)| u64::from(seq.wrapping_sub(origin)) >= last);
        let wanted = wanted && (whole || first.is_some_and(|first| index > first));
        assert!(
            heard[index] || !wanted,
            "{what}: {from:?} does not give {index} of {}, lacks {:?}, holds {:?}, {:?}",
            said.len(),
            trial.session.lacks(),
            trial.session.held(),
            trial.session.hello(),
        );
    }
}

#[test]
fn what_is_given_is_right_and_goes_on_with_the_next_record() {
    let seeds = match std::env::var("KTRACE_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => seeds(),
    };
    std::thread::scope(|scope| {
        let half = seeds.start + (seeds.end - seeds.start) / 2;
        for part in [seeds.start..half, half..seeds.end] {
            scope.spawn(move || part.for_each(run));
        }
    });
}

/// More records than a search for the next header keeps in view, in one piece behind a gap: the
/// first whole one goes on.
#[test]
fn a_large_piece_of_small_records_behind_a_gap() {
    for suite in [AES_128, AES_256, CHACHA20] {
        let mut talk = Talk::tls13(suite);
        let handshake = talk.chunks.len();
        for number in 0..600_u32 {
            talk.say(Sender::Client, &number.to_be_bytes());
        }
        let (mut session, mut heard) = (Session::new(true), Heard::default());
        feed(&mut session, &talk.chunks[..handshake], &mut heard);
        assert!(session.take_secrets(&talk.secrets, &mut |from, plain| heard.take(from, plain)));
        // The gap ends within a record.
        let mut bytes: Vec<u8> =
            talk.chunks[handshake..].iter().flat_map(|chunk| chunk.bytes.clone()).collect();
        let lost = 100;
        let bytes = bytes.split_off(lost);
        session.gap(Sender::Client, lost as u64, &mut |from, plain| heard.take(from, plain));
        let seq = talk.chunks[handshake].seq.wrapping_add(lost as u32);
        feed(&mut session, &[Chunk { from: Sender::Client, seq, bytes }], &mut heard);
        let record = 5 + 4 + 1 + 16;
        assert_eq!(heard.said.len(), 600 - lost / record - 1, "{suite:?}");
        assert!(talk.said.ends_with(&heard.said));
    }
}
