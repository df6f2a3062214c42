//! Real servers that speak something else than Kafka, each on one port of loopback with its files
//! in the test's directory, and what their own clients do with them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cache::step;
use crate::need::on_path;
use crate::process::{self, Process};

/// One that can be started and talked to.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub name: &'static str,
    /// What it needs to be installed.
    pub programs: &'static [&'static str],
    prepare: fn(&Path, u16) -> Result<Command>,
    talk: fn(&Path, u16) -> Result<()>,
}

pub const PROTOCOLS: [Protocol; 12] = [
    Protocol { name: "http1", programs: &["nginx", "curl"], prepare: nginx, talk: http1 },
    Protocol { name: "http2", programs: &["nginx", "curl"], prepare: nginx_http2, talk: http2 },
    Protocol { name: "https", programs: &["nginx", "curl", "openssl"], prepare: nginx_tls, talk: https },
    Protocol {
        name: "redis",
        programs: &["redis-server", "redis-benchmark"],
        prepare: redis,
        talk: talk_redis,
    },
    Protocol { name: "memcached", programs: &["memcached"], prepare: memcached, talk: talk_memcached },
    Protocol { name: "postgresql", programs: &["psql"], prepare: postgresql, talk: talk_postgresql },
    Protocol {
        name: "mysql",
        programs: &["mariadbd", "mariadb-install-db", "mariadb"],
        prepare: mariadb,
        talk: talk_mariadb,
    },
    Protocol {
        name: "amqp",
        programs: &["rabbitmq-server", "amqp-publish", "amqp-consume"],
        prepare: rabbitmq,
        talk: talk_amqp,
    },
    Protocol {
        name: "mqtt",
        programs: &["mosquitto", "mosquitto_pub", "mosquitto_sub"],
        prepare: mosquitto,
        talk: talk_mqtt,
    },
    Protocol { name: "ldap", programs: &["slapd", "ldapadd", "ldapsearch"], prepare: slapd, talk: talk_ldap },
    Protocol { name: "ssh", programs: &["sshd", "ssh", "ssh-keygen"], prepare: sshd, talk: talk_ssh },
    Protocol { name: "random", programs: &["socat"], prepare: random, talk: talk_random },
];

/// A running one.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    protocol: Protocol,
    dir: PathBuf,
    _process: Process,
}

impl Protocol {
    /// Starts a server in a directory of its own below `dir`; it takes connections when this
    /// returns.
    pub fn serve(self, dir: &Path, port: u16) -> Result<Server> {
        let dir = dir.join(self.name);
        fs::create_dir_all(&dir)?;
        let command = (self.prepare)(&dir, port).with_context(|| format!("cannot prepare {}", self.name))?;
        // with process numbers of its own, so that nothing that it starts outlives it
        let mut contained = process::command("unshare");
        contained.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        contained.arg(command.get_program()).args(command.get_args()).current_dir(&dir);
        contained.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut process = Process::start(self.name, &mut contained, &dir.join("log"))?;
        let deadline = process::deadline(Duration::from_secs(60));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(
                process.is_running()? && Instant::now() < deadline,
                "no {}: {}",
                self.name,
                process.said()
            );
            sleep(Duration::from_millis(50));
        }
        Ok(Server { port, protocol: self, dir, _process: process })
    }
}

impl Server {
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.protocol.name
    }

    /// Its clients connect, ask and are answered.
    pub fn talk(&self) -> Result<()> {
        (self.protocol.talk)(&self.dir, self.port).with_context(|| format!("talking to {}", self.name()))
    }
}

/// Bytes of the file that web servers serve: random, so that whatever can stand in a stream stands
/// there.
const FILE: usize = 500_000;

fn web(dir: &Path, listen: &str) -> Result<Command> {
    let mut bytes = vec![0; FILE];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    fs::write(dir.join("file"), bytes)?;
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        write!(temporary, "{kind}_temp_path {kind}; ")?;
    }
    let configuration = format!(
        "daemon off; pid pid; error_log log; user root; events {{}}
http {{ access_log off; {temporary} root {}; server {{ listen 127.0.0.1:{listen}; }} }}\n",
        dir.display()
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = installed("nginx")?;
    command.arg("-p").arg(dir).args(["-e", "log", "-c"]).arg(file);
    Ok(command)
}

fn nginx(dir: &Path, port: u16) -> Result<Command> {
    web(dir, &port.to_string())
}

fn nginx_http2(dir: &Path, port: u16) -> Result<Command> {
    web(dir, &format!("{port} http2"))
}

