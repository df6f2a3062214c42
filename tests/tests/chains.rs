//! Chains of services in four languages, with headers and without. Where each service forwards the
//! trace, a chain is one trace. Where none does, ktrace links a message to the one that it was sent
//! because of, if it can show that: each link is held against what the services logged, and so is
//! the way back from the end of a chain to its beginning.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::{Agent, Ended};
use harness::broker::{Broker, Settings};
use harness::chain::{self, Case, Causes, Claims, Mode, SERVICES, Ways};
use harness::clients::{Forward, Library, Produce};
use harness::need;
use harness::ports;
use harness::scratch::Scratch;
use harness::spans::Span;
use harness::truth::{Line, Place, Truth};

/// With fewer unique keys behind the beginning, a share says little.
const ENOUGH: usize = 60;

const PROGRAMS: [&str; 3] = ["java", "node", "go"];

#[test]
fn a_chain_that_forwards_its_trace_is_one_trace() -> Result<()> {
    let Some(Seen { truth, told, .. }) = seen(Mode::Instrumented)? else { return Ok(()) };
    let claims = Claims::check(&truth, &told.spans);
    ensure!(claims.count() == 0, "headers tell all, and yet there are links: {claims}");
    let (causes, spans) = (Causes::new(&truth), Placed::new(&told.spans));
    let mut chains = 0;
    for line in ends(&truth) {
        let place = line.place().context("a place")?;
        let end = spans.poll(&place)?;
        let begins =
            causes.origins(&place).iter().map(|origin| spans.send(origin)).collect::<Result<Vec<_>>>()?;
        ensure!(
            begins.iter().any(|begin| begin.trace_id == end.trace_id),
            "{place:?} is in another trace than its beginning: {end:?} and {begins:?}"
        );
        chains += 1;
    }
    eprintln!("instrumented: {chains} chains, each one trace");
    Ok(())
}

#[test]
fn links_lead_to_the_beginning_if_every_second_has_no_headers() -> Result<()> {
    let Some(seen) = seen(Mode::Half)? else { return Ok(()) };
    is_led_back("half-instrumented", &seen)
}

#[test]
fn where_none_has_headers_links_lead_back_to_the_beginning() -> Result<()> {
    let Some(seen) = seen(Mode::Bare)? else { return Ok(()) };
    is_led_back("no headers", &seen)
}

