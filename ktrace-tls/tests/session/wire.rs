//! The vocabulary of the session's tests: two sides that talk TLS, written with ring, and a reader
//! of what the session gives.

use aes::cipher::{BlockEncrypt, KeyInit};
use ktrace_tls::cipher::{Cipher, Hash, Suite};
use ktrace_tls::sample::{AesKey, FoundKey, Sample, Samples};
use ktrace_tls::secret::{self, Keys, Secrets};
use ktrace_tls::session::{Plain, Session};
use ktrace_tls::{Sender, Version};
use ring::{aead, hmac};
use zeroize::Zeroizing;

pub const BOTH: [Sender; 2] = [Sender::Client, Sender::Server];

pub const CLIENT_RANDOM: [u8; 32] = [0xc1; 32];
pub const SERVER_RANDOM: [u8; 32] = [0x5e; 32];

/// A suite of CBC with which the talks encrypt first.
pub const ENCRYPT_THEN_MAC: Suite = Suite(0xc014);

/// xorshift: seeds give the same talk everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_be_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Seals the records of one direction.
pub struct Writer {
    pub version: Version,
    pub suite: Suite,
    pub secret: Vec<u8>,
    pub keys: Keys,
    pub number: u64,
    /// TLS 1.2 with AES-GCM: what is sent of the first nonce; it is counted, as OpenSSL does.
    pub explicit: u64,
    pub seq: u32,
    pub padding: usize,
    /// CBC: RFC 7366.
    pub encrypt_then_mac: bool,
}

pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, high, low], body].concat()
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, a, b, c], body].concat()
}

impl Writer {
    pub fn tls13(suite: Suite, secret: &[u8], number: u64) -> Self {
        let keys = secret::traffic_keys(secret, suite).unwrap();
        let secret = secret.to_vec();
        Self {
            version: Version::Tls13,
            suite,
            secret,
            keys,
            number,
            explicit: 0,
            seq: 0,
            padding: 0,
            encrypt_then_mac: false,
        }
    }

    pub fn tls12(suite: Suite, keys: Keys, number: u64, explicit: u64) -> Self {
        Self {
            version: Version::Tls12,
            suite,
            secret: vec![],
            keys,
            number,
            explicit,
            seq: 0,
            padding: 0,
            encrypt_then_mac: false,
        }
    }

    pub fn update(&mut self) {
        let next = secret::next_traffic_secret(&self.secret, self.suite.hash().unwrap()).unwrap();
        *self = Self { seq: self.seq, ..Self::tls13(self.suite, &next, 0) };
    }

    fn sealing(&self) -> aead::LessSafeKey {
        let algorithm = match self.keys.cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            _ => &aead::CHACHA20_POLY1305,
        };
        aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, &self.keys.key).unwrap())
    }

    /// A record with this content.
    pub fn seal(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let number = self.number;
        self.number += 1;
        let mut nonce = self.keys.iv;
        let of_nonce = match (self.version, self.keys.cipher) {
            (Version::Tls12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => self.explicit.wrapping_add(number),
            _ => number,
        };
        for (byte, of_number) in nonce[4..].iter_mut().zip(of_nonce.to_be_bytes()) {
            *byte ^= of_number;
        }
        let explicit = nonce[4..].to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        match self.version {
            Version::Tls13 => {
                let mut body = [plain, &[kind], &vec![0; self.padding]].concat();
                let header = record(23, &vec![0; body.len() + 16])[..5].to_vec();
                self.sealing().seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut body).unwrap();
                record(23, &body)
            }
            Version::Tls12 if matches!(self.keys.cipher, Cipher::Cbc { .. }) => {
                record(kind, &seal_cbc(&self.keys, self.encrypt_then_mac, number, kind, plain))
            }
            Version::Tls12 => {
                let mut body = plain.to_vec();
                let aad = [&number.to_be_bytes()[..], &record(kind, plain)[..5]].concat();
                self.sealing().seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut body).unwrap();
                let gcm = self.keys.cipher != Cipher::ChaCha20Poly1305;
                record(kind, &if gcm { [explicit, body].concat() } else { body })
            }
        }
    }
}

