//! From secrets to keys: HKDF of TLS 1.3 (RFC 8446, 7.1 and 7.3), the PRF of TLS 1.2 (RFC 5246, 5
//! and 6.3), KeyUpdate.

use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, Hash, Suite};

/// Of TLS 1.2, whatever the suite (RFC 5246, 8.1).
pub const MASTER_BYTES: usize = 48;

/// What a key log, or a probe, says of one connection.
#[derive(Clone, Default)]
pub struct Secrets {
    /// TLS 1.2: `CLIENT_RANDOM`, 48 bytes.
    pub master: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `CLIENT_TRAFFIC_SECRET_0`.
    pub client_traffic: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `SERVER_TRAFFIC_SECRET_0`.
    pub server_traffic: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `CLIENT_HANDSHAKE_TRAFFIC_SECRET`; of use only to know where the handshake ends.
    pub client_handshake: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.3: `SERVER_HANDSHAKE_TRAFFIC_SECRET`.
    pub server_handshake: Option<Zeroizing<Vec<u8>>>,
}

impl Secrets {
    /// All that are known.
    pub fn all(&self) -> impl Iterator<Item = &Zeroizing<Vec<u8>>> {
        let Self { master, client_traffic, server_traffic, client_handshake, server_handshake } = self;
        [master, client_traffic, server_traffic, client_handshake, server_handshake].into_iter().flatten()
    }
}

/// What one direction's records are opened with.
#[derive(Clone)]
pub struct Keys {
    /// What they are for.
    pub cipher: Cipher,
    /// The key of the cipher.
    pub key: Zeroizing<Vec<u8>>,
    /// A record's nonce is this, its last eight bytes XORed with the record's number (TLS 1.3, and
    /// `ChaCha20` of TLS 1.2) or with the explicit nonce that the record begins with (AES-GCM of
    /// TLS 1.2: the first four bytes are the salt, the others zero). All zero for CBC.
    pub iv: [u8; 12],
    /// CBC: the key of the MAC. Empty for others.
    pub mac: Zeroizing<Vec<u8>>,
}

/// The keys of a direction of TLS 1.3 out of its traffic secret. `None` where the suite is not
/// read, is none of TLS 1.3, or the secret is not as long as its hash.
#[must_use]
pub fn traffic_keys(secret: &[u8], suite: Suite) -> Option<Keys> {
    let (cipher, hash) = (suite.cipher()?, suite.hash()?);
    if matches!(cipher, Cipher::Cbc { .. }) {
        return None;
    }
    let prk = prk(secret, hash)?;
    let key = expand_label(&prk, b"key", key_bytes(cipher))?;
    let mut iv = [0; 12];
    iv.copy_from_slice(expand_label(&prk, b"iv", 12)?.get(..12)?);
    Some(Keys { cipher, key, iv, mac: Zeroizing::default() })
}

/// The traffic secret behind a KeyUpdate (RFC 8446, 7.2). `None` where the secret is not as long as
/// the hash.
#[must_use]
pub fn next_traffic_secret(secret: &[u8], hash: Hash) -> Option<Zeroizing<Vec<u8>>> {
    expand_label(&prk(secret, hash)?, b"traffic upd", hash_bytes(hash))
}

/// The keys of the client's and of the server's records of TLS 1.2. `None` where the suite is not
/// read, or the master secret has another length.
#[must_use]
pub fn tls12_keys(
    master: &[u8],
    client_random: &[u8; 32],
    server_random: &[u8; 32],
    suite: Suite,
) -> Option<(Keys, Keys)> {
    if master.len() != MASTER_BYTES {
        return None;
    }
    let (cipher, hash) = (suite.cipher()?, suite.hash()?);
    let key_bytes = key_bytes(cipher);
    let (mac_bytes, iv_bytes) = match cipher {
        // Each record brings its own IV.
        Cipher::Cbc { mac, .. } => (hash_bytes(mac), 0),
        Cipher::Aes128Gcm | Cipher::Aes256Gcm => (0, 4),
        Cipher::ChaCha20Poly1305 => (0, 12),
    };
    let seed = [&b"key expansion"[..], server_random, client_random].concat();
    let each = mac_bytes.saturating_add(key_bytes).saturating_add(iv_bytes);
    let block = prf(master, &seed, hash, each.saturating_mul(2));
    // RFC 5246, 6.3: MAC keys, keys, IVs; of each the client's first.
    let (macs, rest) = block.split_at_checked(mac_bytes.saturating_mul(2))?;
    let (keys, ivs) = rest.split_at_checked(key_bytes.saturating_mul(2))?;
    let (client_mac, server_mac) = macs.split_at_checked(mac_bytes)?;
    let (client_key, server_key) = keys.split_at_checked(key_bytes)?;
    let (client_iv, server_iv) = ivs.split_at_checked(iv_bytes)?;
    let keys = |mac: &[u8], key: &[u8], implicit: &[u8]| {
        let mut iv = [0; 12];
        for (to, from) in iv.iter_mut().zip(implicit) {
            *to = *from;
        }
        Keys { cipher, key: Zeroizing::new(key.to_vec()), iv, mac: Zeroizing::new(mac.to_vec()) }
    };
    Some((keys(client_mac, client_key, client_iv), keys(server_mac, server_key, server_iv)))
}

