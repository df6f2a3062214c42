//! What refusals are taken for, and requests against servers of this process.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tonic_types::ErrorDetails;

use super::super::collector::{Collector, serve, serve_tls};
use super::super::endpoint::{OtlpOptions, TRACES};
use super::*;

/// Of `localhost`, signed by itself, for a hundred years; the key is in the tree, so it keeps
/// nothing secret.
const CERTIFICATE: &str = include_str!("localhost.pem");
const KEY: &str = include_str!("localhost.key.pem");

type Traces = Transport<ExportTraceServiceRequest, ExportTraceServiceResponse>;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn transport(url: &str, set: &[(&str, &str)]) -> Traces {
    let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = OtlpOptions { url: Some(url.to_owned()), environment };
    Traces::new(Endpoint::of(&TRACES, &options).unwrap())
}

fn request() -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::default()] }
}

/// As grpc-go and tonic say it.
#[test]
fn a_request_beyond_what_a_server_accepts_is_divided() {
    for status in [
        Status::resource_exhausted("grpc: received message larger than max (5000000 vs. 4194304)"),
        Status::out_of_range(
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
        ),
    ] {
        assert_eq!(of_status(&status).next, Next::Smaller, "{status}");
    }
}

#[test]
fn codes_are_retried_as_the_specification_has_it() {
    use Code::*;
    let retried =
        [Cancelled, DeadlineExceeded, ResourceExhausted, Aborted, OutOfRange, Unavailable, DataLoss];
    for code in (1..=16).map(Code::from) {
        let refusal = of_status(&Status::new(code, "as it wants"));
        let expected = if retried.contains(&code) { Next::Again(None) } else { Next::GiveUp };
        assert_eq!(refusal.next, expected, "{code:?}");
        assert_eq!(refusal.why, format!("{}: as it wants", name(code)));
    }
    let later = |seconds| {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
        of_status(&Status::with_error_details(ResourceExhausted, "full", details)).next
    };
    assert_eq!(later(30), Next::Again(Some(Duration::from_secs(30))));
    assert_eq!((later(0), later(1 << 40)), (Next::Again(None), Next::Again(Some(MAX_WAIT))));
}

#[test]
fn http_refusals_say_when_to_come_again_and_why() {
    let now = httpdate::parse_http_date("Sun, 29 Nov 2026 12:00:00 GMT").unwrap();
    let refused = |status: u16, after: Option<&str>, kind: &'static str, body: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.try_into().unwrap());
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, after.try_into().unwrap());
        }
        of_http(StatusCode::from_u16(status).unwrap(), &headers, body, now)
    };
    let again = |seconds| Next::Again(Some(Duration::from_secs(seconds)));
    for (status, after, next) in [
        (429, Some("7"), again(7)),
        (503, Some("Sun, 29 Nov 2026 12:01:30 GMT"), again(90)),
        (503, Some("Sun, 29 Nov 2026 11:00:00 GMT"), Next::Again(None)),
        (503, Some("99999999"), again(MAX_WAIT.as_secs())),
        (502, Some("soon"), Next::Again(None)),
        (504, None, Next::Again(None)),
        (400, Some("7"), Next::GiveUp),
        (401, None, Next::GiveUp),
        (404, None, Next::GiveUp),
        (413, None, Next::Smaller),
        (500, None, Next::GiveUp),
        (301, None, Next::GiveUp),
    ] {
        assert_eq!(refused(status, after, "text/plain", b"").next, next, "{status} {after:?}");
    }
    let status = tonic_types::Status { code: 8, message: "quota of spans".to_owned(), details: vec![] };
    for (kind, body, why) in [
        ("application/x-protobuf", &*status.encode_to_vec(), "HTTP 429 Too Many Requests: quota of spans"),
        ("application/json", br#"{"code":8,"message":"quota"}"#, "HTTP 429 Too Many Requests: quota"),
        (
            "text/plain; charset=utf-8",
            b"slow\x1b[2J down\nmore",
            "HTTP 429 Too Many Requests: slow\u{fffd}[2J down",
        ),
        ("text/html", b"<html>", "HTTP 429 Too Many Requests"),
        ("application/x-protobuf", b"\xff\xff", "HTTP 429 Too Many Requests"),
    ] {
        assert_eq!(refused(429, None, kind, body).why, why);
    }
}

#[test]
fn waits_grow_to_a_bound_and_are_never_shorter_than_asked_for() {
    let mut backoff = Backoff::default();
    let mut most = Backoff::FIRST;
    for _ in 0..20 {
        let wait = backoff.wait(None);
        assert!(wait <= most && wait >= most / 2, "{wait:?} of {most:?}");
        most = (most * 2).min(Backoff::MOST);
    }
    let asked = Duration::from_secs(60);
    let wait = backoff.wait(Some(asked));
    assert!(wait >= asked && wait <= asked + Backoff::MOST, "{wait:?}");
}

/// Head and body of a request.
type Got = (String, Vec<u8>);

