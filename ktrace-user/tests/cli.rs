//! The binary from outside: exit codes, what it says, what wins over what.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

fn ktrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    command.args(args).env_clear();
    command
}

/// Exit code, and the lines of standard error.
fn end(output: &Output) -> (i32, Vec<String>) {
    let lines = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    (output.status.code().unwrap_or(-1), lines)
}

fn run(args: &[&str]) -> (i32, Vec<String>) {
    end(&ktrace(args).output().unwrap())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A file of this test's own.
fn file(name: &str, bytes: &[u8]) -> String {
    fs::write(path(name), bytes).unwrap();
    path(name).to_str().unwrap().to_owned()
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// A pcap file of raw IP with one packet for each payload, all from a client to port 9092.
fn pcap(payloads: &[&[u8]]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 101].map(u32::to_le_bytes).concat();
    for payload in payloads {
        let mut packet = Vec::new();
        let headers = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40000, 9092, 1, 1000);
        headers.write(&mut packet, payload).unwrap();
        let len = u32::try_from(packet.len()).unwrap();
        file.extend([1, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

#[test]
fn usage_errors_are_one_line_and_a_hint() {
    let ports = "invalid value '9092,kafka' for '--ports <LIST>': \"kafka\" is not a port: ports are numbers from 1 to 65535";
    for (args, what, advice) in [
        (&["replay", "--xyz"][..], "unexpected argument '--xyz' found", "see ktrace replay --help"),
        (&["--xyz"], "unexpected argument '--xyz' found", "see ktrace --help"),
        (
            &["replay", "--uncommitted", "0s", "f"],
            "--uncommitted is too short",
            "give 1ms or more; groups commit every few seconds, so 60s is a good start",
        ),
        (&["fly"], "unrecognized subcommand 'fly'", "see ktrace --help"),
        (
            &["explain", "ring_ful"],
            "no reason is named ring_ful",
            "did you mean ring_full? ktrace explain lists all",
        ),
        (&["explain", "xyzzy"], "no reason is named xyzzy", "ktrace explain lists all"),
        (
            &["replay", "--topik", "x"],
            "unexpected argument '--topik' found",
            "a similar argument exists: '--topic'",
        ),
        (
            &["replay", "--cgroup", "/", "f"],
            "unexpected argument '--cgroup' found",
            "a similar argument exists: '--group'",
        ),
        (&["observe", "--ports", "9092,kafka"], ports, "see ktrace observe --help"),
        (
            &["replay"],
            "the following required arguments were not provided: <FILE>...",
            "see ktrace replay --help",
        ),
    ] {
        assert_eq!(run(args), (2, vec![format!("ktrace: {what}"), format!("        {advice}")]), "{args:?}");
    }
}

#[test]
fn wrong_filters_are_usage_errors() {
    let trace = "not a trace id, nor its first 8 hex digits or more";
    let duration = "not a duration such as 500ms, 1.5s or 2m";
    for (args, what, advice) in [
        (&["--trace", "4bf9"][..], format!("invalid value '4bf9' for '--trace <ID>': {trace}"), "see"),
        (
            &["--slower-than", "500"],
            format!("invalid value '500' for '--slower-than <DURATION>': {duration}"),
            "see",
        ),
        (
            &["--key", "order["],
            "error parsing glob 'order[': unclosed character class; missing ']'".to_owned(),
            "patterns know",
        ),
        (
            &["--errors=perhaps"],
            "invalid value 'perhaps' for '--errors[=<BOOL>]': value was not a boolean".to_owned(),
            "see",
        ),
    ] {
        for verb in ["run", "observe", "replay"] {
            let file: &[&str] = if verb == "replay" { &["x"] } else { &[] };
            let (code, lines) = run(&[&[verb], args, file].concat());
            assert_eq!((code, lines.len(), &lines[0]), (2, 2, &format!("ktrace: {what}")), "{args:?}");
            assert!(lines[1].trim().starts_with(advice), "{lines:?}");
        }
    }
}

#[test]
fn a_full_screen_needs_a_terminal() {
    let none = "--top needs a terminal, and standard output is none";
    let tables = "--top shows tables, and no messages";
    let config = file("top.toml", b"top = true");
    for (args, what) in [
        (&["observe", "--top"][..], none),
        (&["observe", "--config", &config], none),
        (&["observe", "--top", "-o", "json"], tables),
        (&["observe", "--top", "--tree"], tables),
        (&["replay", "--top", "x"], "unexpected argument '--top' found"),
    ] {
        let (code, lines) = run(args);
        assert_eq!((code, lines.len(), &*lines[0]), (2, 2, &*format!("ktrace: {what}")), "{args:?}");
    }
}

#[test]
fn files_that_cannot_be_read_fail_in_two_lines() {
    let text = file("no-capture", b"just text, longer than any header");
    for (name, what) in [
        ("/nonexistent.pcap", "cannot open /nonexistent.pcap: No such file or directory"),
        (&text, "no-capture is not a capture file (neither pcap nor pcapng)"),
        (env!("CARGO_TARGET_TMPDIR"), "Is a directory"),
    ] {
        let (code, lines) = run(&["replay", name]);
        assert_eq!((code, lines.len()), (1, 2), "{lines:?}");
        assert!(lines[0].starts_with("ktrace: ") && lines[0].contains(what), "{lines:?}");
    }
}

#[test]
fn a_cut_file_is_used_as_far_as_it_goes() {
    let whole = pcap(&[b"one", b"two"]);
    let cut = file("cut.pcap", &whole[..whole.len() - 1]);
    let (code, lines) = run(&["replay", &cut, "--summary", path("cut.json").to_str().unwrap()]);
    assert_eq!(code, 1);
    let [.., what, advice] = &lines[..] else { panic!("{lines:?}") };
    assert!(what.ends_with("cut.pcap is cut: it ends within a packet, after 1 whole ones"), "{lines:?}");
    assert!(advice.contains("what came before was used"), "{lines:?}");
    let summary = json("cut.json");
    assert_eq!((&summary["segments"], &summary["bytes"]), (&1.into(), &3.into()), "{summary}");
}

#[test]
fn replay_reads_standard_input_and_ends_with_a_summary() {
    let whole = file("whole.pcap", &pcap(&[b"one", b"two"]));
    let (code, lines) =
        end(&ktrace(&["replay", "-"]).stdin(fs::File::open(whole).unwrap()).output().unwrap());
    assert_eq!(code, 0, "{lines:?}");
    assert!(lines[0].starts_with("1 connections, 2 segments, 6 bytes"), "{lines:?}");
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let capture = file("precedence.pcap", &pcap(&[b"x"]));
    let config = file(
        "precedence.toml",
        b"ports = 1\nring-size = \"4M\"\ntopic = [\"a\", \"!b\"]\n[service-name]\njava = \"orders\"\n",
    );
    let connections = |extra: &[&str], environment: &[(&str, &str)]| {
        let mut command = ktrace(&["replay", &capture, "--summary"]);
        command.arg(path("precedence.json")).args(extra).envs(environment.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        json("precedence.json")["connections"].as_u64().unwrap()
    };
    let (flag, environment) = (["--config", &config], ("KTRACE_PORTS", "9092"));
    assert_eq!(connections(&[], &[]), 1, "default");
    assert_eq!(connections(&[], &[("KTRACE_PORTS", ""), ("KTRACE_SAMPLE", "")]), 1, "empty is not set");
    assert_eq!(connections(&flag, &[]), 0, "file beats default");
    assert_eq!(connections(&[], &[("KTRACE_CONFIG", &config)]), 0, "the file's name from the environment");
    assert_eq!(connections(&flag, &[environment]), 1, "environment beats file");
    assert_eq!(connections(&[flag[0], flag[1], "--ports", "2"], &[environment]), 0, "flag beats environment");
    let list = file("list-of-ports.toml", b"ports = [1, \"9090-9092\"]\n");
    assert_eq!(connections(&["--config", &list], &[]), 1, "a list where a comma list can be");
}

#[test]
fn key_logs_that_cannot_be_read_are_usage_errors() {
    let capture = file("keylog.pcap", &pcap(&[b"one"]));
    let dir = env!("CARGO_TARGET_TMPDIR");
    let check = "check the path, and that ktrace may read it: CAP_DAC_READ_SEARCH reads all files";
    for (args, what, advice) in [
        (
            &["replay", "--tls-keylog", "/nonexistent", &capture][..],
            "cannot read the key log /nonexistent: No such file or directory (os error 2)".to_owned(),
            check,
        ),
        (
            &["replay", "--tls-keylog", dir, &capture],
            format!("cannot read the key log {dir}: Is a directory (os error 21)"),
            check,
        ),
        (
            &["observe", "--tls", "keylog:/nonexistent/keys.log"],
            "--tls: the key log /nonexistent/keys.log cannot come to be: /nonexistent is no directory"
                .to_owned(),
            "make the directory, or correct the path; the file itself may be made later, by the first program",
        ),
        (
            &["run", "--tls", "keylog:/dev/null"],
            "--tls: the key log /dev/null is no file".to_owned(),
            "name the file that programs write, as SSLKEYLOGFILE does for them",
        ),
    ] {
        assert_eq!(run(args), (2, vec![format!("ktrace: {what}"), format!("        {advice}")]), "{args:?}");
    }
}

/// What is no key log is said and counted, and nothing of it is shown.
#[test]
fn a_key_log_without_secrets_is_said_and_counted() {
    let capture = file("no-keys.pcap", &pcap(&[b"one"]));
    let keys = file("no-keys.log", b"# a comment\nhunter2 is no line\nEXPORTER_SECRET 00 00\n");
    let summary = path("no-keys.json");
    let args = ["replay", "--tls-keylog", &keys, &capture, "--summary", summary.to_str().unwrap()];
    let (code, lines) = run(&args);
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(lines[0], format!("ktrace: the key log {keys} has no secrets of TLS connections"));
    assert!(!lines.concat().contains("hunter2"), "{lines:?}");
    assert_eq!(json("no-keys.json")["lost"]["tls_log_line"], 1);
}

/// By the capture's time: each time the same, of a few traces all messages, and what is not shown is counted.
#[test]
fn replay_shows_no_more_spans_a_second_than_it_may() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../ktrace-kafka/tests/golden/4.3.0/mixed.pcap");
    let replay = |extra: &[&str]| {
        let mut command = ktrace(&["replay", capture, "-o", "json", "--summary"]);
        let output = command.arg(path("rate.json")).args(extra).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let shown: Vec<String> = shown.lines().map(str::to_owned).collect();
        let skipped = json("rate.json")["lost"]["span_limit"].as_u64().unwrap_or(0);
        assert_eq!(json("rate.json")["spans"], shown.len());
        (shown, skipped)
    };
    let (all, skipped) = replay(&["--max-spans", "1000000"]);
    assert_eq!(skipped, 0);
    let (some, skipped) = replay(&["--max-spans", "3"]);
    assert!(!some.is_empty() && skipped > 0);
    assert_eq!(some.len() + skipped as usize, all.len());
    assert_eq!(replay(&["--max-spans", "3"]), (some, skipped));
}

#[test]
fn a_summary_that_cannot_be_written_is_told_before_the_work() {
    let capture = file("unwritable.pcap", &pcap(&[b"x"]));
    let output =
        ktrace(&["replay", &capture, "-o", "json", "--summary", "/nonexistent/s.json"]).output().unwrap();
    let (code, lines) = end(&output);
    assert_eq!((code, lines.len()), (1, 2), "{lines:?}");
    assert!(output.stdout.is_empty() && lines[0].contains("/nonexistent/s.json"), "{lines:?}");
}

#[test]
fn a_wrong_configuration_file_is_named_with_its_key() {
    for (name, text, what) in [
        ("unknown.toml", "portz = 1", "unknown key `portz`"),
        ("value.toml", "ports = \"kafka\"", "invalid value 'kafka' for '--ports <LIST>'"),
        ("kind.toml", "ports = true", "key `ports` must be text, a number or a list of those"),
        ("flag.toml", "errors = 2\n", "invalid value '2' for '--errors[=<BOOL>]'"),
        ("flags.toml", "errors = [[]]\n", "key `errors` must be true or false"),
        ("syntax.toml", "a = 1\nports = \n", "line 2: "),
        ("twice.toml", "keys = true\nkeys = true\n", "line 2: "),
        ("list.toml", "sample = [0.5, 1]", "key `sample` must be text or a number, and no list"),
        (
            "one.toml",
            "otlp = [\"http://localhost:4317\"]",
            "key `otlp` must be text or a number, and no list",
        ),
        ("truths.toml", "errors = [true]", "key `errors` must be true or false"),
        ("truth.toml", "topic = true", "key `topic` must be text, a number or a list of those"),
        ("nested.toml", "topic = [[\"a\"]]", "key `topic` must be text, a number or a list of those"),
        ("table.toml", "[topic]\na = \"b\"", "key `topic` must be text, a number or a list of those"),
        ("pairs.toml", "[service-name.java]\na = \"b\"", "key `service-name` must be text, a list of texts"),
        ("date.toml", "trace = 2026-11-29", "key `trace` must be text, a number or a list of those"),
        ("nan.toml", "sample = nan", "invalid value 'NaN' for '--sample <RATIO>'"),
        ("ports.toml", "ports = [9092, \"kafka\"]", "invalid value '9092,kafka' for '--ports <LIST>'"),
    ] {
        let (code, lines) = run(&["replay", "x", "--config", &file(name, text.as_bytes())]);
        assert_eq!((code, lines.len()), (2, 2), "{lines:?}");
        assert!(lines[0].contains(name) && lines[0].contains(what), "{lines:?}");
    }
    let (code, lines) = run(&["replay", "x", "--config", "/nonexistent.toml"]);
    assert_eq!((code, lines.len()), (1, 2), "{lines:?}");
}

#[test]
fn export_settings_that_cannot_work_are_usage_errors() {
    let plain = "http://localhost:1";
    for (args, (name, value), what) in [
        (
            &["run", "--otlp", "https://localhost:1"][..],
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent.pem"),
            "",
        ),
        (
            &["run", "--otlp", plain],
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null"),
            ": no certificate in it",
        ),
        (&["run"], ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "/dev/null"), " needs its certificate"),
        (
            &["observe", "--otlp", plain],
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/dev/null"),
            " needs its key",
        ),
    ] {
        let (code, lines) = end(&ktrace(args).env(name, value).output().unwrap());
        assert_eq!((code, lines.len()), (2, 2), "{lines:?}");
        assert!(lines[0].contains(&format!("{name}={value}{what}")), "{lines:?}");
    }
    for (name, value, what) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense", "nonsense does not begin with http://"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS is not a list of KEY=VALUE"),
        ("KTRACE_LOG", "loud", "KTRACE_LOG=loud: loud is no level"),
        ("KTRACE_TOPICS", "orders", "the environment variable KTRACE_TOPICS is none of ktrace's"),
        ("KTRACE_RING_SIZE", "100", "--ring-size is 100 bytes"),
        ("KTRACE_RING_SIZE", "999G", "--ring-size is "),
        ("KTRACE_SAMPLE", "nan", "invalid value 'nan' for '--sample <RATIO>'"),
    ] {
        let (code, lines) = end(&ktrace(&["run"]).env(name, value).output().unwrap());
        assert_eq!((code, lines.len()), (2, 2), "{lines:?}");
        assert!(lines[0].contains(what) && !lines[0].contains("secret"), "{lines:?}");
    }
    assert_eq!(run(&["run", "--otlp", "localhost:4317"]).0, 2);
}

/// As OpenTelemetry's specification has it.
#[test]
fn export_settings_that_cannot_be_read_are_named_and_ignored() {
    let capture = file("settings.pcap", &pcap(&[b"x"]));
    for (name, value, what) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "carrier/pigeon",
            "is ignored: it is not one of grpc, http/protobuf, http/json",
        ),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "is ignored: it is not a whole number"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc", "is ignored: it is not a whole number"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "snappy", "is ignored: it is not one of none, gzip, zstd"),
    ] {
        let mut command = ktrace(&["replay", &capture, "--otlp", "http://127.0.0.1:1"]);
        let (code, lines) = end(&command.env(name, value).output().unwrap());
        assert_eq!((code, &lines[0]), (0, &format!("ktrace: {name}={value} {what}")), "{lines:?}");
    }
    // Where nothing is exported it means nothing.
    let mut command = ktrace(&["replay", &capture]);
    let (code, lines) = end(&command.env("OTEL_TRACES_SAMPLER", "always_off").output().unwrap());
    assert!(code == 0 && lines.iter().all(|line| !line.contains("OTEL")), "{lines:?}");
}