fn nginx_tls(dir: &Path, port: u16) -> Result<Command> {
    step("openssl", |openssl| {
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        openssl.arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("certificate.pem"))
    })?;
    web(dir, &format!("{port} ssl http2; ssl_certificate certificate.pem; ssl_certificate_key key.pem"))
}

fn get(url: &str, options: &[&str]) -> Result<()> {
    // several on one connection
    step("curl", |curl| {
        curl.args(["-sS", "--fail", "-o", "/dev/null", "-o", "/dev/null", url, url]).args(options)
    })
}

fn http1(_: &Path, port: u16) -> Result<()> {
    get(&format!("http://127.0.0.1:{port}/file"), &["--http1.1"])
}

fn http2(_: &Path, port: u16) -> Result<()> {
    // curl 7.88 cannot do two on one connection without TLS
    let url = format!("http://127.0.0.1:{port}/file");
    step("curl", |curl| curl.args(["-sS", "--fail", "--http2-prior-knowledge", "-o", "/dev/null", &url]))
}

fn https(_: &Path, port: u16) -> Result<()> {
    let url = format!("https://127.0.0.1:{port}/file");
    get(&url, &["--insecure", "--http1.1"])?;
    get(&url, &["--insecure", "--http2"])
}

fn redis(dir: &Path, port: u16) -> Result<Command> {
    let mut command = installed("redis-server")?;
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(dir);
    Ok(command)
}

fn talk_redis(_: &Path, port: u16) -> Result<()> {
    step("redis-benchmark", |redis| {
        redis.args([
            "-p",
            &port.to_string(),
            "-n",
            "500",
            "-c",
            "5",
            "-d",
            "300",
            "-q",
            "-t",
            "set,get,lpush",
        ])
    })
}

fn memcached(_: &Path, port: u16) -> Result<Command> {
    let mut command = installed("memcached")?;
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", &port.to_string()]);
    Ok(command)
}

fn talk_memcached(_: &Path, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for number in 0..100 {
        write!(stream, "set key-{number} 0 0 5\r\nvalue\r\n")?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        ensure!(answer == "STORED\r\n", "{answer}");
    }
    Ok(())
}

/// Debian keeps the servers' programs of each version in a directory of its own.
fn postgresql_program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL's server is not installed")?;
    let mut programs: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|file| file.exists())
        .collect();
    programs.sort();
    programs.pop().with_context(|| format!("PostgreSQL's {name} is not installed"))
}

/// It refuses to be root.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn postgresql(dir: &Path, port: u16) -> Result<Command> {
    let data = dir.join("data");
    fs::create_dir(&data)?;
    step("chown", |chown| chown.arg("postgres").arg(&data))?;
    let initdb = as_postgres(&postgresql_program("initdb")?);
    step(initdb.get_program(), |command| {
        command.args(initdb.get_args()).args(["--auth=trust", "--no-sync", "-D"]).arg(&data).current_dir("/")
    })?;
    let mut command = as_postgres(&postgresql_program("postgres")?);
    command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", "", "-h", "127.0.0.1"]);
    Ok(command)
}

fn talk_postgresql(_: &Path, port: u16) -> Result<()> {
    let pgbench = postgresql_program("pgbench")?;
    for work in [["-i", "-q", "-s", "1"], ["-t", "20", "-c", "2"]] {
        step(&pgbench, |pgbench| {
            pgbench
                .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
                .args(work)
                .arg("postgres")
        })?;
    }
    Ok(())
}

fn mariadb(dir: &Path, port: u16) -> Result<Command> {
    let data = dir.join("data");
    fs::create_dir(&data)?;
    step("mariadb-install-db", |install| {
        install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"]);
        install.args(["--skip-test-db", "--datadir"]).arg(&data)
    })?;
    let mut command = installed("mariadbd")?;
    command.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg("--datadir").arg(&data).arg("--socket").arg(dir.join("socket"));
    Ok(command)
}

fn talk_mariadb(_: &Path, port: u16) -> Result<()> {
    let statements = "create database if not exists t; create table if not exists t.t (a int, b longblob);
insert into t.t values (1, repeat('x', 100000)), (2, random_bytes(1000)); select a, hex(b) from t.t;";
    step("mariadb", |mariadb| {
        mariadb.args([
            "--no-defaults",
            "-h",
            "127.0.0.1",
            "-u",
            "root",
            "-P",
            &port.to_string(),
            "-e",
            statements,
        ])
    })
}