/// Answers one connection's requests with these, and gives back what it got.
fn http_server(answers: Vec<Vec<u8>>) -> (SocketAddr, std::thread::JoinHandle<Vec<Got>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut reader, mut stream) = (BufReader::new(stream.try_clone().unwrap()), stream);
        let mut got = Vec::new();
        for answer in answers {
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            got.push((head.to_ascii_lowercase(), body));
            stream.write_all(&answer).unwrap();
        }
        got
    };
    (address, std::thread::spawn(serve))
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn http_carries_protobuf_and_json_with_headers_and_compression() {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "old".to_owned() };
    let taken = ExportTraceServiceResponse { partial_success: Some(partial) };
    let (address, server) = http_server(vec![
        answer("200 OK", &taken.encode_to_vec()),
        answer("503 Service Unavailable\r\nretry-after: 9", b"busy"),
    ]);
    let set =
        [("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let traces = transport(&format!("http://{address}"), &set);
    run(async {
        assert_eq!(traces.send(&request()).await, Ok(taken.clone()));
        let next = Next::Again(Some(Duration::from_secs(9)));
        let why = "HTTP 503 Service Unavailable: busy".to_owned();
        assert_eq!(traces.send(&request()).await, Err(Refusal { why, next, answered: true }));
    });
    let got = server.join().unwrap();
    let (head, body) = &got[0];
    assert!(head.starts_with("post /v1/traces ") && head.contains("api-key: a b\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf") && head.contains("user-agent: ktrace/"),
        "{head}"
    );
    assert_eq!(ExportTraceServiceRequest::decode(&**body).unwrap(), request());

    let json = serde_json::to_vec(&taken).unwrap();
    let (address, server) = http_server(vec![answer("200 OK", &json)]);
    let set = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
    let sent = run(transport(&format!("http://{address}"), &set).send(&request()));
    assert_eq!(sent, Ok(taken));
    let (head, body) = server.join().unwrap().remove(0);
    assert!(
        head.contains("content-encoding: gzip") && head.contains("content-type: application/json"),
        "{head}"
    );
    let decoded: serde_json::Value = serde_json::from_reader(flate2::read::GzDecoder::new(&*body)).unwrap();
    assert!(decoded["resourceSpans"].is_array(), "{decoded}");
}

#[test]
fn failures_of_connections_name_their_cause_and_may_pass() {
    // Bound and never listening: the connection is refused.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (plain, server) = http_server(vec![]);
    for (url, cause) in [
        (format!("http://{refused}"), "Connection refused"),
        (format!("https://{refused}"), "Connection refused"),
        ("http://nowhere.invalid:4317".to_owned(), "failed to lookup address information"),
        (format!("https://{plain}"), ""),
    ] {
        for protocol in ["grpc", "http/protobuf"] {
            let traces = transport(&url, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
            for end in run(async { [traces.probe().await.err(), traces.send(&request()).await.err()] }) {
                let refusal = end.expect("a failure");
                assert!(refusal.why.contains(cause) && !refusal.why.is_empty(), "{url}: {}", refusal.why);
                assert_eq!(refusal.next, Next::Again(None), "{url}");
            }
        }
    }
    drop(server);
}

#[test]
fn what_never_answers_ends_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let traces = transport(&url, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "50")]);
    let (probed, sent) = run(async { (traces.probe().await, traces.send(&request()).await) });
    assert_eq!((probed, sent.unwrap_err().why.as_str()), (Ok(()), "no answer within 50ms"));
}

#[test]
fn tls_works_over_both_with_an_authority_of_ones_own() {
    let collector = Collector::default();
    let address = serve_tls(collector.clone(), CERTIFICATE, KEY);
    let file = std::env::temp_dir().join(format!("ktrace-ca-{}.pem", std::process::id()));
    std::fs::write(&file, CERTIFICATE).unwrap();
    let url = format!("https://localhost:{}", address.port());
    let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.to_str().unwrap());
    run(async {
        let traces = transport(&url, &[authority]);
        assert_eq!((traces.probe().await, traces.send(&request()).await), (Ok(()), Ok(Default::default())));
        let stranger = transport(&url, &[]);
        let why = stranger.probe().await.unwrap_err().why;
        assert!(why.contains("certificate"), "{why}");
        // The server takes HTTP/2 alone, so that this gets as far as TLS goes.
        let http = transport(&url, &[authority, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]);
        assert_eq!(http.probe().await.map_err(|refusal| refusal.why), Ok(()));
    });
    assert_eq!(collector.spans.lock().unwrap().len(), 1);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn grpc_goes_out_compressed_with_its_headers() {
    let collector = Collector::default();
    let seen = Arc::clone(&collector.spans);
    let url = format!("http://{}", serve(collector));
    for compression in ["gzip", "zstd", "none"] {
        let traces = transport(&url, &[("OTEL_EXPORTER_OTLP_COMPRESSION", compression)]);
        assert_eq!(run(traces.send(&request())), Ok(Default::default()), "{compression}");
    }
    let seen: &Mutex<_> = &seen;
    assert_eq!(seen.lock().unwrap().len(), 3);
}
