//! Sends and receives known bytes in every way that programs do, on the kernel that it runs on, and
//! holds what ktrace captures of both ends against them. As the first process of a virtual machine
//! it is that machine's init.

mod apart;
mod bytes;
mod call;
mod capture;
mod check;
mod init;
mod interface;
mod receive;
mod scene;
mod send;
mod talk;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser};

use capture::Capture;
use check::Verdict;
use talk::{Talk, Told};

#[derive(Parser)]
#[command(about = "Holds what ktrace captures against what was said")]
enum Verb {
    /// Capture what the other process says, and hold it against that
    Traffic {
        #[command(flatten)]
        play: Play,
        /// Fail where loss and reordering cannot be tried
        #[arg(long)]
        netem: bool,
    },
    /// The other process: plays all scenes in a network namespace of its own, and reports what was
    /// said
    #[command(hide = true)]
    Talk {
        #[command(flatten)]
        play: Play,
        /// With packets that are lost or come late
        #[arg(long)]
        lossy: bool,
    },
}

#[derive(Args, Clone, Copy)]
struct Play {
    /// Less of each
    #[arg(long)]
    short: bool,
    /// Of all lengths, bytes and splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<ExitCode> {
    if std::process::id() == 1 {
        init::run();
    }
    match Verb::parse() {
        Verb::Traffic { play, netem } => {
            // SAFETY: no arguments.
            if unsafe { libc::geteuid() } != 0 {
                ensure!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this as root");
                println!("skipped: not root");
                return Ok(ExitCode::SUCCESS);
            }
            capture::every_form_loads(scene::PORTS)?;
            let mut right = round(play, false)?;
            match interface::has_netem() {
                Ok(()) => right &= round(play, true)?,
                Err(error) => {
                    ensure!(!netem, "no netem: {error}");
                    println!("lacks: loss and reordering: {error}");
                }
            }
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Talk { play, lossy } => {
            interface::own_namespace()?;
            if lossy {
                interface::lose_and_reorder("lo")?;
            }
            scene::Stage::new(play.seed, play.short, lossy).play()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Plays all scenes once; whether all was seen as it was said.
fn round(play: Play, lossy: bool) -> Result<bool> {
    let how = if lossy { "5 % lost, 20 % reordered" } else { "nothing lost" };
    println!("{how}: seed {}", play.seed);
    let capture = Capture::start(scene::PORTS)?;
    let talked = talk(play, lossy);
    let (sockets, counters) = capture.stop()?;
    let talks = talked?;
    let mut verdict = Verdict::default();
    for talk in &talks {
        verdict.hold(talk, &sockets);
    }
    for (name, lost) in counters.lost() {
        if lost.events > 0 {
            verdict.wrong.push(format!("the kernel counted {name}: {lost:?}"));
        }
    }
    println!(
        "{how}: {} connections, {} bytes at both ends, {} of them again; owner unknown at {} of {} servers' ends",
        talks.len(),
        verdict.bytes,
        verdict.repeated,
        verdict.ownerless,
        verdict.servers
    );
    if verdict.early.1 > 0 {
        let (connections, bytes) = verdict.early;
        println!(
            "not seen: {bytes} first bytes at servers' ends of {connections} connections and of Fast Open, from before there was a socket"
        );
    }
    // An ACK is lost each twentieth time and overtaken more often; without netem it is overtaken where
    // another processor is faster.
    let most = talks.len() / if lossy { 4 } else { 20 };
    if verdict.early.0 as usize > most {
        verdict.wrong.push(format!("more than {most} connections began before the server's end was seen"));
    }
    for wrong in &verdict.wrong {
        println!("wrong: {wrong}");
    }
    Ok(verdict.wrong.is_empty() && !talks.is_empty())
}

/// Runs the other process, and gives what it says it has said.
fn talk(play: Play, lossy: bool) -> Result<Vec<Talk>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["talk", "--seed", &play.seed.to_string()]).stdout(Stdio::piped());
    command.args(play.short.then_some("--short")).args(lossy.then_some("--lossy"));
    let mut child = command.spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut talks = Vec::new();
    for line in lines {
        match serde_json::from_str(&line?)? {
            Told::Talk(talk) => talks.push(talk),
            Told::Lacks { what, why } => println!("lacks: {what}: {why}"),
        }
    }
    ensure!(child.wait()?.success(), "the talk broke off after {} connections", talks.len());
    Ok(talks)
}