#[test]
fn a_collector_that_is_not_there_is_said_at_once() {
    // Bound and never listening: the connection is refused.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = ktrace(&["replay", "-", "--otlp", &format!("http://{unused}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Before there is anything to be sent.
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let expected = format!("ktrace: spans cannot be exported to http://{unused}: ");
    assert!(said.starts_with(&expected) && said.contains("Connection refused"), "{said}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn manual_completions_help_and_version_print() {
    for (args, part) in [
        (&["man"][..], ".TH ktrace 1"),
        (&["completions", "bash"], "complete -F _ktrace"),
        (&["completions", "zsh"], "#compdef ktrace"),
        (&["completions", "bash"], "ring_full"),
        (&["explain"], "ktrace explain REASON says what to do about one."),
        (&["explain", "ring_full", "malformed.frame"], "what to do  Make the rings larger (--ring-size"),
        (&["explain", "-o", "json", "ring_full"], r#""metric":"ktrace.lost.events""#),
        (&["--version"], concat!("ktrace ", env!("CARGO_PKG_VERSION"))),
        (&["replay", "--help"], "--sample <RATIO>"),
    ] {
        let output = ktrace(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{args:?}");
    }
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    for args in [&["man"][..], &["completions", "bash"], &["replay", "--help"], &["--version"], &["explain"]]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, lines) = end(&ktrace(args).stdout(full).output().unwrap());
        assert_eq!((code, lines.len()), (1, 2), "{args:?}: {lines:?}");
        assert!(lines[0].starts_with("ktrace: cannot write to standard output"), "{lines:?}");
    }
}

/// Nothing is written, so that nothing would fail: it has to be looked for.
#[test]
fn a_silent_run_ends_with_its_reader() {
    let mut child = ktrace(&["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let writer = child.stdin.take();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(end(&output), (0, vec![]));
    drop(writer);
}

#[test]
fn a_signal_ends_a_replay_of_a_named_pipe_without_a_writer() {
    let pipe = path(&format!("fifo-{}", std::process::id()));
    let _ = fs::remove_file(&pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut command = ktrace(&["replay", pipe.to_str().unwrap()]);
        // Who runs the tests may have it ignored, as nohup does.
        // SAFETY: between fork and exec only this one call, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        // Its handlers are there: what it catches is not nothing.
        let caught = || {
            let status = fs::read_to_string(&status).unwrap();
            let mask =
                status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & 0b100_0000_0000_0011 == 0b100_0000_0000_0011
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !caught() {
            assert_eq!(child.try_wait().unwrap(), None);
            assert!(Instant::now() < deadline, "its handlers never come");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
    // And what is written is read.
    let child = ktrace(&["replay", pipe.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    fs::write(&pipe, pcap(&[b"one", b"two"])).unwrap();
    let (code, lines) = end(&child.wait_with_output().unwrap());
    assert!(code == 0 && lines[0].starts_with("1 connections, 2 segments"), "{lines:?}");
    fs::remove_file(&pipe).unwrap();
}

#[test]
fn a_closed_pipe_is_quiet() {
    for args in [&["man"][..], &["completions", "bash"], &["replay", "--help"], &["doctor"], &["explain"]] {
        let mut child = ktrace(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(said, "", "{args:?}");
        assert!(code == Some(0) || args == ["doctor"], "{args:?}: {code:?}");
    }
}

/// Until all is read, and the process sleeps because there is no more.
fn wait_until_it_waits(pipe: &impl AsRawFd, pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut unread: libc::c_int = 0;
        // SAFETY: an open pipe, and a valid place for the number.
        assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut unread) }, 0);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if unread == 0 && stat.rsplit_once(')').unwrap().1.starts_with(" S") {
            return;
        }
        assert!(Instant::now() < deadline, "{unread} bytes unread, {stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_a_replay_of_a_silent_pipe_in_order() {
    let mut child = ktrace(&["replay", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&pcap(&[b"one", b"two"])).unwrap();
    pipe.flush().unwrap();
    let pid = child.id().to_string();
    wait_until_it_waits(&pipe, &pid);
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (code, lines) = end(&output);
    assert_eq!(code, 0, "{lines:?}");
    assert!(lines[0].starts_with("1 connections, 2 segments"), "{lines:?}");
    drop(pipe);
}