/// A service that takes longer than ktrace looks back, while messages with the same keys come that
/// make it send nothing.
#[test]
fn what_is_sent_too_late_is_not_linked_to_what_came_since() -> Result<()> {
    if !need::is_full() || !need::live("late chains", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let bootstrap = broker.bootstrap();
    broker.create_topics(2, &["late-a", "late-b"])?;
    let agent = Agent::observe(dir, "agent", port, &[])?;
    // Some come before the service has sent anything, some behind that; and long before they make it
    // send something, others with their keys come.
    let all = |value: &str, stage: &str| -> String {
        (0..LATE).map(|key| format!("late-a\t{stage}-{key}\t{value}\n")).collect()
    };
    let [before, behind] = ["before", "behind"].map(|stage| all("hold 65000", stage));
    let others = ["before", "behind"].map(|stage| all("drop", stage)).concat();
    let list = dir.join("messages");
    fs::write(&list, format!("{before}\nlate-a\tfirst\tpass\n\n{behind}{}{others}", "\n".repeat(30)))?;
    let service = Forward {
        library: Library::Python,
        bootstrap: &bootstrap,
        topics: &["late-a"],
        into: "b",
        service: SERVICES[1],
        expect: 4 * LATE + 1,
    };
    let service = service.start_with(dir, &[])?;
    let producer = Produce::new(Library::Java, &bootstrap, "", SERVICES[0]);
    let producer = Produce { interval_ms: 1000, ..producer };
    let producer = producer.start_with(dir, &["--messages", &list.to_string_lossy()])?;
    let mut truth = Truth::default();
    for client in [producer, service] {
        client.finish(Duration::from_secs(120), &mut truth)?;
    }
    ensure!(truth.sent.len() == 6 * LATE + 2, "{} sent", truth.sent.len());
    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    let claims = Claims::check(&truth, &ended.spans);
    ensure!(claims.are_true(), "{} links are wrong: {claims}", claims.wrong.len());
    Ok(())
}

/// Messages of [`what_is_sent_too_late_is_not_linked_to_what_came_since`], before and behind its
/// first.
const LATE: usize = 40;

/// No link is wrong, hardly any is missing where keys are unique, there are none with `--no-infer`,
/// and such chains are whole.
fn is_led_back(name: &str, Seen { truth, told, silent, tree }: &Seen) -> Result<()> {
    let claims = Claims::check(truth, &told.spans);
    eprintln!("{name}: {} links\n{claims}", claims.count());
    let (causes, placed, ways) = (Causes::new(truth), Placed::new(&told.spans), Ways::new(&told.spans));
    let settled = settled(truth, &claims.settled);
    let (mut whole, mut drawn) = (0, 0);
    for line in &settled {
        let place = line.place().context("a place")?;
        let way = ways.back(placed.poll(&place)?);
        let origins = causes.origins(&place);
        let is_whole = way.last().is_some_and(|first| {
            first.operation() == "send" && first.place().is_some_and(|place| origins == [place])
        });
        whole += usize::from(is_whole && way.len() == 5);
        drawn += usize::from(is_one_tree(tree, truth, &place));
    }
    let all = settled.len();
    eprintln!(
        "{name}: of {all} chains with unique keys {whole} lead back to their beginning, {drawn} are one tree"
    );

    ensure!(claims.are_true(), "{} links are wrong", claims.wrong.len());
    for service in &SERVICES[1..3] {
        let unique = claims.share(Case::Unique, service).settled;
        ensure!(unique.expected >= ENOUGH, "{unique:?}");
        ensure!(unique.found * 10 >= unique.expected * 9, "few of {service} are claimed: {unique:?}");
    }
    ensure!(all >= ENOUGH && whole * 10 >= all * 9, "of {all} chains {whole} lead back");
    ensure!(drawn * 10 >= all * 9, "of {all} chains {drawn} are one tree");
    ensure!(Claims::check(truth, &silent.spans).count() == 0, "links with --no-infer");
    ensure!(silent.spans.len() == told.spans.len(), "{} and {} spans", silent.spans.len(), told.spans.len());
    Ok(())
}

/// What came of a run.
struct Seen {
    truth: Truth,
    told: Ended,
    /// By an agent with `--no-infer`.
    silent: Ended,
    /// By an agent with `--tree`.
    tree: String,
}

fn seen(mode: Mode) -> Result<Option<Seen>> {
    if !need::live("chains", &PROGRAMS) {
        return Ok(None);
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    let topics = chain::topics();
    broker.create_topics(2, &topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    // with two rings, what a service reads and what it sends may be read by different workers
    let rings = ["--rings", if mode == Mode::Half { "2" } else { "1" }];
    let told = Agent::observe(dir, "told", port, &rings)?;
    let silent = Agent::observe(dir, "silent", port, &["--no-infer"])?;
    let tree = trees(dir, port)?;
    let messages = chain::messages(if need::is_full() { 10 } else { 1 });
    let truth = chain::run(dir, &broker.bootstrap(), mode, &messages)?;
    let hops = truth.sent.len() + truth.received.len();
    for agent in [&told, &silent] {
        agent.wait_for_hops(hops)?;
    }
    let (told, silent, tree) = (told.stop()?, silent.stop()?, tree.stop_with_text()?);
    for ended in [&told, &silent] {
        ensure!(ended.lost() == 0, "lost: {}", ended.summary["lost"]);
    }
    Ok(Some(Seen { truth, told, silent, tree }))
}

fn trees(dir: &Path, port: u16) -> Result<Agent> {
    let mut command = harness::process::command(harness::agent::binary());
    Agent::start(dir, "tree", command.args(["observe", "--tree"]), port, &[])
}

/// What the last service got.
fn ends(truth: &Truth) -> impl Iterator<Item = &Line> {
    truth.received.iter().filter(|line| line.service == SERVICES[3])
}

/// What the last service got with a key of its own, where links are certain all the way.
fn settled<'a>(truth: &'a Truth, settled: &HashSet<Place>) -> Vec<&'a Line> {
    let topics = ["b", "c"].map(|stage| Case::Unique.topic(stage));
    let of_case = |line: &&Line| topics.contains(&line.topic);
    let is_early = |line: &&Line| line.place().is_none_or(|place| !settled.contains(&place));
    let early: HashSet<_> =
        truth.sent.iter().filter(of_case).filter(is_early).map(|line| &line.key).collect();
    ends(truth).filter(|line| of_case(line) && !early.contains(&line.key)).collect()
}

/// Whether one tree has all messages of the chain that ends here, each sent and delivered.
fn is_one_tree(trees: &str, truth: &Truth, end: &Place) -> bool {
    let mut places = vec![end.clone()];
    while let Some(line) = truth.sent.iter().find(|line| line.place().as_ref() == places.last()) {
        let [cause] = &line.because[..] else { break };
        places.push(cause.clone());
    }
    let parts = places.iter().flat_map(|Place { topic, partition, offset }| {
        ["send", "poll"].map(|operation| format!("{operation} {topic}[{partition}]@{offset} "))
    });
    let parts: Vec<String> = parts.collect();
    parts.len() == 6 && trees.split("\n\n").any(|tree| parts.iter().all(|part| tree.contains(part)))
}

/// Spans by the place of their message.
struct Placed<'a> {
    sends: HashMap<Place, &'a Span>,
    polls: HashMap<Place, &'a Span>,
}

impl<'a> Placed<'a> {
    fn new(spans: &'a [Span]) -> Self {
        let of = |operation: &str| {
            let of = spans.iter().filter(|span| span.operation() == operation);
            of.filter_map(|span| Some((span.place()?, span))).collect()
        };
        Self { sends: of("send"), polls: of("poll") }
    }

    fn send(&self, place: &Place) -> Result<&'a Span> {
        self.sends.get(place).copied().with_context(|| format!("no span of the sending of {place:?}"))
    }

    fn poll(&self, place: &Place) -> Result<&'a Span> {
        self.polls.get(place).copied().with_context(|| format!("no span of the delivery of {place:?}"))
    }
}
