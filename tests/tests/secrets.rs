//! What the agent has read does not stay in its memory: neither a password nor the values of
//! messages, whether they were compressed or not; and of TLS no key of a connection that has ended.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::broker::{Broker, Settings};
use harness::clients::{Library, Produce};
use harness::need;
use harness::process::{self, Process};
use harness::scratch::Scratch;
use harness::tls::{self, Listener, Security, Server};
use harness::truth::Truth;
use harness::{memory, ports};

const PASSWORD: &str = "Pa55-of-secrets.rs-7f3c9a";
/// In the values of all messages.
const VALUE: &str = "Value-of-secrets.rs-51d0e8";
const TOPIC: &str = "topic-of-secrets.rs";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Messages for each codec, the second of them over many segments.
const SIZES: [usize; 3] = [VALUE.len(), 300_000, 2_000];
/// The ring is overwritten a part each second; how long that takes is not judged here.
const PATIENCE: Duration = Duration::from_secs(60);

fn properties() -> String {
    format!(
        "auto.create.topics.enable=true
listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         username=\"admin\" password=\"admin\" user_admin=\"admin\" user_alice=\"{PASSWORD}\";
"
    )
}

/// How kcat is the user with the password.
fn plaintext() -> Vec<String> {
    let settings = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", "sasl.username=alice"];
    let settings = settings.map(str::to_owned).into_iter().chain([format!("sasl.password={PASSWORD}")]);
    settings.flat_map(|setting| ["-X".to_owned(), setting]).collect()
}

fn kcat(dir: &Path, name: &str, bootstrap: &str, who: &[String], arguments: &[&str]) -> Result<()> {
    let mut command = process::command("kcat");
    command.args(["-b", bootstrap]).args(who).args(arguments);
    let log = dir.join(format!("{name}.log"));
    let mut process = Process::start(name, &mut command, &log)?;
    let status = process.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "{name}: {status}: {}", fs::read_to_string(&log)?);
    Ok(())
}

#[test]
fn nothing_that_was_read_stays() -> Result<()> {
    if !need::live("secrets", &["java", "kcat"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let settings = Settings { port, properties: properties(), ..Settings::default() };
    let broker = Broker::start(dir, &settings)?;
    let agent = Agent::observe(dir, "observe", port, &["--side", "both", "--keys"])?;
    talk(dir, &broker.bootstrap(), &plaintext(), &agent)?;
    nothing_stays(&agent, PASSWORD)?;
    agent.stop()?;
    Ok(())
}

#[test]
fn nothing_that_was_read_inside_tls_stays() -> Result<()> {
    if !need::live("secrets of TLS", &["java", "kcat"]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let properties = "auto.create.topics.enable=true\n".into();
    let settings = Settings { properties, ..Settings::default() };
    let server = Server::start_with(dir, [Listener::Sasl], settings)?;
    let ports = server.listeners.ports();
    let agent = Agent::observe(dir, "observe", ports, &["--side", "both", "--keys", "--tls", "memory"])?;
    let bootstrap = server.listeners.bootstrap(Listener::Sasl);
    let who = Security::new(&server.authority, Listener::Sasl).arguments(Library::Kcat);
    // one that lives on, whose keys the agent has
    let alive = server.party(Library::Python, Listener::Sasl);
    let alive = alive.produce(dir, "alive", |what| Produce { count: 1 << 30, interval_ms: 20, ..what })?;
    talk(dir, &bootstrap, &who, &agent)?;
    let with = memory::aes_keys(agent.pid())?;
    ensure!(with > 0, "not even a key of a connection that lives is found, so the search is blind");
    alive.stop(&mut Truth::default())?;
    nothing_stays(&agent, tls::PASSWORD)?;
    let deadline = Instant::now() + PATIENCE;
    let mut left = memory::aes_keys(agent.pid())?;
    while left > 0 && Instant::now() < deadline {
        sleep(Duration::from_secs(1));
        left = memory::aes_keys(agent.pid())?;
    }
    eprintln!("{with} keys while a connection lived, {left} after it");
    ensure!(left == 0, "{left} keys of connections that have ended");
    let ended = agent.stop()?;
    for secret in [tls::PASSWORD, VALUE] {
        ensure!(!ended.stderr.contains(secret), "said on standard error");
    }
    Ok(())
}

/// Messages of all codecs and sizes are sent and received, and the agent has shown them.
fn talk(dir: &Path, bootstrap: &str, who: &[String], agent: &Agent) -> Result<()> {
    for codec in CODECS {
        for (number, size) in SIZES.into_iter().enumerate() {
            let value: String = VALUE.chars().cycle().take(size).collect();
            let file = dir.join(format!("{codec}-{number}"));
            fs::write(&file, value)?;
            let file = file.display().to_string();
            kcat(dir, codec, bootstrap, who, &["-P", "-t", TOPIC, "-k", "key", "-z", codec, &file])?;
        }
    }
    kcat(dir, "consumer", bootstrap, who, &["-C", "-t", TOPIC, "-e", "-o", "beginning"])?;
    let messages = CODECS.len() * SIZES.len();
    agent.wait_for_hops_of(TOPIC, 2 * messages)?;
    let spans = agent.so_far()?.iter().filter(|span| span.topic() == Some(TOPIC)).count();
    ensure!(spans >= 2 * messages, "{spans} of {} spans", 2 * messages);
    Ok(())
}

fn nothing_stays(agent: &Agent, password: &str) -> Result<()> {
    let words = [password, VALUE, TOPIC];
    let deadline = Instant::now() + PATIENCE;
    let searched = loop {
        let searched = memory::search(agent.pid(), &words)?;
        let left = searched.of(password).chain(searched.of(VALUE)).count();
        if left == 0 || Instant::now() > deadline {
            break searched;
        }
        sleep(Duration::from_secs(1));
    };
    ensure!(searched.of(TOPIC).count() > 0, "not even the topic is found, so the search is blind");
    ensure!(searched.ring_bytes >= 16 << 20, "{} bytes of rings were searched", searched.ring_bytes);
    let left: Vec<_> = searched.of(password).chain(searched.of(VALUE)).collect();
    ensure!(left.is_empty(), "left in memory: {left:#?}");
    Ok(())
}
