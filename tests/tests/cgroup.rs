//! `--cgroup`: other tools' programs run and decide as without ktrace, and a directory that is made
//! again is followed.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent;
use harness::cgroups::{self, Group};
use harness::need;
use harness::other_program::{
    CONNECT4, CONNECT6, EGRESS, INGRESS, MULTI, NONE, OVERRIDE, OtherProgram, SOCK_RELEASE,
};
use harness::process::{self, Process};
use harness::scratch::Scratch;

const PROGRAMS: [&str; 1] = ["bash"];
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on both loopback addresses that greets whoever connects.
fn server() -> Result<[u16; 2]> {
    let mut ports = [0; 2];
    for (port, address) in ports.iter_mut().zip(["127.0.0.1:0", "[::1]:0"]) {
        let listener = TcpListener::bind(address)?;
        *port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // the client may be gone
                let _ = (&stream).write_all(b"hello\n");
            }
        });
    }
    Ok(ports)
}

/// Connects to both from a cgroup, reads the greeting and closes: every program of ktrace runs for
/// that. What became of it, by family.
fn talk(group: &Path, [v4, v6]: [u16; 2]) -> Result<String> {
    let script = format!(
        "for to in 127.0.0.1/{v4} ::1/{v6}; do
           ( exec 3<>/dev/tcp/$to && read -r word <&3 && echo -n \"$word \" ) 2>/dev/null || echo -n 'refused '
         done"
    );
    cgroups::run_in(group, &script)
}

fn observe(dir: &Path, cgroup: &Path) -> Result<Process> {
    let mut command = process::command(agent::binary());
    command.args(["observe", "--ports", "1", "--cgroup"]).arg(cgroup);
    Process::start("ktrace", &mut command, &dir.join("ktrace.log"))
}

/// How ktrace went on beside the other program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Runs,
    RunsWithoutOne,
    Refused,
}

