//! One run: a broker, an agent, all producers, then all consumers, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cell::PARTITIONS;
use super::{CODECS, Cell, Form, LIBRARIES, Mode, NEVER_ABORT, log};
use crate::agent::Agent;
use crate::broker::{Broker, Settings};
use crate::check::{Recall, Report, check};
use crate::clients::{Client, Consume, Library, Produce};
use crate::ports;
use crate::scratch::Scratch;
use crate::spans::Span;
use crate::truth::{Line, Place, Truth};

/// Messages of a cell: five transactions of four.
const COUNT: u32 = 20;

/// Of those, the messages of the second and the fourth.
const ABORTED: usize = 8;

/// Clients that run at once.
const AT_ONCE: usize = 3;

const PATIENCE: Duration = Duration::from_secs(180);

/// One for each cell of the matrix.
pub(super) type Figures = BTreeMap<(&'static str, &'static str, Mode), Recall>;

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub broker: &'static str,
    /// Of all spans.
    pub report: Report,
    /// What each client sent, by its name, codec and mode.
    pub(super) sent: Figures,
    /// What each client got, by the producers' codec and mode.
    pub(super) received: Figures,
    /// The agent's.
    pub summary: Value,
    pub lost: u64,
}

/// Runs the matrix against one broker.
pub fn run(broker: &'static str, form: Form) -> Result<Run> {
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let properties = "transaction.state.log.num.partitions=3\n".into();
    let settings = Settings { version: broker, port, properties, ..Settings::default() };
    let server = Broker::start(dir, &settings)?;
    let cells = form.cells();
    let topics: Vec<String> = cells.iter().map(|cell| cell.topic()).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    server.create_topics(PARTITIONS, &topics)?;
    let agent = Agent::observe(dir, "observe", port, &[])?;

    let since = Instant::now();
    let mut truth = Truth::default();
    produce(dir, &server.bootstrap(), &cells, &mut truth)?;
    let produced = since.elapsed();
    cells.iter().try_for_each(|cell| log::is_as_told(&dir.join("broker"), *cell))?;
    consume(dir, &server.bootstrap(), &topics, form, &mut truth)?;
    truth.resolve();
    eprintln!(
        "Kafka {broker}: {} messages in {:.0} s, {} deliveries in {:.0} s",
        truth.sent.len(),
        produced.as_secs_f32(),
        truth.received.len(),
        (since.elapsed() - produced).as_secs_f32()
    );
    holds(&truth, &cells, form)?;

    agent.wait_for_hops(truth.sent.len() + truth.received.len())?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "ktrace ended with {}: {}", ended.status, ended.stderr);
    let mut report = check(&truth, &ended.spans);
    report.wrong.extend(faults(&cells, &ended.spans));
    let (sent, received) = figures(&cells, &truth, &ended.spans);
    let lost = ended.lost();
    Ok(Run { broker, report, sent, received, summary: ended.summary, lost })
}

fn produce(dir: &Path, bootstrap: &str, cells: &[Cell], truth: &mut Truth) -> Result<()> {
    let of = |library| cells.iter().filter(move |cell| cell.library == library);
    for libraries in LIBRARIES.chunks(AT_ONCE) {
        let mut started = Vec::new();
        for library in libraries.iter().copied().filter(|library| *library != Library::Kcat) {
            let cells: Vec<String> = of(library)
                .map(|cell| format!("{}:{}:{}", cell.topic(), cell.codec, cell.mode.name()))
                .collect();
            let service = format!("{}-out", library.name());
            let new = Produce::new(library, bootstrap, "", &service);
            let what = Produce { count: COUNT, header_style: "edges", ..new };
            started.push(what.start_with(dir, &["--edges", "true", "--cells", &cells.join(",")])?);
        }
        finish(started, truth)?;
    }
    for (number, cell) in of(Library::Kcat).enumerate() {
        kcat(dir, bootstrap, *cell, number)?.finish(PATIENCE, truth)?;
    }
    Ok(())
}