fn key_bytes(cipher: Cipher) -> usize {
    match cipher {
        Cipher::Aes128Gcm => 16,
        Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
        Cipher::Cbc { key_bytes, .. } => key_bytes,
    }
}

/// How long a hash is: so long are the secrets of TLS 1.3, and the MACs and their keys of CBC.
pub(crate) fn hash_bytes(hash: Hash) -> usize {
    match hash {
        Hash::Sha1 => 20,
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
    }
}

pub(crate) fn hmac_of(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
    }
}

fn prk(secret: &[u8], hash: Hash) -> Option<hkdf::Prk> {
    let algorithm = match hash {
        // No suite of TLS 1.3 has it.
        Hash::Sha1 => return None,
        Hash::Sha256 => hkdf::HKDF_SHA256,
        Hash::Sha384 => hkdf::HKDF_SHA384,
    };
    (secret.len() == hash_bytes(hash)).then(|| hkdf::Prk::new_less_safe(algorithm, secret))
}

/// How much is asked of HKDF.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// `HKDF-Expand-Label` with an empty context (RFC 8446, 7.1).
fn expand_label(prk: &hkdf::Prk, label: &[u8], bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    const PREFIX: &[u8] = b"tls13 ";
    let label_bytes = u8::try_from(PREFIX.len().saturating_add(label.len())).ok()?;
    let length = u16::try_from(bytes).ok()?.to_be_bytes();
    let info: [&[u8]; 5] = [&length, &[label_bytes], PREFIX, label, &[0]];
    let mut out = Zeroizing::new(vec![0; bytes]);
    prk.expand(&info, Bytes(bytes)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// `PRF(secret, label, seed)`, where `seed` has the label in front. Suites of before TLS 1.2 have
/// SHA-256 with it (RFC 5246, 5).
fn prf(secret: &[u8], seed: &[u8], hash: Hash, bytes: usize) -> Zeroizing<Vec<u8>> {
    let hash = if hash == Hash::Sha384 { Hash::Sha384 } else { Hash::Sha256 };
    let key = hmac::Key::new(hmac_of(hash), secret);
    // With its capacity from the beginning: a vector that grows leaves what it held behind.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes));
    let mut a = hmac::sign(&key, seed);
    while out.len() < bytes {
        let mut context = hmac::Context::with_key(&key);
        context.update(a.as_ref());
        context.update(seed);
        let block = context.sign();
        let wanted = bytes.saturating_sub(out.len());
        out.extend(block.as_ref().iter().take(wanted));
        a = hmac::sign(&key, a.as_ref());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// RFC 8448, 3: a simple handshake with TLS_AES_128_GCM_SHA256.
    #[test]
    fn traffic_keys_are_those_of_rfc_8448() {
        let server = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
        let client = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
        for (secret, key, iv) in [
            (server, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"),
            (client, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"),
        ] {
            let keys = traffic_keys(&hex(secret), Suite(0x1301)).unwrap();
            assert_eq!(keys.cipher, Cipher::Aes128Gcm);
            assert_eq!((&**keys.key, &keys.iv[..]), (&*hex(key), &*hex(iv)));
            assert!(keys.mac.is_empty());
        }
    }

    /// Of the other suites of TLS 1.3; the values by Python's hmac, after RFC 8446, 7.1.
    #[test]
    fn traffic_keys_of_longer_hashes_and_other_ciphers() {
        let secret: Vec<u8> = (0..48).collect();
        let keys = traffic_keys(&secret, Suite(0x1302)).unwrap();
        let key = "6877d022f1c61d24ebb7487c16752d9a4798e40431c75b39320e537c90e23225";
        assert_eq!((&**keys.key, &keys.iv[..]), (&*hex(key), &*hex("42822531a0fe88648fc09e9f")));
        let secret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        let keys = traffic_keys(&secret, Suite(0x1303)).unwrap();
        let key = "848e80ab93efeb09c572c66873c184f99207c95b0fc817f91e8e7e8e14ac5ca9";
        assert_eq!((&**keys.key, &keys.iv[..]), (&*hex(key), &*hex("cf782b88dd83549aadf1e984")));
    }

    #[test]
    fn a_key_update_makes_the_next_secret() {
        let secret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        let next = "51921b8aa3001976eb401d0a4319a8516416a6c56001a357e5d162031e84f916";
        assert_eq!(**next_traffic_secret(&secret, Hash::Sha256).unwrap(), hex(next));
        let secret: Vec<u8> = (0..48).collect();
        let next = "401331b63e9d59f202e8f041042d9516f4cd7fa2e2ee14631d3b49fc340d7af37fc2c0c9f252d8036f81ec5b85cbe5db";
        assert_eq!(**next_traffic_secret(&secret, Hash::Sha384).unwrap(), hex(next));
    }

    #[test]
    fn secrets_of_another_length_give_no_keys() {
        for bytes in [0, 31, 33, 48, 1000] {
            let secret = vec![7; bytes];
            assert!(traffic_keys(&secret, Suite(0x1301)).is_none(), "{bytes}");
            assert!(next_traffic_secret(&secret, Hash::Sha256).is_none(), "{bytes}");
        }
        assert!(next_traffic_secret(&[7; 20], Hash::Sha1).is_none());
        assert!(tls12_keys(&[7; 47], &[1; 32], &[2; 32], Suite(0xc02f)).is_none());
        // A suite of TLS 1.2 with CBC, and one that is none.
        assert!(traffic_keys(&[7; 32], Suite(0xc027)).is_none());
        assert!(traffic_keys(&[7; 32], Suite(0xffff)).is_none());
    }

    /// The vectors of the IETF's TLS list for TLS 1.2, by which others test theirs.
    #[test]
    fn the_prf_is_that_of_tls_1_2() {
        let seed = |seed: &str| [b"test label".to_vec(), hex(seed)].concat();
        let out = prf(
            &hex("9bbe436ba940f017b17652849a71db35"),
            &seed("a0ba9f936cda311827a6f796ffd5198c"),
            Hash::Sha256,
            100,
        );
        let expected = "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af\
            0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66";
        assert_eq!(**out, hex(expected));
        let out = prf(
            &hex("b80b733d6ceefcdc71566ea48e5567df"),
            &seed("cd665cf6a8447dd6ff8b27555edb7465"),
            Hash::Sha384,
            148,
        );
        let expected = "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0\
            e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd\
            4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f";
        assert_eq!(**out, hex(expected));
    }

    /// The values by Python's hmac, after RFC 5246, 6.3.
    #[test]
    fn a_key_block_is_divided_in_the_order_of_the_rfc() {
        let master: Vec<u8> = (0..48).collect();
        let keys = |suite| tls12_keys(&master, &[0xc; 32], &[0x5; 32], Suite(suite)).unwrap();
        // TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA: its PRF has SHA-256, its MAC SHA-1.
        let (client, server) = keys(0xc014);
        assert_eq!(client.cipher, Cipher::Cbc { key_bytes: 32, mac: Hash::Sha1 });
        assert_eq!(**client.mac, hex("2788e5124235e328dc1f37aeb3a8392ca18cad56"));
        assert_eq!(**server.mac, hex("7f46e239e70ed4793d08017e767a5f45cc9977c4"));
        assert_eq!(**client.key, hex("05b31fd4048bc3ee4c5e16d09df3dc2fcf894f69d202a0385875dca898a59bd5"));
        assert_eq!(**server.key, hex("87f9d04ca3081b2d06228a6241a59eb801960ee6c541032644d5fbaf7dbb05ba"));
        assert_eq!((client.iv, server.iv), ([0; 12], [0; 12]));
        // TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        let (client, server) = keys(0xc030);
        assert_eq!(**client.key, hex("048a6ea51dce49d36b4297fa72070bfeb652470d9079e229a410b8f881707728"));
        assert_eq!(**server.key, hex("25b92c9bb8134fd3fb6e42c700a73838c39b0a4e35555520d5c93882d5d98480"));
        assert_eq!(client.iv.to_vec(), hex("828dc2b30000000000000000"));
        assert_eq!(server.iv.to_vec(), hex("4a6078a50000000000000000"));
        assert!(client.mac.is_empty() && server.mac.is_empty());
        // TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        let (client, server) = keys(0xcca8);
        assert_eq!(**client.key, hex("2788e5124235e328dc1f37aeb3a8392ca18cad567f46e239e70ed4793d08017e"));
        assert_eq!(client.iv.to_vec(), hex("5875dca898a59bd587f9d04c"));
        assert_eq!(server.iv.to_vec(), hex("a3081b2d06228a6241a59eb8"));
    }
}
