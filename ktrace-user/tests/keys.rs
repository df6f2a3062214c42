//! Keys of real programs' TLS connections, found in their memory and proved by their records: without an
//! agent, so that it is known of each library whether its keys can be found at all.
//!
//! A proxy of the test's own stands between a client and `openssl s_server`, which answers each line with the
//! line turned around, and keeps the ciphertext. The last records alone are asked with, as of a connection
//! that is older than the agent. `KTRACE_KEYS_OF=name` runs one program, by a part of its name.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_tls::nonce::GcmKey;
use ktrace_tls::sample::{AesKey, FoundKey, Sample, Samples};
use ktrace_tls::{Sender, Version};
use ktrace_user::keys::{Answer, Ask, Keys, Options};
use ktrace_user::process::{ServiceNames, Table};
use ktrace_user::seen::{ConnectionId, Ends};
use ring::aead;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider as ring_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// Programs that connect to the port given last, send each line that they read, and print what they receive.
const OPENSSL: &str = "openssl s_client -quiet -noservername -connect 127.0.0.1:PORT";
const PYTHON: &str = r#"
import socket, ssl, sys
context = ssl._create_unverified_context()
connection = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
for line in sys.stdin:
    connection.sendall(line.encode())
    connection.recv(4096)
"#;
/// Over memory, as asyncio has it.
const PYTHON_MEMORY: &str = r#"
import asyncio, ssl, sys
async def main():
    context = ssl._create_unverified_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), ssl=context)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        writer.write(line.encode())
        await reader.readline()
asyncio.run(main())
"#;
const NODE: &str = r#"
const tls = require("tls"), readline = require("readline");
const connection = tls.connect({port: +process.argv[1], host: "127.0.0.1", rejectUnauthorized: false});
connection.on("data", () => {});
readline.createInterface({input: process.stdin}).on("line", line => connection.write(line + "\n"));
"#;
const JAVA: &str = r#"
import java.io.*;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;
public class Client {
    public static void main(String[] arguments) throws Exception {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        }}, null);
        SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", Integer.parseInt(arguments[0]));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        OutputStream out = socket.getOutputStream();
        for (String line; (line = lines.readLine()) != null; ) {
            out.write((line + "\n").getBytes());
            socket.getInputStream().read(new byte[4096]);
            if (line.startsWith("line 3")) System.gc();
        }
    }
}
"#;
const GO: &str = r#"
package main
import ("bufio"; "crypto/tls"; "os")
func main() {
	connection, err := tls.Dial("tcp", "127.0.0.1:"+os.Args[1], &tls.Config{InsecureSkipVerify: true})
	if err != nil { panic(err) }
	lines := bufio.NewScanner(os.Stdin)
	buffer := make([]byte, 4096)
	for lines.Scan() {
		connection.Write([]byte(lines.Text() + "\n"))
		connection.Read(buffer)
	}
}
"#;

/// Lines that are sent.
const LINES: usize = 12;
/// Records of each direction that are asked with.
const ASKED: usize = 3;

/// Kills it at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of both directions so far.
#[derive(Clone, Default)]
struct Passed([Arc<Mutex<Vec<u8>>>; 2]);

fn pass(mut from: TcpStream, mut to: TcpStream, passed: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            passed.lock().unwrap().extend_from_slice(&buffer[..bytes]);
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
    });
}

/// Application data, as far as it has passed.
fn records(bytes: &[u8]) -> Vec<Sample> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((header, behind)) = rest.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let Some((body, behind)) = behind.split_at_checked(len) else { break };
        rest = behind;
        if header[0] == 23 {
            let seq = records.len() as u32;
            records.push(Sample { seq, header: *header, body: body.into(), version: None, number: None });
        }
    }
    records
}

/// The plaintext of a record, opened by another implementation than the one that has proved the key.
fn open(found: &FoundKey, record: &Sample, steps: u64) -> Option<Vec<u8>> {
    let (algorithm, key) = match &found.key {
        AesKey::Aes128(key) => (&aead::AES_128_GCM, &key[..]),
        AesKey::Aes256(key) => (&aead::AES_256_GCM, &key[..]),
    };
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?);
    let (nonce, aad, mut body) = match found.version {
        Version::Tls13 => {
            let (ciphertext, tag) = record.body.split_last_chunk()?;
            let nonce = GcmKey::new(&found.key).out_of_tag(&record.header, ciphertext, tag)?;
            (nonce, record.header.to_vec(), record.body.to_vec())
        }
        Version::Tls12 => {
            let (explicit, body) = record.body.split_at_checked(8)?;
            let mut nonce = found.nonce;
            nonce[4..].copy_from_slice(explicit);
            let number = (found.number? + steps).to_be_bytes();
            let len = (body.len() as u16 - 16).to_be_bytes();
            (nonce, [&number, &record.header[..3], &len].concat(), body.to_vec())
        }
    };
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, aead::Aad::from(aad), &mut body).ok().map(|plain| plain.to_vec())
}

