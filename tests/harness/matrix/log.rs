//! What the broker has in its log: that a client really wrote with the codec and in the mode that
//! its cell says, which the spans would not show.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::cell::{CODECS, Cell, Mode, PARTITIONS};

/// Of a batch of format v2 (Kafka's `DefaultRecordBatch`), what matters here.
#[derive(Clone, Copy, Debug)]
struct Batch {
    attributes: u16,
    producer_id: i64,
}

/// An error if a cell's topic is not written as the cell says. A client may leave alone what would
/// not shrink, but not all.
pub(super) fn is_as_told(broker: &Path, cell: Cell) -> Result<()> {
    let mut batches = Vec::new();
    for partition in 0..PARTITIONS {
        let file = broker.join(format!("data/{}-{partition}/00000000000000000000.log", cell.topic()));
        let bytes = std::fs::read(&file).with_context(|| format!("no {}", file.display()))?;
        batches.extend(parse(&bytes).with_context(|| format!("{} ends within a batch", file.display()))?);
    }
    batches.retain(|batch| !batch.is_control());
    let codecs: Vec<&str> = batches.iter().map(|batch| batch.codec()).collect();
    ensure!(
        codecs.contains(&cell.codec) && codecs.iter().all(|codec| [cell.codec, "none"].contains(codec)),
        "{cell:?} is written with {codecs:?}"
    );
    ensure!(batches.iter().all(|batch| batch.mode() == cell.mode), "{cell:?} is written as {batches:?}");
    Ok(())
}

fn parse(mut log: &[u8]) -> Option<Vec<Batch>> {
    let mut batches = Vec::new();
    while !log.is_empty() {
        // base offset, then the length of what follows it
        let length = u32::from_be_bytes(*log.get(8..)?.first_chunk()?) as usize;
        let batch = log.get(..12 + length)?;
        batches.push(Batch {
            attributes: u16::from_be_bytes(*batch.get(21..)?.first_chunk()?),
            producer_id: i64::from_be_bytes(*batch.get(43..)?.first_chunk()?),
        });
        log = log.get(12 + length..)?;
    }
    Some(batches)
}

impl Batch {
    fn codec(self) -> &'static str {
        CODECS.get(usize::from(self.attributes & 7)).copied().unwrap_or("unknown")
    }

    fn mode(self) -> Mode {
        match (self.attributes & 0x10 != 0, self.producer_id) {
            (true, _) => Mode::Transactional,
            (false, -1) => Mode::Plain,
            (false, _) => Mode::Idempotent,
        }
    }

    /// The end of a transaction.
    fn is_control(self) -> bool {
        self.attributes & 0x20 != 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ktrace_testkit::Batch;

    use super::{Cell, Mode, is_as_told};
    use crate::clients::Library;
    use crate::scratch::Scratch;

    fn batch(attributes: i16, producer_id: i64) -> Vec<u8> {
        Batch { attributes, producer_id, ..Batch::default() }.packed(0, &[])
    }

    #[test]
    fn a_log_that_is_otherwise_is_told() -> anyhow::Result<()> {
        let cell = Cell { library: Library::Java, codec: "lz4", mode: Mode::Transactional };
        let told = |batches: &[Vec<u8>]| -> anyhow::Result<bool> {
            let scratch = Scratch::new()?;
            for (partition, bytes) in [(0, batches.concat()), (1, Vec::new())] {
                let dir = scratch.join(&format!("data/{}-{partition}", cell.topic()));
                fs::create_dir_all(&dir)?;
                fs::write(dir.join("00000000000000000000.log"), bytes)?;
            }
            Ok(is_as_told(scratch.path(), cell).is_err())
        };
        assert!(!told(&[batch(0x13, 7), batch(0x30, 7), batch(0x10, 7)])?);
        assert!(told(&[])?, "nothing");
        assert!(told(&[batch(0x10, 7)])?, "not compressed");
        assert!(told(&[batch(0x13, 7), batch(0x12, 7)])?, "another codec");
        assert!(told(&[batch(0x13, 7), batch(0x03, 7)])?, "idempotent");
        assert!(told(&[batch(0x13, 7), batch(0x03, -1)])?, "plain");
        assert!(told(&[batch(0x13, 7)[..60].to_vec()])?, "cut off");
        Ok(())
    }
}