fn seal_cbc(keys: &Keys, encrypt_first: bool, number: u64, kind: u8, plain: &[u8]) -> Vec<u8> {
    let Cipher::Cbc { mac: hash, .. } = keys.cipher else { panic!("another cipher") };
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
    };
    let mac = |bytes: &[u8]| {
        let text = [&number.to_be_bytes()[..], &record(kind, bytes)].concat();
        hmac::sign(&hmac::Key::new(algorithm, &keys.mac), &text).as_ref().to_vec()
    };
    let mut padded = if encrypt_first { plain.to_vec() } else { [plain, &mac(plain)].concat() };
    let padding = 15 - padded.len() % 16;
    padded.extend(vec![padding as u8; padding + 1]);
    let mut sealed = vec![0x5a; 16];
    for block in padded.chunks(16) {
        let before = &sealed[sealed.len() - 16..];
        let mut block: [u8; 16] = std::array::from_fn(|at| block[at] ^ before[at]);
        match keys.key.len() {
            16 => aes::Aes128::new_from_slice(&keys.key).unwrap().encrypt_block((&mut block).into()),
            _ => aes::Aes256::new_from_slice(&keys.key).unwrap().encrypt_block((&mut block).into()),
        }
        sealed.extend(block);
    }
    if encrypt_first {
        sealed.extend(mac(&sealed));
    }
    sealed
}

pub fn aes_key(keys: &Keys) -> AesKey {
    match keys.key.len() {
        16 => AesKey::Aes128(Zeroizing::new(keys.key[..].try_into().unwrap())),
        _ => AesKey::Aes256(Zeroizing::new(keys.key[..].try_into().unwrap())),
    }
}

/// Bytes of one direction, as they pass the socket at once.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub from: Sender,
    pub seq: u32,
    pub bytes: Vec<u8>,
}

/// A talk, and what it says.
pub struct Talk {
    pub client: Writer,
    pub server: Writer,
    pub secrets: Secrets,
    pub chunks: Vec<Chunk>,
    /// What is said, record by record, with the position of each.
    pub said: Vec<(Sender, u32, Vec<u8>)>,
    /// All keys that there were: of AES-GCM, those of the handshake last.
    pub keys: Vec<Keys>,
}

pub fn secret_of(suite: Suite, fill: u8) -> Vec<u8> {
    vec![fill; if suite.hash() == Some(Hash::Sha384) { 48 } else { 32 }]
}

fn some(secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    Some(Zeroizing::new(secret.to_vec()))
}

pub fn client_hello(extra: usize) -> Vec<u8> {
    let name = b"broker.example";
    let len = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let names = [&[0][..], &len(name.len()), name].concat();
    let names = [&len(names.len())[..], &names].concat();
    // A key share of post-quantum cryptography is as long as that.
    let extensions =
        [&[0, 0][..], &len(names.len()), &names, &[0, 51], &len(extra), &vec![7; extra]].concat();
    let body = [
        &[3, 3][..],
        &CLIENT_RANDOM,
        &[0, 0, 4, 0x13, 0x01, 0x13, 0x02, 1, 0],
        &len(extensions.len()),
        &extensions,
    ];
    let mut hello = record(22, &message(1, &body.concat()));
    hello[2] = 1;
    hello
}

pub fn server_hello(version: Version, suite: Suite, random: &[u8; 32]) -> Vec<u8> {
    let extensions: &[u8] = match version {
        Version::Tls13 => &[0, 6, 0, 43, 0, 2, 3, 4],
        // Encrypts first, as OpenSSL does with CBC.
        Version::Tls12 if suite.0 == ENCRYPT_THEN_MAC.0 => &[0, 4, 0, 22, 0, 0],
        Version::Tls12 => &[],
    };
    let suite = suite.0.to_be_bytes();
    record(22, &message(2, &[&[3, 3][..], random, &[0], &suite, &[0], extensions].concat()))
}

