//! What ktrace says and how it ends where it cannot do what was asked.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::agent::{self, Agent};
use harness::broker::{Broker, Settings};
use harness::check::check;
use harness::clients::{Library, Produce};
use harness::need::{self, Need};
use harness::process::Process;
use harness::scratch::Scratch;
use harness::tcpdump::Capture;
use harness::truth::Truth;
use harness::{ports, process};
use rustix::process::Signal;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the agent as `command` with its own arguments behind, sends one message, checks its spans,
/// and gives its log.
fn sees_a_message(mut command: Command) -> Result<String> {
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    broker.create_topics(1, &["orders"])?;
    command.arg(agent::binary()).args(["observe", "-o", "json"]);
    let agent = Agent::start(dir, "observe", &mut command, port, &[])?;
    let mut truth = Truth::default();
    Produce::new(Library::Python, &broker.bootstrap(), "orders", "orders-api").run(dir, &mut truth)?;
    agent.wait_for_hops(truth.sent.len())?;
    let ended = agent.stop()?;
    let report = check(&truth, &ended.spans);
    ensure!(report.is_perfect(), "{report}\n{}", ended.stderr);
    Ok(ended.stderr)
}

#[test]
fn without_privilege() -> Result<()> {
    if !need::met("without privilege", &[Need::Root, Need::Agent]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // a copy that another user may run, wherever the target directory is
    let copy = scratch.join("ktrace");
    fs::copy(agent::binary(), &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    for verb in ["observe", "run"] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"])
            .arg(&copy)
            .arg(verb)
            .output()?;
        ensure!(output.status.code() == Some(3), "{verb}: {}: {}", output.status, said(&output));
        ensure!(!said(&output).trim().is_empty(), "{verb} does not say why");
        ensure!(output.stdout.is_empty());
    }
    Ok(())
}

/// What `deploy/` gives the agent is enough: all programs load, and services are named.
#[test]
fn the_least_privilege_is_enough() -> Result<()> {
    if !need::live("least privilege", &["java"]) {
        return Ok(());
    }
    let mut command = process::command("setpriv");
    command.args(["--bounding-set=-all,+bpf,+net_admin,+sys_ptrace,+dac_read_search", "--"]);
    let said = sees_a_message(command)?;
    ensure!(!said.contains("goes on without"), "{said}");
    Ok(())
}

/// A second signal on the heels of the first, as `timeout` and supervisors send it, does not cost
/// the summary.
#[test]
fn an_end_in_bounded_time() -> Result<()> {
    if !need::live("bounded end", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let summary = scratch.join("summary.json");
    let mut command = process::command(agent::binary());
    command.args(["observe", "--ports", "1", "--summary"]).arg(&summary);
    let mut agent = Process::start("ktrace", &mut command, &scratch.join("log"))?;
    agent.wait_for_line("watching", Duration::from_secs(20))?;
    for _ in 0..2 {
        agent.signal(Signal::TERM)?;
    }
    let status = agent.wait(Duration::from_secs(30))?;
    ensure!(status.code() == Some(0), "two signals at once: {status}");
    ensure!(fs::read_to_string(&summary)?.contains("\"spans\":0"));
    Ok(())
}

#[test]
fn usage() -> Result<()> {
    if !need::met("usage", &[Need::Agent]) {
        return Ok(());
    }
    for arguments in
        [&["--no-such-option"][..], &["observe", "--no-such-option"], &["no-such-verb"], &["replay"]]
    {
        let output = Command::new(agent::binary()).args(arguments).output()?;
        ensure!(output.status.code() == Some(2), "{arguments:?}: {}: {}", output.status, said(&output));
    }
    Ok(())
}

#[test]
fn without_a_mounted_cgroup_v2() -> Result<()> {
    if !need::live("no cgroup v2", &["java"]) {
        return Ok(());
    }
    // in a mount namespace of its own, so that the host keeps its tree
    let mut command = process::command("unshare");
    command.args(["--mount", "sh", "-c", "umount --all --types cgroup2 && exec \"$@\"", "sh"]);
    sees_a_message(command).map(|_| ())
}

#[test]
fn another_protocol_on_the_port() -> Result<()> {
    if !need::live("another protocol", &[]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let agent = Agent::observe(scratch.path(), "observe", port, &[])?;
    let server = thread::spawn(move || -> Result<()> {
        for _ in 0..3 {
            let (mut client, _) = listener.accept()?;
            let mut request = [0; 4096];
            let _ = client.read(&mut request)?;
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
        }
        Ok(())
    });
    // text, zeroes, and a length that looks like a frame's with nonsense behind
    let nonsense = [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0; 512],
        b"\0\0\x01\0\0\0\0\x0b\0\0\0\x01\xff\xff!",
    ];
    for request in nonsense {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
    }
    server.join().ok().context("the server panicked")??;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    ensure!(ended.spans.is_empty(), "{:?}", ended.spans);
    Ok(())
}

#[test]
fn a_file_that_is_no_capture() -> Result<()> {
    if !need::met("no capture", &[Need::Agent]) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let garbage = scratch.join("garbage");
    fs::write(&garbage, "this is not a capture file\n".repeat(100))?;
    for file in [garbage, scratch.join("missing")] {
        let (status, spans, stderr) = agent::replay(&file, 9092)?;
        ensure!(status.code() == Some(1), "{status}: {stderr}");
        ensure!(spans.is_empty() && !stderr.trim().is_empty());
    }
    Ok(())
}

#[test]
fn a_cut_capture_shows_what_was_whole() -> Result<()> {
    let needs = [Need::Root, Need::Agent, Need::Program("java"), Need::Program("tcpdump")];
    if !need::met("cut capture", &needs) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [port] = ports::free()?;
    let broker = Broker::start(dir, &Settings { port, ..Settings::default() })?;
    broker.create_topics(1, &["orders"])?;
    let capture = Capture::start(dir, "whole", port)?;
    let mut truth = Truth::default();
    let bootstrap = broker.bootstrap();
    let new = Produce::new(Library::Python, &bootstrap, "orders", "orders-api");
    // acks=1: an idempotent producer waits a second for its producer id, and all would be in one batch
    Produce { count: 50, interval_ms: 10, acks: "1", ..new }.run(dir, &mut truth)?;
    let file = capture.file.clone();
    capture.stop()?;
    let (status, whole, stderr) = agent::replay(&file, port)?;
    ensure!(status.success() && whole.len() == 50, "{status}, {} spans: {stderr}", whole.len());

    let bytes = fs::read(&file)?;
    let cut = dir.join("cut.pcap");
    fs::write(&cut, &bytes[..bytes.len() / 2 + 1])?;
    let (status, spans, stderr) = agent::replay(&cut, port)?;
    ensure!(status.code() == Some(1), "{status}: {stderr}");
    ensure!(!spans.is_empty() && spans.len() < 50, "{} spans", spans.len());
    ensure!(spans.iter().all(|span| whole.contains(span)), "a cut capture tells something else");
    Ok(())
}
