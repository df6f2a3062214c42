//! Whether a key is that of a connection: its records are tried.

use std::cell::Cell;
use std::sync::Arc;

use ktrace_tls::nonce::GcmKey;
use ktrace_tls::sample::{AesKey, FoundKey, Proof, Sample};
use ktrace_tls::{Sender, Version};

use crate::seen::ConnectionId;

/// A direction of a connection that lacks a key.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) connection: ConnectionId,
    pub(super) sender: Sender,
    /// Those that came first stand first.
    pub(super) samples: Arc<[Sample]>,
}

/// How a key is tried with records of TLS 1.2 of which the number is not known, and is not what
/// they send as their nonce.
#[derive(Clone, Copy)]
pub(super) struct Effort<'a> {
    /// Numbers that are tried.
    pub(super) tries: u64,
    /// Memory on either side of the key, where it was read.
    pub(super) beside: &'a [u8],
    /// How often that is done at most, as it takes a hundred times longer than to try a key
    /// otherwise: counted down.
    pub(super) allowed: &'a Cell<usize>,
}

/// A copy of the key, which is overwritten as the original is.
pub(super) fn copy(key: &AesKey) -> AesKey {
    match key {
        AesKey::Aes128(key) => AesKey::Aes128(key.clone()),
        AesKey::Aes256(key) => AesKey::Aes256(key.clone()),
    }
}

/// What a key opens.
pub(super) fn opens<'w>(
    key: &AesKey,
    wanted: &'w [Wanted],
    effort: Effort<'_>,
) -> impl Iterator<Item = (ConnectionId, FoundKey)> + use<'w> {
    let ready = GcmKey::new(key);
    let found: Vec<_> = wanted
        .iter()
        .filter_map(|wanted| {
            let (sample, proof) = first_opened(&ready, &wanted.samples, effort)?;
            let Proof { version, nonce, number } = proof;
            let key = copy(key);
            let found = FoundKey { sender: wanted.sender, seq: sample.seq, version, key, nonce, number };
            Some((wanted.connection, found))
        })
        .collect();
    found.into_iter()
}

/// The first of the records that a key opens: it opens all from there to the last, or it is none of
/// theirs. So a key that is not is tried once, and each record more proves 32 bits and those of the
/// nonce. (Records before the first are of an older key: the handshake's, or before a KeyUpdate.)
fn first_opened<'s>(key: &GcmKey, samples: &'s [Sample], effort: Effort<'_>) -> Option<(&'s Sample, Proof)> {
    let open = |sample: &Sample| {
        key.opens(sample, 0).or_else(|| {
            if sample.version == Some(Version::Tls13) || sample.number.is_some() {
                return None;
            }
            effort.allowed.set(effort.allowed.get().checked_sub(1)?);
            key.opens_beside(sample, effort.beside).or_else(|| key.opens(sample, effort.tries))
        })
    };
    let mut samples = samples.iter().rev();
    let last = samples.next()?;
    let mut first = (last, open(last)?);
    for sample in samples {
        let Some(proof) = open(sample) else { break };
        if !proof.continues(&first.1) {
            return None;
        }
        first = (sample, proof);
    }
    Some(first)
}

#[cfg(test)]
pub(super) mod tests {
    use ring::aead;
    use zeroize::Zeroizing;

    use super::*;

    const NONE: [u32; 0] = [];

    pub fn key(byte: u8) -> AesKey {
        AesKey::Aes256(Zeroizing::new([byte; 32]))
    }

    /// A record of TLS 1.3 as another implementation seals it.
    pub fn sealed(key: &AesKey, number: u64) -> Sample {
        let AesKey::Aes256(key) = key else { panic!("not of this test") };
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key[..]).unwrap());
        let mut nonce = [5; 12];
        for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        let mut body = b"hello \x17".to_vec();
        let header = [23, 3, 3, 0, body.len() as u8 + 16];
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut body).unwrap();
        Sample { seq: number as u32, header, body: body.into(), version: None, number: None }
    }

    fn seqs(key: &AesKey, samples: Vec<Sample>) -> Vec<u32> {
        let wanted = Wanted { connection: ConnectionId(1), sender: Sender::Client, samples: samples.into() };
        let effort = Effort { tries: 100, beside: &[7; 100], allowed: &Cell::new(10) };
        opens(key, &[wanted], effort).map(|(_, found)| found.seq).collect()
    }

    #[test]
    fn a_key_opens_all_from_its_first_record_on() {
        let (old, new) = (key(1), key(2));
        let samples = || vec![sealed(&old, 8), sealed(&new, 0), sealed(&new, 1), sealed(&new, 2)];
        assert_eq!(seqs(&new, samples()), [0]);
        assert_eq!(seqs(&old, samples()), NONE);
        assert_eq!(seqs(&old, samples().drain(..1).collect()), [8]);
        assert_eq!(seqs(&key(3), samples()), NONE);
        assert_eq!(seqs(&new, vec![]), NONE);
    }

    /// Nonces of one direction follow each other.
    #[test]
    fn records_that_do_not_go_together_prove_nothing() {
        let key = key(1);
        assert_eq!(seqs(&key, vec![sealed(&key, 1 << 40), sealed(&key, 1)]), NONE);
        assert_eq!(seqs(&key, vec![sealed(&key, 1), sealed(&key, 1)]), NONE);
    }
}