impl Talk {
    /// A handshake of TLS 1.3, with a server's flight in several records, and two tickets.
    pub fn tls13(suite: Suite) -> Self {
        let (client, server) = (secret_of(suite, 1), secret_of(suite, 2));
        let (client_hs, server_hs) = (secret_of(suite, 3), secret_of(suite, 4));
        let mut talk = Self::middle(suite, 0, 0);
        talk.secrets.client_handshake = some(&client_hs);
        talk.secrets.server_handshake = some(&server_hs);
        talk.client = Writer::tls13(suite, &client_hs, 0);
        talk.server = Writer::tls13(suite, &server_hs, 0);
        let keys = [&talk.client, &talk.server].map(|writer| writer.keys.clone());
        talk.keys.extend(keys);

        talk.raw(Sender::Client, &client_hello(1300));
        let flight = [
            server_hello(Version::Tls13, suite, &SERVER_RANDOM),
            record(20, &[1]),
            talk.server.seal(22, &message(8, &[0, 0])),
            // A certificate is cut into two records.
            talk.server.seal(22, &message(11, &[9; 3000])[..2000]),
            talk.server.seal(22, &message(11, &[9; 3000])[2000..]),
            talk.server.seal(22, &[message(15, &[8; 300]), message(20, &[7; 32])].concat()),
        ];
        talk.raw(Sender::Server, &flight.concat());
        let finished = [record(20, &[1]), talk.client.seal(22, &message(20, &[6; 32]))].concat();
        talk.raw(Sender::Client, &finished);
        talk.client = Writer { seq: talk.client.seq, ..Writer::tls13(suite, &client, 0) };
        talk.server = Writer { seq: talk.server.seq, ..Writer::tls13(suite, &server, 0) };
        let tickets = [(); 2].map(|()| talk.server.seal(22, &message(4, &[5; 200])));
        talk.raw(Sender::Server, &tickets.concat());
        talk
    }

    /// A connection of TLS 1.3 that has sent records before.
    pub fn middle(suite: Suite, client_number: u64, server_number: u64) -> Self {
        let (client, server) = (secret_of(suite, 1), secret_of(suite, 2));
        let (client_writer, server_writer) =
            (Writer::tls13(suite, &client, client_number), Writer::tls13(suite, &server, server_number));
        Self {
            keys: vec![client_writer.keys.clone(), server_writer.keys.clone()],
            client: Writer { seq: u32::MAX - 700, ..client_writer },
            server: Writer { seq: 5, ..server_writer },
            secrets: Secrets {
                client_traffic: some(&client),
                server_traffic: some(&server),
                ..Secrets::default()
            },
            chunks: vec![],
            said: vec![],
        }
    }

    /// A handshake of TLS 1.2.
    pub fn tls12(suite: Suite) -> Self {
        let master = [0x3a; 48];
        let (client, server) = secret::tls12_keys(&master, &CLIENT_RANDOM, &SERVER_RANDOM, suite).unwrap();
        let mut talk = Self {
            keys: vec![client.clone(), server.clone()],
            client: Writer { seq: u32::MAX - 700, ..Writer::tls12(suite, client, 0, 0x0123_4567_89ab_cdef) },
            server: Writer { seq: 5, ..Writer::tls12(suite, server, 0, 0) },
            secrets: Secrets { master: some(&master), ..Secrets::default() },
            chunks: vec![],
            said: vec![],
        };
        if suite == ENCRYPT_THEN_MAC {
            talk.client.encrypt_then_mac = true;
            talk.server.encrypt_then_mac = true;
        }
        talk.raw(Sender::Client, &client_hello(100));
        let hello = server_hello(Version::Tls12, suite, &SERVER_RANDOM);
        let rest = [message(11, &[9; 3000]), message(12, &[1; 200]), message(14, &[])].concat();
        // Messages over the ends of records, and several in one.
        let flight = [hello, record(22, &rest[..1000]), record(22, &rest[1000..])];
        talk.raw(Sender::Server, &flight.concat());
        for from in BOTH {
            let finished = talk.writer(from).seal(22, &message(20, &[6; 12]));
            let key_exchange =
                if from == Sender::Client { record(22, &message(16, &[1; 65])) } else { vec![] };
            talk.raw(from, &[key_exchange, record(20, &[1]), finished].concat());
        }
        talk
    }

