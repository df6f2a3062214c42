//! The consumer: from the beginning, as a member of a group, until `--expect` messages have come.

use std::error::Error;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::options::Options;
use crate::truth::Truth;

pub fn consume(options: &Options, truth: &Truth) -> Result<(), Box<dyn Error>> {
    let consumer: BaseConsumer = options
        .client()
        .set("group.id", options.get("group", ""))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", options.get("isolation-level", "read_committed"))
        .create()?;
    let topics: Vec<&str> = options.get("topic", "").split(',').collect();
    consumer.subscribe(&topics)?;
    let mut left = options.number("expect", u64::MAX);
    while left > 0 {
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(error)) => truth.error(&error),
            Some(Ok(message)) => {
                truth.message("received", &message);
                left -= 1;
            }
        }
    }
    std::thread::sleep(options.stay());
    Ok(())
}
