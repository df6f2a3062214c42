//! What the ring's size classes take for the packets of capture files, beside other sets of classes and an exact fit:
//! `./dev bench classes FILE…`.
//!
//! A record of the ring has the class's bytes behind its own header and the kernel's, whatever was copied into them. The verifier wants
//! its size to be a constant, so each class is a branch of the program more.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ktrace_common::{CLASSES, SegmentHeader};
use ktrace_user::capture::PortSet;
use ktrace_user::capture::file::{CaptureFile, Connections};
use ktrace_user::seen::Event;

/// The kernel's own header of a record (`BPF_RINGBUF_HDR_SZ`), and ours.
const HEADERS: usize = 8 + size_of::<SegmentHeader>();

const LARGEST: usize = CLASSES[CLASSES.len() - 1];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let sets = sets();
    let counts = sets.each_ref().map(|classes| format!("{} classes", classes.len()));
    println!("| capture | packets with data | mean bytes | exact | {} |", counts.join(" | "));
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut all = Vec::new();
    for file in files {
        let sizes = sizes(&file)?;
        row(&sets, &file.file_stem().unwrap_or_default().to_string_lossy(), &sizes);
        all.extend(sizes);
    }
    row(&sets, "all", &all);
    Ok(())
}

fn sizes(file: &Path) -> Result<Vec<usize>, Box<dyn std::error::Error>> {
    let (mut sizes, mut connections) = (Vec::new(), Connections::new(PortSet::default()));
    CaptureFile::open(file)?.run(&mut connections, &AtomicBool::new(false), |event| {
        if let Event::Segment(segment) = event
            && segment.push.len > 0
        {
            sizes.push(segment.push.len as usize);
        }
    })?;
    Ok(sizes)
}

/// Those of today, the same with one and with three more between each two, and few.
fn sets() -> [Vec<usize>; 4] {
    let parted = |parts: usize| -> Vec<usize> {
        let parted =
            CLASSES.iter().flat_map(|class| (0..parts).map(move |part| class + class * part / parts));
        parted.filter(|class| *class <= LARGEST).collect()
    };
    [CLASSES.to_vec(), parted(2), parted(4), vec![256, 2048, 16384, LARGEST]]
}

/// Bytes of the ring for one of payload.
fn row(sets: &[Vec<usize>], name: &str, sizes: &[usize]) {
    let payload: usize = sizes.iter().sum();
    let share = |taken: usize| format!("{:.3}", taken as f64 / payload.max(1) as f64);
    let exact = share(sizes.iter().map(|size| (size + HEADERS).next_multiple_of(8)).sum());
    let shares: Vec<String> =
        sets.iter().map(|classes| share(sizes.iter().map(|size| taken(classes, *size)).sum())).collect();
    let mean = payload / sizes.len().max(1);
    println!("| {name} | {} | {mean} | {exact} | {} |", sizes.len(), shares.join(" | "));
}

/// What a packet takes: full pieces of the largest class, and the rest in the smallest that holds it.
fn taken(classes: &[usize], mut size: usize) -> usize {
    let mut taken = 0;
    while size > LARGEST {
        taken += LARGEST + HEADERS;
        size -= LARGEST;
    }
    taken + classes.iter().find(|class| **class >= size).unwrap_or(&LARGEST) + HEADERS
}