struct Scene {
    _directory: Directory,
    _server: Running,
    client: Running,
    _lines: ChildStdin,
    server_pid: u32,
    passed: Passed,
    ends: Ends,
}

/// Gone at the end.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn openssl(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn scene(name: &str, client: &[&str], server: &[&str]) -> io::Result<Scene> {
    let directory =
        env::temp_dir().join(format!("ktrace-keys-{}-{}", std::process::id(), name.replace(' ', "-")));
    fs::create_dir_all(&directory)?;
    let directory = Directory(directory);
    let made = openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "key",
            "-out",
            "cert",
        ],
        &directory.0,
    );
    assert!({ made }.status()?.success());
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = free.port().to_string();
    let arguments = ["s_server", "-rev", "-quiet", "-accept", &port, "-cert", "cert", "-key", "key"];
    let mut server_command = openssl(&arguments, &directory.0);
    let server = Running(server_command.args(server).stdin(Stdio::piped()).spawn()?);
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = TcpStream::connect(free) {
        assert!(Instant::now() < deadline, "no server: {error}");
        thread::sleep(Duration::from_millis(20));
    }

    let proxy = TcpListener::bind("127.0.0.1:0")?;
    let port = proxy.local_addr()?.port().to_string();
    for (file, text) in [("client.py", PYTHON), ("memory.py", PYTHON_MEMORY), ("client.js", NODE)] {
        fs::write(directory.0.join(file), text)?;
    }
    for (file, text) in [("Client.java", JAVA), ("client.go", GO)] {
        fs::write(directory.0.join(file), text)?;
    }
    let client: Vec<_> = client.iter().map(|word| word.replace("PORT", &port)).collect();
    let mut command = Command::new(&client[0]);
    command.args(&client[1..]).current_dir(&directory.0);
    let mut client =
        Running(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut lines = client.0.stdin.take().unwrap();

    proxy.set_nonblocking(true)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let to_client = loop {
        match proxy.accept() {
            Ok((connection, _)) => break connection,
            Err(error) => {
                let ended = client.0.try_wait()?;
                assert!(ended.is_none() && Instant::now() < deadline, "{name}: {error}, {ended:?}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    };
    to_client.set_nonblocking(false)?;
    let to_server = TcpStream::connect(free)?;
    let passed = Passed::default();
    pass(to_client.try_clone()?, to_server.try_clone()?, Arc::clone(&passed.0[0]));
    pass(to_server, to_client, Arc::clone(&passed.0[1]));

    for line in 0..LINES {
        let before = records(&passed.0[1].lock().unwrap()).len();
        // At once, so that it is one record.
        lines.write_all(format!("line {line} of the client\n").as_bytes())?;
        while records(&passed.0[1].lock().unwrap()).len() == before || line + 1 == LINES && before < LINES - 1
        {
            assert!(Instant::now() < deadline, "{name}: no answer to line {line}");
            thread::sleep(Duration::from_millis(5));
        }
    }
    let address = proxy.local_addr()?;
    let server_pid = server.0.id();
    let ends = Ends { client: address, broker: free };
    Ok(Scene { _directory: directory, _server: server, client, _lines: lines, server_pid, passed, ends })
}

/// The keys of the scene's connection that a process's memory gives.
fn keys_of(keys: &Keys, pid: u32, Scene { passed, ends, .. }: &Scene) -> Vec<FoundKey> {
    let last = |at: usize| {
        let mut records = records(&passed.0[at].lock().unwrap());
        records.split_off(records.len().saturating_sub(ASKED))
    };
    let samples = Samples { client: last(0), server: last(1) };
    assert_eq!((samples.client.len(), samples.server.len()), (ASKED, ASKED));
    let process = Table::new(ServiceNames::default()).get(pid, "");
    let delay = Duration::ZERO;
    keys.ask(Ask { connection: ConnectionId(1), worker: 0, process, ends: *ends, samples, delay });
    let mut found = Vec::new();
    let mut answers = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while found.len() < 2 {
        assert!(Instant::now() < deadline, "no answer");
        keys.answers(0, &mut answers);
        for answer in answers.drain(..) {
            match answer {
                Answer::Key { key, .. } => found.push(key),
                Answer::Nothing { why, .. } => {
                    eprintln!("  nothing: {why:?}, {} found", found.len());
                    return found;
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    found
}

fn check(name: &str, client: &[&str], server: &[&str]) {
    let scene = scene(name, client, server).unwrap();
    for (end, pid) in [("client", scene.client.0.id()), ("server", scene.server_pid)] {
        let keys = Keys::start(Options { workers: 1, cpu: 1.0, say: |line| eprintln!("  {line}") }).unwrap();
        let found = keys_of(&keys, pid, &scene);
        let stats = keys.stats();
        eprintln!(
            "{name}, {end}: {} keys, {:?}, {:.2} MiB, {:.2} ms CPU, {:.2} GB/s, {:.2} ms until found",
            found.len(),
            found.first().map(|found| (found.version, matches!(found.key, AesKey::Aes256(_)))),
            stats.bytes as f64 / f64::from(1 << 20),
            stats.cpu_ns as f64 / 1e6,
            stats.bytes as f64 / stats.cpu_ns.max(1) as f64,
            stats.waited_ns as f64 / 1e6 / stats.keys.max(1) as f64,
        );
        assert_eq!(found.len(), 2, "{name}, {end}");
        for found in &found {
            let at = usize::from(found.sender == Sender::Server);
            let records = records(&scene.passed.0[at].lock().unwrap());
            for (steps, record) in records[found.seq as usize..].iter().enumerate() {
                let plain =
                    open(found, record, steps as u64).unwrap_or_else(|| panic!("{name}, {end}: closed"));
                let text = String::from_utf8_lossy(&plain);
                let expected = ["of the client", "tneilc eht fo"][at];
                // Java and some versions of OpenSSL send the first byte, or an empty record, before.
                assert!(text.contains(expected) || plain.len() < 3, "{name}, {end}: {text:?}");
            }
        }
    }
}

/// A client with rustls and ring, which the test starts as a process of its own.
const RUSTLS: &str = "KTRACE_KEYS_RUSTLS";

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn rustls_client() {
    // Where the test is run by itself, it has nothing to do.
    let Ok(port) = env::var(RUSTLS) else { return };
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring_provider())).with_safe_default_protocol_versions();
    let config =
        config.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    for line in io::stdin().lines() {
        stream.write_all(format!("{}\n", line.unwrap()).as_bytes()).unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
}

#[test]
fn keys_of_real_programs() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        assert!(env::var_os("CI").is_none(), "no openssl");
        eprintln!("skipped: no openssl");
        return;
    }
    let only = env::var("KTRACE_KEYS_OF").ok();
    let openssl: Vec<_> = OPENSSL.split(' ').collect();
    let own = env::current_exe().unwrap();
    let rustls = format!("{RUSTLS}=PORT exec {} rustls_client --exact --nocapture", own.display());
    let clients: [(&str, &[&str]); 7] = [
        ("rustls", &["sh", "-c", &rustls]),
        ("openssl", &openssl),
        ("python", &["python3", "client.py", "PORT"]),
        ("asyncio", &["python3", "memory.py", "PORT"]),
        ("node", &["node", "-e", NODE, "PORT"]),
        ("java", &["java", "Client.java", "PORT"]),
        ("go", &["sh", "-c", "go build -o client client.go && exec ./client PORT"]),
    ];
    let servers: [(&str, &[&str]); 4] = [
        ("TLS 1.3, AES-256", &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"]),
        ("TLS 1.2, AES-256", &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"]),
        ("TLS 1.3, AES-128", &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]),
        ("TLS 1.2, AES-128", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]),
    ];
    for (client, arguments) in clients {
        // The others are for a developer to look at: they take seconds each, and are tried with Kafka's
        // clients, too.
        let is_asked =
            only.as_deref().map_or(["openssl", "rustls"].contains(&client), |only| client.contains(only));
        if !is_asked {
            continue;
        }
        for (server, options) in servers {
            check(&format!("{client}, {server}"), arguments, options);
        }
    }
}
