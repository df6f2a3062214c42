//! rdkafka: `rdkafka produce|consume OPTIONS`, with the options of the other clients.
//!
//! With `--edges true`, of four messages in turn one has no key, one empty key and value, one no
//! value. With `--cells` it produces to one topic after the other, as the other clients do.

mod consume;
mod headers;
mod options;
mod produce;
mod truth;

use std::error::Error;

use options::Options;
use truth::Truth;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let options = Options::new(arguments);
    let truth = Truth::new(&options)?;
    match verb.as_str() {
        "produce" => produce::produce(&options, &truth),
        "consume" => consume::consume(&options, &truth),
        other => Err(format!("unknown verb: {other}").into()),
    }
}
