//! The producer: one topic, or with `--cells TOPIC:CODEC:MODE,…` one after the other. The mode of a
//! cell is `plain` (acks=1), `idempotent` or `transactional`, with the topic as transactional id;
//! of the transactions, of `--transaction` messages each, every second one is aborted.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::headers;
use crate::options::Options;
use crate::truth::Truth;

const PATIENCE: Duration = Duration::from_secs(30);

struct Cell<'a> {
    topic: &'a str,
    codec: &'a str,
    acks: &'a str,
    idempotence: &'a str,
    transactional: bool,
}

pub fn produce(options: &Options, truth: &Truth) -> Result<(), Box<dyn Error>> {
    for cell in cells(options)? {
        run(options, truth, &cell)?;
    }
    Ok(())
}

fn cells(options: &Options) -> Result<Vec<Cell<'_>>, String> {
    let cells = options.get("cells", "");
    if cells.is_empty() {
        return Ok(vec![Cell {
            topic: options.get("topic", ""),
            codec: options.get("codec", "none"),
            acks: options.get("acks", "all"),
            idempotence: options.get("idempotence", "true"),
            transactional: false,
        }]);
    }
    cells
        .split(',')
        .map(|text| {
            let mut parts = text.split(':');
            let (Some(topic), Some(codec), Some(mode)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!("not TOPIC:CODEC:MODE: {text}"));
            };
            let (acks, idempotence) = if mode == "plain" { ("1", "false") } else { ("all", "true") };
            Ok(Cell { topic, codec, acks, idempotence, transactional: mode == "transactional" })
        })
        .collect()
}

fn run(options: &Options, truth: &Truth, cell: &Cell<'_>) -> Result<(), Box<dyn Error>> {
    let mut config = options.client();
    config.set("compression.type", cell.codec).set("acks", cell.acks);
    config.set("enable.idempotence", cell.idempotence).set("linger.ms", "5");
    if cell.transactional {
        config.set("transactional.id", cell.topic);
    }
    let failed = Arc::new(AtomicBool::new(false));
    let log = Log { truth: truth.clone(), failed: failed.clone() };
    let producer: ThreadedProducer<Log> = config.create_with_context(log)?;
    if cell.transactional {
        producer.init_transactions(PATIENCE)?;
    }
    let transaction = options.number("transaction", 4);
    for number in 0..options.number("count", 1) {
        if cell.transactional && number % transaction == 0 {
            producer.begin_transaction()?;
        }
        send(options, &producer, cell.topic, number)?;
        if cell.transactional && number % transaction == transaction - 1 {
            // all is delivered and logged before it ends
            producer.flush(PATIENCE)?;
            let commit = (number / transaction).is_multiple_of(2);
            if commit {
                producer.commit_transaction(PATIENCE)?;
            } else {
                producer.abort_transaction(PATIENCE)?;
            }
            truth.transaction_ends(commit);
        }
        std::thread::sleep(Duration::from_millis(options.number("interval-ms", 0)));
    }
    producer.flush(PATIENCE)?;
    std::thread::sleep(options.stay());
    if failed.load(Ordering::Relaxed) { Err("not all was delivered".into()) } else { Ok(()) }
}

fn send(
    options: &Options,
    producer: &ThreadedProducer<Log>,
    topic: &str,
    number: u64,
) -> Result<(), Box<dyn Error>> {
    let own = format!("{}-{number}", options.get("client-id", ""));
    let size = options.number("payload", 100) as usize;
    let text: String = "item-0 ".chars().cycle().take(size).collect();
    let kind = if options.get("edges", "false") == "true" { number % 4 } else { 0 };
    let (key, value) = match kind {
        0 => (Some(own.as_str()), Some(text.as_str())),
        1 => (None, Some(text.as_str())),
        2 => (Some(""), Some("")),
        _ => (Some(own.as_str()), None),
    };
    let mut record = BaseRecord::<str, str>::to(topic);
    record.headers = Some(headers::write(options.get("header-style", "none"), number));
    (record.key, record.payload) = (key, value);
    producer.send(record).map_err(|(error, _)| error.into())
}

/// Logs what was delivered, as the delivery report has it.
struct Log {
    truth: Truth,
    failed: Arc<AtomicBool>,
}

impl ClientContext for Log {}

impl ProducerContext for Log {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => self.truth.message("sent", message),
            Err((error, _)) => {
                self.failed.store(true, Ordering::Relaxed);
                self.truth.error(error);
            }
        }
    }
}
