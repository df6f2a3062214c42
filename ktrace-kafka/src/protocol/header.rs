//! Request and response headers (`RequestHeader.json`, `ResponseHeader.json`).

use super::api::{Api, key};
use super::reader::{ParseError, Reader, Result};
use crate::counters::NotKafka;

/// The largest request that a broker takes by default (`socket.request.max.bytes`), and a sane
/// bound of responses.
pub const MAX_FRAME_BYTES: u32 = 100 * 1024 * 1024;

/// The longest client id that is kept: Kafka's own limit is that of an int16 length, but a
/// connection holds one for as long as it lives.
const MAX_CLIENT_ID_BYTES: usize = 1024;

/// A request's header, and where its body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API's number.
    pub api_key: i16,
    /// The API's version.
    pub version: i16,
    /// The number that the client gave the request.
    pub correlation_id: i32,
    /// The name that the client gives itself; `None` if it has none, or none of text.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a request (without its size prefix); gives the body's bytes too.
    ///
    /// Of an unknown API only the first three fields are read: from where on its header is flexible
    /// is not known.
    pub fn read(frame: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut reader = Reader::new(frame, false);
        let api_key = reader.i16("api key")?;
        let version = reader.i16("api version")?;
        let correlation_id = reader.i32("correlation id")?;
        let mut header = Self { api_key, version, correlation_id, client_id: None };
        if api_key < 0 || version < 0 {
            return Err(ParseError::Malformed("api key"));
        }
        let Some(api) = Api::of(api_key) else { return Ok((header, &[])) };
        // ControlledShutdown v0 alone has no client id.
        if api_key == 7 && version == 0 {
            return Ok((header, reader.left()));
        }
        // A broker takes any bytes; those that are no text are shown as no id.
        header.client_id = reader
            .nullable_string_bytes("client id")?
            .filter(|id| id.len() <= MAX_CLIENT_ID_BYTES)
            .and_then(|id| std::str::from_utf8(id).ok());
        // How a version to come goes on is not known.
        if !api.is_flexible(version) || api.check(version).is_err() {
            return Ok((header, reader.left()));
        }
        let mut reader = Reader::new(reader.left(), true);
        reader.skip_tagged_fields()?;
        Ok((header, reader.left()))
    }

    /// Whether bytes (with their size prefix) may be the head of a request, judged by the header
    /// alone: a known API, a released version, a client id of printable text. Used to find a frame
    /// boundary in the middle of a stream.
    #[must_use]
    pub fn is_plausible(bytes: &[u8]) -> bool {
        Self::may_be(bytes, 0, |byte| (0x20..0x7f).contains(&byte) || byte >= 0x80)
    }

    /// The same for the first bytes of a connection, where a boundary is: versions to come and odd
    /// client ids are let through, as other protocols differ in less. Fewer bytes are judged as far
    /// as they go.
    #[must_use]
    pub(crate) fn may_begin(bytes: &[u8]) -> Begins {
        let no = |reason| Begins::No(reason);
        let Some((start, rest)) = bytes.split_first_chunk::<8>() else { return Begins::Perhaps };
        let Some((size, _)) = Self::head(start, VERSIONS_TO_COME) else { return no(NotKafka::NoRequest) };
        if size < 8 {
            return no(NotKafka::NoRequest);
        }
        if size > MAX_FRAME_BYTES {
            return no(NotKafka::Size);
        }
        if bytes.len() < PLAUSIBLE_BYTES || Self::may_be(bytes, VERSIONS_TO_COME, |byte| byte != 0) {
            return Begins::Perhaps;
        }
        let id_bytes = rest.get(4..).and_then(<[u8]>::first_chunk).map(|len| i16::from_be_bytes(*len));
        match id_bytes.map(u32::try_from) {
            Some(Ok(len))
                if len.saturating_add(10) <= size && size <= len.saturating_add(MAX_FIRST_BODY_BYTES) =>
            {
                Begins::Oddly
            }
            _ => no(NotKafka::NoRequest),
        }
    }

    /// Whether the client id of a whole frame, without its size prefix, is one that only its body
    /// can make believable.
    #[must_use]
    pub(crate) fn is_odd(frame: &[u8]) -> bool {
        let mut reader = Reader::new(frame.get(8..).unwrap_or_default(), false);
        let id = reader.nullable_string_bytes("client id");
        id.is_ok_and(|id| id.is_some_and(|id| id.len() > MAX_CLIENT_ID_BYTES || id.contains(&0)))
    }

    /// The size and the API of a head, by its size, key and version.
    #[inline]
    fn may_start(start: &[u8; 8], versions_to_come: i16) -> Option<(u32, &'static Api)> {
        // A cheap refusal first: most positions of random data end here.
        if start[0] > 6 {
            return None;
        }
        Self::head(start, versions_to_come).filter(|(size, _)| (8..=MAX_FRAME_BYTES).contains(size))
    }

    /// The same of any size.
    #[inline]
    fn head(start: &[u8; 8], versions_to_come: i16) -> Option<(u32, &'static Api)> {
        let &[s0, s1, s2, s3, k0, k1, v0, v1] = start;
        if k0 != 0 || v0 != 0 {
            return None;
        }
        let api = Api::of(i16::from(k1))?;
        let newest = api.newest.saturating_add(versions_to_come);
        (i16::from(v1) <= newest).then_some((u32::from_be_bytes([s0, s1, s2, s3]), api))
    }

    #[inline]
    fn may_be(bytes: &[u8], versions_to_come: i16, is_text: impl Fn(u8) -> bool) -> bool {
        let Some((start, rest)) = bytes.split_first_chunk::<8>() else { return false };
        let Some((size, api)) = Self::may_start(start, versions_to_come) else { return false };
        if api.key == 7 && start.ends_with(&[0]) {
            return size == 8;
        }
        let mut reader = Reader::new(rest, false);
        // Any: clients let it wrap into the negative.
        if reader.i32("correlation id").is_err() {
            return false;
        }
        match reader.i16("client id").map(usize::try_from) {
            Ok(Ok(len)) => {
                len <= MAX_CLIENT_ID_BYTES
                    && u32::try_from(len).is_ok_and(|len| len.saturating_add(10) <= size)
                    // A cut client id is judged by what is there of it.
                    && reader.left().iter().take(len).all(|byte| is_text(*byte))
            }
            Ok(Err(_)) => rest.get(4..6) == Some(&[0xff, 0xff]) && size >= 10,
            Err(_) => false,
        }
    }
}

