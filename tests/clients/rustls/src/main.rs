//! Kafka over rustls: `rustls produce|consume OPTIONS`, with the options of the other clients. It
//! speaks to one broker, which leads all partitions; as a consumer it is in no group and reads all
//! partitions from the beginning.

mod connection;
mod consume;
mod options;
mod produce;
mod truth;

use std::error::Error;
use std::time::Duration;

use connection::Connection;
use options::Options;
use truth::Truth;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let options = Options::new(arguments);
    let truth = Truth::new(&options)?;
    let mut connection = Connection::open(&options)?;
    match verb.as_str() {
        "produce" => produce::produce(&options, &mut connection, &truth)?,
        "consume" => consume::consume(&options, &mut connection, &truth)?,
        other => return Err(format!("unknown verb: {other}").into()),
    }
    // how long it stays connected when it is done
    std::thread::sleep(Duration::from_millis(options.number("stay-ms", 0)));
    Ok(())
}
