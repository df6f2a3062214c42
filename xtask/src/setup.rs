//! What `./dev demo` and `./dev test` run beside ktrace: brokers, clients, collectors, into the
//! cache.

use anyhow::Result;
use clap::ValueEnum;
use harness::{need, tools};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    Demo,
    Test,
}

/// Says something only where there is something to do.
pub fn setup(purpose: Purpose) -> Result<()> {
    tools::kafka(tools::KAFKA_VERSION)?;
    tools::java_clients()?;
    tools::java_agent()?;
    tools::python()?;
    if purpose == Purpose::Test {
        tools::kafka(tools::KAFKA_OLD_VERSION)?;
        tools::sarama()?;
        tools::kafkajs()?;
        tools::rdkafka()?;
        tools::rustls(tools::Provider::Ring)?;
        tools::jre(tools::Jre::Java21)?;
        tools::jre(tools::Jre::Java25)?;
        if need::is_full() {
            tools::rustls(tools::Provider::AwsLc)?;
        }
        tools::collector()?;
        tools::jaeger()?;
    }
    Ok(())
}
