//! Secrets of real TLS clients, seen by probes where they are derived, held against what the server logs. Needs root, uprobes, `openssl` and
//! Python; says so and passes without, but not in CI.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ktrace_common::SecretKind;
use ktrace_user::capture::{Live, LiveOptions, PortSet};
use ktrace_user::keys::uprobes::Derived;
use ktrace_user::losses::Reason;

/// When to give up: only a test that has failed takes so long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Handshakes of each client that are compared, each of a process of its own.
const RUNS: usize = 10;

/// What this host lacks for these tests; in CI it has to have all.
fn lacks() -> Option<String> {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let openssl =
        Command::new("openssl").arg("version").output().map(|output| output.stdout).unwrap_or_default();
    let missing = [
        // SAFETY: no arguments.
        (unsafe { libc::geteuid() } != 0).then_some("root"),
        (!Path::new("/sys/bus/event_source/devices/uprobe/type").exists()).then_some("uprobes in the kernel"),
        (!openssl.starts_with(b"OpenSSL 3")).then_some("openssl 3"),
        (!works(Command::new("python3").args(["-c", "import ssl; assert ssl.OPENSSL_VERSION_INFO >= (3,)"])))
            .then_some("Python with OpenSSL 3"),
    ];
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    let why = (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))?;
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot run: {why}");
    Some(why)
}

/// `openssl s_server`, which logs all secrets.
struct Server {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Server {
    fn start(name: &str, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("ktrace-uprobes-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-key",
                "key.pem",
                "-cert",
                "cert.pem",
                "-keylogfile",
                "keys.log",
            ])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args(options)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder, port };
        let deadline = Instant::now() + PATIENCE;
        while server.client().output().unwrap().status.code() != Some(0) {
            assert!(Instant::now() < deadline, "the server does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Makes one connection and reads an answer.
    fn client(&self) -> Command {
        let script = format!(
            "import ssl, socket\n\
             s = ssl._create_unverified_context().wrap_socket(socket.create_connection(('127.0.0.1', {})))\n\
             s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')\n\
             assert s.recv(1)",
            self.port
        );
        let mut command = Command::new("python3");
        command.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Go's own command, which asks a proxy for a module.
    fn go(&self) -> Command {
        let mut command = Command::new("go");
        command
            .args(["list", "-m", "-versions", "example.com/module"])
            .env("GOPROXY", format!("https://127.0.0.1:{}", self.port))
            .env("GOFLAGS", "-mod=mod")
            .env("GONOSUMDB", "*")
            .env("GOTOOLCHAIN", "local")
            .env("SSL_CERT_FILE", self.folder.join("cert.pem"))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What was logged: label, client random, secret.
    fn logged(&self) -> BTreeSet<[String; 3]> {
        let log = fs::read_to_string(self.folder.join("keys.log")).unwrap();
        let fields =
            |line: &str| <[String; 3]>::try_from(line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        log.lines().filter_map(|line| fields(line).ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn label(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Master => "CLIENT_RANDOM",
        SecretKind::ClientTraffic => "CLIENT_TRAFFIC_SECRET_0",
        SecretKind::ServerTraffic => "SERVER_TRAFFIC_SECRET_0",
        SecretKind::Blank | SecretKind::Connecting => "none",
    }
}

/// All of the process's secrets are the server's too, with the same label, and the same random where it is known.
fn check(server: &Server, derived: &[Derived], labels: &[&str], random: bool) {
    let logged = server.logged();
    for derived in derived {
        let ours =
            (label(derived.kind), hex(&derived.secret), derived.client_random.map(|random| hex(&random)));
        let same = logged.iter().any(|[label, random, secret]| {
            *label == ours.0 && *secret == ours.1 && ours.2.as_ref().is_none_or(|its| its == random)
        });
        assert!(same, "{} is none of the server's", ours.0);
        assert_eq!(derived.client_random.is_some(), random, "{}", ours.0);
    }
    let mut seen: Vec<_> = derived.iter().map(|derived| label(derived.kind)).collect();
    seen.sort_unstable();
    assert_eq!(seen, labels);
}

const TLS13: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

/// Runs the client until the probes are in place; then a row of short-lived ones, each of which has to be seen.
fn each_is_seen(server: &Server, live: &Live, client: impl Fn() -> Command, labels: &[&str], random: bool) {
    let store = live.secrets().unwrap().store();
    let run = || {
        let mut process = client().spawn().unwrap();
        let pid = process.id();
        process.wait().unwrap();
        pid
    };
    let deadline = Instant::now() + PATIENCE;
    while store.of(run(), None).len() < labels.len() {
        assert!(
            Instant::now() < deadline,
            "no secrets of the client come: {:?}",
            live.secrets().unwrap().counts()
        );
    }
    for _ in 0..RUNS {
        let pid = run();
        while store.of(pid, None).len() < labels.len() {
            assert!(Instant::now() < deadline, "{} of {}", store.of(pid, None).len(), labels.len());
            thread::sleep(Duration::from_millis(5));
        }
        check(server, &store.of(pid, None), labels, random);
    }
}

fn watch(server: &Server) -> Live {
    let ports: PortSet = server.port.to_string().parse().unwrap();
    let options = LiveOptions { ports, secrets: Some(Arc::default()), ..LiveOptions::default() };
    let live = Live::open(options).unwrap_or_else(|error| panic!("{error}: {}", error.advice()));
    assert!(live.secrets().is_some(), "files can be probed");
    live
}

#[test]
fn secrets_of_short_lived_processes() {
    if let Some(why) = lacks() {
        println!("skipped: {why}");
        return;
    }
    for (name, options, labels, random) in [
        ("1.3", &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"][..], &TLS13[..], false),
        ("1.3-384", &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], &TLS13, false),
        ("1.2", &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], &["CLIENT_RANDOM"], true),
    ] {
        let server = Server::start(name, options);
        let live = watch(&server);
        each_is_seen(&server, &live, || server.client(), labels, random);
        let lost: u64 = live
            .counters()
            .lost()
            .filter(|(reason, _)| *reason == Reason::SecretLost)
            .map(|(_, n)| n.events)
            .sum();
        assert_eq!(lost, 0);
    }
}

#[test]
fn secrets_of_go() {
    let go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if let Some(why) = lacks().or_else(|| (!go).then(|| "needs go".to_owned())) {
        println!("skipped: {why}");
        return;
    }
    let server = Server::start("go", &["-tls1_3"]);
    let live = watch(&server);
    each_is_seen(&server, &live, || server.go(), &TLS13, true);
}

#[test]
fn not_those_of_other_connections() {
    if let Some(why) = lacks() {
        println!("skipped: {why}");
        return;
    }
    let (broker, other) = (Server::start("broker", &["-tls1_3"]), Server::start("other", &["-tls1_3"]));
    let live = watch(&broker);
    let store = live.secrets().unwrap().store();
    each_is_seen(&broker, &live, || broker.client(), &TLS13, false);
    // The same library, with its probes, in processes that connect elsewhere, and in the servers themselves.
    let seen = store.number();
    for _ in 0..RUNS {
        assert!(other.client().status().unwrap().success());
    }
    each_is_seen(&broker, &live, || broker.client(), &TLS13, false);
    let all = store.number() - seen;
    assert!(all.is_multiple_of(TLS13.len() as u64), "{all}");
    assert_eq!(store.of(broker.process.id(), None).len() + store.of(other.process.id(), None).len(), 0);
}