#[test]
fn other_programs_run_and_decide_as_without_ktrace() -> Result<()> {
    if !need::live("other programs", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let ports = server()?;
    let group = Group::new("other")?;
    let child = group.make("parent/target/child")?;
    let (target, parent) = (group.path().join("parent/target"), group.path().join("parent"));
    for kind in [EGRESS, INGRESS, CONNECT4, CONNECT6, SOCK_RELEASE] {
        let verdicts: &[i32] = if kind == CONNECT4 || kind == CONNECT6 { &[1, 0] } else { &[1] };
        for (flags, place, verdict) in [NONE, OVERRIDE, MULTI]
            .into_iter()
            .flat_map(|flags| [&parent, &target, &child].map(|place| (flags, place)))
            .flat_map(|(flags, place)| verdicts.iter().map(move |verdict| (flags, place, *verdict)))
        {
            let case = format!("{} with flags {flags} at {}, verdict {verdict}", kind.name, place.display());
            let other = OtherProgram::attach(kind, place, flags, verdict)?;
            let clash = flags != MULTI && place != &child;
            let expected = match clash {
                false => Outcome::Runs,
                true if kind == EGRESS || kind == INGRESS => Outcome::Refused,
                true => Outcome::RunsWithoutOne,
            };
            let decides = |when: &str| -> Result<String> {
                let before = other.runs()?;
                let decided = talk(&child, ports)?;
                ensure!(other.runs()? > before, "{case}: it does not run {when} ktrace");
                Ok(decided)
            };
            let alone = decides("without")?;
            let mut ktrace = observe(scratch.path(), &target)?;
            let runs = ktrace.wait_for_line("watching", PATIENCE).is_ok();
            ensure!(decides("beside")? == alone, "{case}: decides otherwise beside ktrace");
            let status = ktrace.terminate(PATIENCE)?;
            let said = ktrace.said();
            let outcome = match (runs, said.contains("capture goes on without it")) {
                (false, _) => Outcome::Refused,
                (true, true) => Outcome::RunsWithoutOne,
                (true, false) => Outcome::Runs,
            };
            ensure!(outcome == expected, "{case}: {outcome:?}: {said}");
            ensure!(status.code() == Some(if runs { 0 } else { 3 }), "{case}: {status}: {said}");
            if clash {
                let reasons = [kind.name, &place.display().to_string(), "(other_one)"];
                ensure!(reasons.iter().all(|reason| said.contains(reason)), "{case}: no reason: {said}");
                ensure!(
                    said.contains("ALLOW_OVERRIDE: one attached below") || said.contains("(os error 1)"),
                    "{said}"
                );
            }
            ensure!(decides("after")? == alone, "{case}: decides otherwise after ktrace");
        }
    }
    Ok(())
}

/// The advice to attach further up is good advice.
#[test]
fn the_way_out_of_a_refusal() -> Result<()> {
    if !need::live("way out", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let ports = server()?;
    let group = Group::new("advice")?;
    let target = group.make("parent/target")?;
    let parent = group.path().join("parent");
    let firewall = OtherProgram::attach(EGRESS, &parent, OVERRIDE, 1)?;
    let advised = format!("give --cgroup {} ", group.path().display());
    let doctor = Command::new(agent::binary()).args(["doctor", "--cgroup"]).arg(&target).output()?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    ensure!(doctor.status.code() == Some(3) && said.contains(&advised), "{}: {said}", doctor.status);
    ensure!(said.contains("(other_one)") && said.contains("✗ program egress"), "{said}");
    let mut ktrace = observe(scratch.path(), &target)?;
    let status = ktrace.wait(PATIENCE)?;
    ensure!(status.code() == Some(3) && ktrace.said().contains(&advised), "{status}: {}", ktrace.said());
    // a container that sees its own part of the tree alone
    let script = "mount --bind \"$1\" /mnt && exec \"$2\" observe --ports 1 --cgroup /mnt";
    let mut contained = Command::new("unshare");
    contained.args(["--mount", "sh", "-c", script, "sh"]).arg(&target).arg(agent::binary());
    let output = contained.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && said.contains("above what is in sight of /mnt"), "{said}");
    let mut ktrace = observe(scratch.path(), group.path())?;
    ktrace.wait_for_line("watching", PATIENCE)?;
    let before = firewall.runs()?;
    talk(&target, ports)?;
    ensure!(firewall.runs()? > before, "the firewall does not run");
    ktrace.terminate(PATIENCE)?;
    Ok(())
}

/// A tool that attaches above while ktrace runs gets its way within a moment, and ktrace comes back
/// when it may.
#[test]
fn a_program_that_comes_later() -> Result<()> {
    if !need::live("later program", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let ports = server()?;
    let group = Group::new("later")?;
    let target = group.make("parent/target")?;
    let parent = group.path().join("parent");
    for (kind, flags) in [(EGRESS, OVERRIDE), (INGRESS, NONE), (CONNECT4, OVERRIDE)] {
        let name = format!("program {}", kind.name);
        let mut ktrace = observe(scratch.path(), &target)?;
        ktrace.wait_for_line("watching", PATIENCE)?;
        let later = OtherProgram::attach(kind, &parent, flags, 1)?;
        ktrace.wait_for_line(&format!("{name} is not attached"), PATIENCE)?;
        talk(&target, ports)?;
        ensure!(later.runs()? > 0, "{name} does not run");
        drop(later);
        ktrace.wait_for_line(&format!("nothing stands in the way of {name}"), PATIENCE)?;
        let status = ktrace.terminate(PATIENCE)?;
        ensure!(status.success(), "{status}: {}", ktrace.said());
    }
    Ok(())
}

/// As systemd does it at each restart of a service.
#[test]
fn a_directory_that_is_made_again() -> Result<()> {
    if !need::live("made again", &PROGRAMS) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let group = Group::new("again")?;
    let service = group.make("slice/service")?;
    let name = service.display().to_string();
    let mut ktrace = observe(scratch.path(), &service)?;
    ktrace.wait_for_line("watching", PATIENCE)?;
    // the directory alone, and with the one above it
    for (turn, gone) in [&service, &group.path().join("slice")].into_iter().enumerate() {
        cgroups::remove(gone)?;
        wait_for(&mut ktrace, &format!("cgroup {name} is gone"), turn + 1)?;
        fs::create_dir_all(&service)?;
        wait_for(&mut ktrace, &format!("cgroup {name} was made again"), turn + 1)?;
    }
    // a firewall that came with the new directory is not switched off
    cgroups::remove(&service)?;
    wait_for(&mut ktrace, &format!("cgroup {name} is gone"), 3)?;
    let firewall = OtherProgram::attach(EGRESS, &group.path().join("slice"), OVERRIDE, 1)?;
    fs::create_dir(&service)?;
    wait_for(&mut ktrace, "program egress is not attached", 1)?;
    talk(&service, server()?)?;
    ensure!(firewall.runs()? > 0, "the firewall does not run");
    let status = ktrace.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Waits until it has said so as often.
fn wait_for(ktrace: &mut Process, line: &str, times: usize) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let said = ktrace.said();
        let count = said.matches(line).count();
        if count == times {
            return Ok(());
        }
        ensure!(count < times && ktrace.is_running()?, "«{line}» {count} times: {said}");
        ensure!(std::time::Instant::now() < deadline, "never said {line}: {said}");
        thread::sleep(Duration::from_millis(20));
    }
}