fn rabbitmq(dir: &Path, port: u16) -> Result<Command> {
    let [distribution, names] = crate::ports::free()?;
    // not the one on the path, which changes to a user that may not write here
    let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    for (name, value) in [
        ("NODENAME", "ktrace@localhost".into()),
        ("NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("NODE_PORT", port.to_string()),
        ("DIST_PORT", distribution.to_string()),
        ("MNESIA_BASE", dir.display().to_string()),
        ("LOG_BASE", dir.display().to_string()),
        ("LOGS", "-".into()),
        ("ENABLED_PLUGINS_FILE", dir.join("plugins").display().to_string()),
        ("CONF_ENV_FILE", "/dev/null".into()),
        ("CONFIG_FILE", dir.join("none").display().to_string()),
        ("PID_FILE", dir.join("pid").display().to_string()),
    ] {
        command.env(format!("RABBITMQ_{name}"), value);
    }
    command.env("ERL_EPMD_PORT", names.to_string()).env("HOME", dir);
    Ok(command)
}

fn talk_amqp(_: &Path, port: u16) -> Result<()> {
    let run = |program: &str, arguments: &[&str]| {
        step(program, |command| {
            command.args(["--server=127.0.0.1", &format!("--port={port}")]).args(arguments)
        })
    };
    run("amqp-declare-queue", &["-q", "queue"])?;
    for _ in 0..5 {
        run("amqp-publish", &["-r", "queue", "-b", "a message"])?;
    }
    run("amqp-consume", &["-q", "queue", "-c", "5", "cat"])
}

fn mosquitto(dir: &Path, port: u16) -> Result<Command> {
    let file = dir.join("mosquitto.conf");
    fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"))?;
    let mut command = installed("mosquitto")?;
    command.arg("-c").arg(file);
    Ok(command)
}

fn talk_mqtt(dir: &Path, port: u16) -> Result<()> {
    let port = port.to_string();
    // kept for who comes later, so that it does not matter who is first
    for topic in ["one", "two", "three"] {
        step("mosquitto_pub", |publish| {
            publish.args(["-p", &port, "-t", topic, "-r", "-f"]).arg(dir.join("mosquitto.conf"))
        })?;
    }
    step("mosquitto_sub", |subscribe| subscribe.args(["-p", &port, "-t", "#", "-C", "3", "-W", "10"]))
}

fn slapd(dir: &Path, port: u16) -> Result<Command> {
    let (file, data) = (dir.join("slapd.conf"), dir.join("data"));
    fs::create_dir(&data)?;
    let configuration = format!(
        "include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=test
rootdn cn=admin,dc=test
rootpw secret
directory {}\n",
        data.display()
    );
    fs::write(&file, configuration)?;
    let mut command = installed("slapd")?;
    command.args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{port}"), "-f"]).arg(file);
    Ok(command)
}

fn talk_ldap(dir: &Path, port: u16) -> Result<()> {
    let url = format!("ldap://127.0.0.1:{port}");
    let entry = dir.join("entry");
    if !entry.exists() {
        fs::write(
            &entry,
            "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n",
        )?;
        step("ldapadd", |add| {
            add.args(["-x", "-H", &url, "-D", "cn=admin,dc=test", "-w", "secret", "-f"]).arg(entry)
        })?;
    }
    step("ldapsearch", |search| search.args(["-x", "-H", &url, "-b", "dc=test"]))
}

fn sshd(dir: &Path, port: u16) -> Result<Command> {
    for key in ["host", "user"] {
        step("ssh-keygen", |keygen| keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)))?;
    }
    // it wants this directory, and its path in full
    fs::create_dir_all("/run/sshd")?;
    let file = dir.join("sshd.conf");
    let configuration = format!(
        "Port {port}
ListenAddress 127.0.0.1
HostKey {dir}/host
AuthorizedKeysFile {dir}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes\n",
        dir = dir.display()
    );
    fs::write(&file, configuration)?;
    let mut command = installed("sshd")?;
    command.args(["-D", "-e", "-f"]).arg(file);
    Ok(command)
}

fn talk_ssh(dir: &Path, port: u16) -> Result<()> {
    step("ssh", |ssh| {
        ssh.args(["-p", &port.to_string(), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-i"]).arg(dir.join("user"));
        ssh.args(["root@127.0.0.1", "head -c 300000 /dev/zero"])
    })
}

/// Sends back what it gets.
fn random(_: &Path, port: u16) -> Result<Command> {
    let mut command = installed("socat")?;
    command.args([&format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"), "EXEC:cat"]);
    Ok(command)
}

fn talk_random(_: &Path, port: u16) -> Result<()> {
    let mut bytes = vec![0; 4000];
    for _ in 0..20 {
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(&bytes)?;
        std::io::Read::read_exact(&mut stream, &mut bytes)?;
    }
    Ok(())
}

fn installed(program: &str) -> Result<Command> {
    on_path(program).map(Command::new).with_context(|| format!("{program} is not installed"))
}
