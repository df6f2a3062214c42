//! Sends and receives known bytes in every way that programs do, on the kernel that it runs on, and holds what ktrace captures of both ends
//! against them. As the first process of a virtual machine it is that machine's init.

mod init;
mod interface;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use clap::Parser;
use ktrace_user::capture::{Event, Live, LiveOptions, probe};

#[derive(Parser)]
enum Verb {
    /// Run the test
    Traffic {
        /// Only a little of each
        #[arg(long)]
        short: bool,
    },
}

fn main() -> Result<()> {
    if std::process::id() == 1 {
        init::run();
    }
    let Verb::Traffic { short: _ } = Verb::parse();
    let listener = TcpListener::bind("127.0.0.1:19092")?;
    let ports = "19092".parse()?;
    for item in probe::run(&ports).items {
        println!("{item:?}");
    }
    let mut live =
        Live::open(LiveOptions { ports, broker_end: true, ring_bytes: 8 << 20, ..LiveOptions::default() })?;
    let stop = AtomicBool::new(false);
    let mut seen = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = TcpStream::connect("127.0.0.1:19092").unwrap();
            stream.write_all(b"hello").unwrap();
            let mut other = listener.accept().unwrap().0;
            other.read_exact(&mut [0; 5]).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        live.run(&stop, |event| {
            if let Event::Segment(segment) = event {
                seen += segment.payload.len();
            }
        })
    })?;
    ensure!(seen == 10, "{seen} bytes");
    println!("ok");
    Ok(())
}