/// What the first bytes of a connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// A request, as far as they go.
    Perhaps,
    /// A request of a client id that no client has by default: its body decides.
    Oddly,
    /// No request.
    No(NotKafka),
}

/// Clients begin with short requests: ApiVersions, SaslHandshake, or Metadata with its topics.
const MAX_FIRST_BODY_BYTES: u32 = 1 << 20;

/// How far beyond the table a version may be at a connection's beginning: Kafka adds one or two a
/// year.
const VERSIONS_TO_COME: i16 = 16;

/// Reads a response's correlation id (of a frame without its size prefix).
pub fn correlation_id(frame: &[u8]) -> Result<i32> {
    Reader::new(frame, false).i32("correlation id")
}

/// The body of a response to a request of this API and version.
pub fn response_body<'a>(frame: &'a [u8], api: &Api, version: i16) -> Result<Reader<'a>> {
    let mut reader = Reader::new(frame, api.response_header_is_flexible(version));
    reader.i32("correlation id")?;
    reader.skip_tagged_fields()?;
    // An ApiVersions response may be flexible though its header is not.
    Ok(Reader::new(reader.left(), api.is_flexible(version)))
}

/// How many bytes of a request, size prefix included, are enough for
/// [`RequestHeader::is_plausible`].
pub const PLAUSIBLE_BYTES: usize = 14;