/// kcat is started for each cell anew. All its messages of a cell have headers of one style and are
/// one transaction, which it can only commit.
fn kcat(dir: &Path, bootstrap: &str, cell: Cell, number: usize) -> Result<Client> {
    const STYLES: [&str; 5] = ["traceparent", "b3", "none", "b3-multi", "trace_id"];
    let topic = cell.topic();
    let plain = cell.mode == Mode::Plain;
    let new = Produce::new(Library::Kcat, bootstrap, &topic, "kcat-out");
    let what = Produce {
        count: COUNT,
        codec: cell.codec,
        header_style: STYLES[number % STYLES.len()],
        acks: if plain { "1" } else { "all" },
        ..new
    };
    let idempotence = format!("enable.idempotence={}", !plain);
    let transaction = format!("transactional.id={topic}");
    let extra = ["-X", &idempotence, "-X", &transaction];
    what.start_with(dir, if cell.mode == Mode::Transactional { &extra } else { &extra[..2] })
}

fn consume(dir: &Path, bootstrap: &str, topics: &[&str], form: Form, truth: &mut Truth) -> Result<()> {
    let all = truth.sent.len();
    let committed = truth.sent.iter().filter(|line| !line.aborted).count();
    let readings: Vec<(Library, bool)> = LIBRARIES
        .iter()
        .flat_map(|library| form.readings(*library).into_iter().map(|committed| (*library, committed)))
        .collect();
    for readings in readings.chunks(AT_ONCE) {
        let mut started = Vec::new();
        for (library, only_committed) in readings.iter().copied() {
            let service = reader(library, only_committed);
            let expect = if only_committed { committed } else { all };
            let (service, group) = (service.as_str(), service.as_str());
            let level = if only_committed { "read_committed" } else { "read_uncommitted" };
            let set = format!("isolation.level={level}");
            let extra = if library == Library::Kcat { ["-X", &set] } else { ["--isolation-level", level] };
            let what = Consume { library, bootstrap, topics, service, group, expect };
            started.push(what.start_with(dir, &extra)?);
        }
        finish(started, truth)?;
    }
    Ok(())
}

fn reader(library: Library, only_committed: bool) -> String {
    format!("{}-in-{}", library.name(), if only_committed { "committed" } else { "all" })
}

fn finish(clients: Vec<Client>, truth: &mut Truth) -> Result<()> {
    clients.into_iter().try_for_each(|client| client.finish(PATIENCE, truth))
}

/// The clients' logs are a truth: every reader got what it should, once and as it was sent.
fn holds(truth: &Truth, cells: &[Cell], form: Form) -> Result<()> {
    ensure!(truth.errors.is_empty(), "clients saw errors: {:?}", truth.errors);
    ensure!(truth.sent.len() == cells.len() * COUNT as usize, "{} were sent", truth.sent.len());
    // kcat's output cannot show bytes that are no text; otelsarama puts its own span into what it hands
    // over
    let headers = |line: &Line| !line.service.starts_with("kcat") && !line.service.starts_with("sarama-otel");
    let wrong = truth.disagreements_where(headers);
    ensure!(wrong.is_empty(), "{} disagreements, the first: {}", wrong.len(), wrong[0]);
    for cell in cells {
        let topic = cell.topic();
        let aborted = truth.sent.iter().filter(|line| line.topic == topic && line.aborted).count();
        let should = cell.mode == Mode::Transactional && !NEVER_ABORT.contains(&cell.library);
        ensure!(aborted == if should { ABORTED } else { 0 }, "{aborted} of {cell:?} were aborted");
    }
    for library in LIBRARIES {
        for only_committed in form.readings(library) {
            let service = reader(library, only_committed);
            let mut got: Vec<Place> = truth
                .received
                .iter()
                .filter(|line| line.service == service)
                .filter_map(Line::place)
                .collect();
            let sent = truth.sent.iter().filter(|line| !only_committed || !line.aborted);
            let mut should: Vec<Place> = sent.filter_map(Line::place).collect();
            got.sort();
            should.sort();
            ensure!(got == should, "{service} got {} of {}, or others", got.len(), should.len());
        }
        let service = format!("{}-out", library.name());
        let mut own = truth.sent.iter().filter(|line| line.service == service);
        ensure!(
            !library.is_instrumented() || own.all(|line| line.header("traceparent").is_some()),
            "{service}'s instrumentation put no traceparent into a message"
        );
    }
    Ok(())
}

