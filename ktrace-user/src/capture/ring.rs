//! The records of the ring buffer, read.

use ktrace_common::{Closed, Kind, Owner, SegmentHeader};
use zerocopy::FromBytes as _;

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// It overwrites what was read.
    Blank,
    /// A piece of a packet with the payload that was copied.
    Segment(SegmentHeader, &'a [u8]),
    Owner(Owner),
    Closed(Closed),
}

/// Reads a record; `None` for what the programs never write.
pub(super) fn decode(record: &[u8]) -> Option<Record<'_>> {
    match Kind::from_byte(*record.first()?)? {
        Kind::Blank => Some(Record::Blank),
        Kind::Segment => {
            let (header, room) = SegmentHeader::read_from_prefix(record).ok()?;
            let payload = room.get(..usize::try_from(header.copied).ok()?)?;
            Some(Record::Segment(header, payload))
        }
        Kind::Owner => Some(Record::Owner(Owner::read_from_prefix(record).ok()?.0)),
        Kind::Closed => Some(Record::Closed(Closed::read_from_prefix(record).ok()?.0)),
    }
}

/// A ring's size is an `u32`, and a power of two.
pub(super) const LARGEST: usize = 1 << 30;
/// A smaller ring loses much at each burst: the largest record takes a quarter of it.
pub const LEAST_RING_BYTES: usize = 256 << 10;

/// The size that the kernel accepts for a ring of at least `bytes`: a power of two and a multiple
/// of the page size, at most 1 GiB.
pub(super) fn ring_size(bytes: usize, page: usize) -> u32 {
    u32::try_from(bytes.clamp(page, LARGEST).next_power_of_two().min(LARGEST)).unwrap_or(1 << 30)
}

/// How much may wait in a ring of `size` bytes before the agent is woken, as a power of two: an
/// eighth, and 1 MiB at most, so that what is read is still in the CPU's cache.
pub(super) fn wake_shift(size: u32) -> u32 {
    size.ilog2().saturating_sub(3).min(20)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn segments_end_where_the_copy_ended() {
        let header = SegmentHeader { kind: Kind::Segment as u8, len: 5, copied: 3, ..Default::default() };
        let mut record = header.as_bytes().to_vec();
        record.extend(b"abcdefgh");
        assert_eq!(decode(&record), Some(Record::Segment(header, b"abc")));
        record.truncate(size_of::<SegmentHeader>() + 2);
        assert_eq!(decode(&record), None);
        record.truncate(size_of::<SegmentHeader>() - 1);
        assert_eq!(decode(&record), None);
    }

    #[test]
    fn owners_and_ends() {
        let owner = Owner { kind: Kind::Owner as u8, pid: 7, cookie: 9, ..Default::default() };
        assert_eq!(decode(owner.as_bytes()), Some(Record::Owner(owner)));
        let closed = Closed { kind: Kind::Closed as u8, cookie: 9, ..Default::default() };
        assert_eq!(decode(closed.as_bytes()), Some(Record::Closed(closed)));
        assert_eq!(decode(&closed.as_bytes()[..23]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[77; 100]), None);
        assert_eq!(decode(&[0; 100]), Some(Record::Blank));
    }

    #[test]
    fn sizes() {
        assert_eq!(ring_size(0, 4096), 4096);
        assert_eq!(ring_size(4097, 4096), 8192);
        assert_eq!(ring_size(100_000, 65536), 131_072);
        assert_eq!(ring_size(usize::MAX, 4096), 1 << 30);
        assert_eq!(wake_shift(4096), 9);
        assert_eq!(wake_shift(64 << 20), 20);
    }
}