    /// A connection of TLS 1.2 that has sent records before. The client counts from elsewhere, as
    /// OpenSSL does.
    pub fn middle12(suite: Suite, client_number: u64, server_number: u64) -> Self {
        let mut talk = Self::tls12(suite);
        talk.chunks.clear();
        talk.client = Writer { seq: u32::MAX - 700, number: client_number, ..talk.client };
        talk.server = Writer { seq: 5, number: server_number, ..talk.server };
        talk
    }

    pub fn writer(&mut self, from: Sender) -> &mut Writer {
        match from {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, from: Sender, bytes: &[u8]) {
        let writer = self.writer(from);
        let seq = writer.seq;
        writer.seq = seq.wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.chunks.push(Chunk { from, seq, bytes: bytes.to_vec() });
    }

    /// Says something in one record.
    pub fn say(&mut self, from: Sender, plain: &[u8]) {
        let seq = self.writer(from).seq;
        let bytes = self.writer(from).seal(23, plain);
        self.raw(from, &bytes);
        if !plain.is_empty() {
            self.said.push((from, seq, plain.to_vec()));
        }
    }

    pub fn key_update(&mut self, from: Sender) {
        let update = self.writer(from).seal(22, &message(24, &[0]));
        self.raw(from, &update);
        self.writer(from).update();
        let keys = self.writer(from).keys.clone();
        self.keys.push(keys);
    }

    /// Requests and responses of many sizes.
    pub fn exchanges(&mut self, random: &mut Random, number: u64) {
        for _ in 0..number {
            for from in BOTH {
                for _ in 0..1 + random.below(3) {
                    let len = match random.below(6) {
                        0 => 0,
                        1 => 1 << 14,
                        2 => random.below(5000),
                        _ => random.below(200),
                    };
                    let plain = random.bytes(len as usize);
                    self.say(from, &plain);
                }
            }
        }
    }
}

/// What a session gives.
#[derive(Default)]
pub struct Heard {
    pub said: Vec<(Sender, u32, Vec<u8>)>,
    pub times: Vec<u64>,
    pub gaps: Vec<(Sender, u64, bool)>,
}

impl Heard {
    pub fn take(&mut self, from: Sender, plain: Plain<'_>) {
        match plain {
            Plain::Data { seq, bytes, time_ns } => {
                self.said.push((from, seq, bytes.to_vec()));
                self.times.push(time_ns);
            }
            Plain::Gap { bytes, exact } => self.gaps.push((from, bytes, exact)),
        }
    }
}

/// Looks for a key as a search of memory does, and gives it to the session.
pub fn search(session: &mut Session, keys: &[Keys], heard: &mut Heard) -> usize {
    let found = find(&session.samples(), keys);
    let mut take = |key| session.take_key(key, &mut |from, plain| heard.take(from, plain));
    found.into_iter().map(|key| usize::from(take(key))).sum()
}

/// What a search finds.
pub fn find(samples: &Samples, keys: &[Keys]) -> Vec<FoundKey> {
    let of = |sender, samples: &[Sample]| {
        samples.iter().find_map(|sample| keys.iter().find_map(|keys| found(sender, sample, keys)))
    };
    of(Sender::Client, &samples.client).into_iter().chain(of(Sender::Server, &samples.server)).collect()
}

fn found(sender: Sender, sample: &Sample, keys: &Keys) -> Option<FoundKey> {
    let key = aes_key(keys);
    let proof = key.opens(sample, 10_000)?;
    let (version, nonce, number) = (proof.version, proof.nonce, proof.number);
    Some(FoundKey { sender, seq: sample.seq, version, key, nonce, number })
}