/// What is known of these spans beside what any check knows: all went well, acks are the mode's,
/// each reader has a group.
fn faults(cells: &[Cell], spans: &[Span]) -> Vec<String> {
    let acks: HashMap<String, &str> =
        cells.iter().map(|cell| (cell.topic(), if cell.mode == Mode::Plain { "1" } else { "all" })).collect();
    let of_send = |span: &Span| span.text("ktrace.acks") == span.topic().and_then(|t| acks.get(t).copied());
    let of_poll = |span: &Span| span.text("messaging.consumer.group.name") == Some(span.service());
    let is_right = |span: &&Span| {
        let known = match span.operation() {
            "send" => of_send(span),
            "poll" => of_poll(span),
            _ => true,
        };
        known && span.status == "unset"
    };
    let wrong = spans.iter().filter(|span| !is_right(span));
    wrong.map(|span| format!("status, acks or group: {span:?}")).collect()
}

/// What of each cell was seen and true, sent and received.
fn figures(cells: &[Cell], truth: &Truth, spans: &[Span]) -> (Figures, Figures) {
    let mut by_topic: HashMap<&str, Vec<Span>> = HashMap::new();
    for span in spans {
        by_topic.entry(span.topic().unwrap_or_default()).or_default().push(span.clone());
    }
    let (mut sent, mut received) = (Figures::new(), Figures::new());
    for cell in cells {
        let topic = cell.topic();
        let spans = by_topic.remove(topic.as_str()).unwrap_or_default();
        let part = Truth {
            sent: truth.sent.iter().filter(|line| line.topic == topic).cloned().collect(),
            ..Truth::default()
        };
        let sends: Vec<Span> = spans.iter().filter(|span| span.operation() == "send").cloned().collect();
        let key = |library: Library| (library.name(), cell.codec, cell.mode);
        sent.insert(key(cell.library), truly(&check(&part, &sends), |report| report.sent));
        for reader in LIBRARIES {
            let prefix = format!("{}-in-", reader.name());
            let of = truth.received.iter().filter(|line| line.topic == topic);
            let part = Truth {
                received: of.filter(|line| line.service.starts_with(&prefix)).cloned().collect(),
                ..part.clone()
            };
            let own =
                spans.iter().filter(|span| span.operation() == "send" || span.service().starts_with(&prefix));
            let own: Vec<Span> = own.cloned().collect();
            let one = truly(&check(&part, &own), |report| report.received);
            let all = received.entry(key(reader)).or_default();
            all.found += one.found;
            all.expected += one.expected;
        }
    }
    (sent, received)
}

/// What was found, less what of it is not true.
fn truly(report: &Report, of: impl Fn(&Report) -> Recall) -> Recall {
    let Recall { found, expected } = of(report);
    let faults = report.wrong.len() + report.phantoms.len() + report.repeated;
    Recall { found: found.saturating_sub(faults), expected }
}

impl Run {
    /// Every message has its spans, all of them are true, none was made up, and the agent lost
    /// nothing.
    pub fn is_perfect(&self) -> Result<()> {
        ensure!(self.lost == 0, "the agent lost: {}", self.summary["lost"]);
        ensure!(
            self.report.is_perfect() && self.report.unlogged == 0,
            "Kafka {}: the spans do not hold: {}\nsummary {}",
            self.broker,
            self.report,
            self.summary
        );
        self.report.delays.hold()?;
        let short = self.sent.iter().chain(&self.received).find(|(_, recall)| !recall.is_full());
        ensure!(short.is_none(), "not full: {short:?}");
        Ok(())
    }

    pub(super) fn figure(&self, side: Side, library: Library, codec: &str, mode: Mode) -> Option<Recall> {
        let codec = CODECS.into_iter().find(|known| *known == codec)?;
        let figures = if side == Side::Sent { &self.sent } else { &self.received };
        figures.get(&(library.name(), codec, mode)).copied()
    }
}

/// Of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sent,
    Received,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Sent, Self::Received];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}