/// Whether a produce request waits for a response; `None` where that is not known.
#[must_use]
pub fn produce_acks(version: i16, body: &[u8]) -> Option<i16> {
    let api = Api::of(key::PRODUCE)?;
    // How the header of a version to come ends is not known, so neither is where its body begins.
    api.check(version).ok()?;
    let mut reader = Reader::new(body, api.is_flexible(version));
    if version >= 3 {
        reader.nullable_string("transactional id").ok()?;
    }
    reader.i16("acks").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: i16, version: i16, client: Option<&str>, body: &[u8]) -> Vec<u8> {
        let mut rest = vec![];
        rest.extend(key.to_be_bytes());
        rest.extend(version.to_be_bytes());
        rest.extend(7_i32.to_be_bytes());
        rest.extend(client.map_or(-1, |text| text.len() as i16).to_be_bytes());
        rest.extend(client.unwrap_or("").as_bytes());
        rest.extend(body);
        let mut frame = (rest.len() as u32).to_be_bytes().to_vec();
        frame.extend(rest);
        frame
    }

    #[test]
    fn headers_of_both_kinds() {
        let bytes = frame(3, 8, Some("me"), b"body");
        let (header, body) = RequestHeader::read(&bytes[4..]).unwrap();
        assert_eq!((header.client_id, header.correlation_id, body), (Some("me"), 7, &b"body"[..]));
        let bytes = frame(3, 9, None, b"\0body");
        let (header, body) = RequestHeader::read(&bytes[4..]).unwrap();
        assert_eq!((header.client_id, body), (None, &b"body"[..]));
    }

    #[test]
    fn a_client_id_that_is_no_text_is_none() {
        let mut bytes = frame(3, 8, Some("be"), b"body");
        bytes[15] = 0xfc;
        let (header, body) = RequestHeader::read(&bytes[4..]).unwrap();
        assert_eq!((header.client_id, header.correlation_id, body), (None, 7, &b"body"[..]));
    }

    #[test]
    fn acks_of_a_version_to_come_are_not_known() {
        // No tagged fields, no transactional id, acks=1.
        let bytes = frame(0, 14, Some("me"), &[0, 0, 0, 1]);
        let (_, body) = RequestHeader::read(&bytes[4..]).unwrap();
        assert_eq!(produce_acks(14, body), None);
        let bytes = frame(0, 13, Some("me"), &[0, 0, 0, 1]);
        let (_, body) = RequestHeader::read(&bytes[4..]).unwrap();
        assert_eq!(produce_acks(13, body), Some(1));
    }

    #[test]
    fn plausible_heads() {
        let no = Begins::No(NotKafka::NoRequest);
        assert!(RequestHeader::is_plausible(&frame(18, 4, Some("rdkafka"), b"\0\0")));
        assert!(RequestHeader::is_plausible(&frame(3, 1, None, b"")));
        let mut wrapped = frame(3, 1, None, b"");
        wrapped[8..12].copy_from_slice(&(-5_i32).to_be_bytes());
        assert!(RequestHeader::is_plausible(&wrapped), "a correlation id that has wrapped");
        assert!(RequestHeader::is_plausible(&frame(3, 1, Some(""), b"")));
        assert!(!RequestHeader::is_plausible(&frame(3, 20, Some("x"), b"")), "no such version");
        assert_eq!(
            RequestHeader::may_begin(&frame(3, 20, Some("x"), b"")),
            Begins::Perhaps,
            "but one to come"
        );
        assert_eq!(RequestHeader::may_begin(&frame(3, 44, Some("x"), b"")), no);
        assert_eq!(RequestHeader::may_begin(&frame(3, 1, Some("x"), b"")[..9]), Begins::Perhaps);
        assert_eq!(
            RequestHeader::may_begin(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]),
            no,
            "PostgreSQL's SSLRequest"
        );
        assert_eq!(RequestHeader::may_begin(&frame(3, 1, Some("a\x01b"), b"")), Begins::Perhaps);
        assert_eq!(RequestHeader::may_begin(&frame(3, 1, Some("a\0b"), b"")), Begins::Oddly);
        assert_eq!(
            RequestHeader::may_begin(&frame(3, 1, Some(&"x".repeat(i16::MAX as usize)), b"")),
            Begins::Oddly
        );
        assert!(RequestHeader::is_odd(&frame(3, 1, Some("a\0b"), b"")[4..]));
        assert!(!RequestHeader::is_odd(&frame(3, 1, None, b"")[4..]));
        let mut large = frame(3, 1, Some("x"), b"");
        large[0] = 0x20;
        assert_eq!(RequestHeader::may_begin(&large), Begins::No(NotKafka::Size));
        assert!(!RequestHeader::is_plausible(&frame(300, 1, Some("x"), b"")), "no such API");
        assert!(!RequestHeader::is_plausible(&frame(3, 1, Some("a\x01b"), b"")), "not a text");
        assert!(!RequestHeader::is_plausible(b"GET / HTTP/1.1\r\nHost: x\r\n"));
        assert!(!RequestHeader::is_plausible(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4]), "TLS");
    }
}
