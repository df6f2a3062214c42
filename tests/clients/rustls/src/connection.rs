//! One connection to a broker: TLS, who it is, and requests of which each has its answer before the
//! next.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::{
    Decodable as _, HeaderVersion as _, Request, StrBytes, encode_request_header_into_buffer,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as provider;

use crate::options::Options;

pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    client_id: String,
    correlation: i32,
}

impl Connection {
    pub fn open(options: &Options) -> Result<Self, Box<dyn Error>> {
        let bootstrap = options.get("bootstrap");
        let (host, _) = bootstrap.split_once(':').ok_or("--bootstrap takes HOST:PORT")?;
        let tcp = TcpStream::connect(bootstrap)?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        let tls = ClientConnection::new(Arc::new(config(options)?), name)?;
        let mut connection = Self {
            stream: StreamOwned::new(tls, tcp),
            client_id: options.get("client-id").into(),
            correlation: 0,
        };
        let mut versions = ApiVersionsRequest::default();
        versions.client_software_name = StrBytes::from_static_str("ktrace-test-rustls");
        versions.client_software_version = StrBytes::from_static_str("0");
        connection.request(3, &versions)?;
        connection.authenticate(options.get("sasl"))?;
        Ok(connection)
    }

    /// By `MECHANISM:USER:PASSWORD`; of the mechanisms PLAIN alone.
    fn authenticate(&mut self, sasl: &str) -> Result<(), Box<dyn Error>> {
        if sasl.is_empty() {
            return Ok(());
        }
        let mut parts = sasl.splitn(3, ':');
        let (Some("PLAIN"), Some(user), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("--sasl takes PLAIN:USER:PASSWORD".into());
        };
        let mut handshake = SaslHandshakeRequest::default();
        handshake.mechanism = StrBytes::from_static_str("PLAIN");
        self.request(1, &handshake)?;
        let mut authenticate = SaslAuthenticateRequest::default();
        authenticate.auth_bytes = Bytes::from(format!("\0{user}\0{password}"));
        let answer = self.request(2, &authenticate)?;
        if answer.error_code == 0 { Ok(()) } else { Err(format!("{answer:?}").into()) }
    }

    /// The numbers of a topic's partitions.
    pub fn partitions(&mut self, topic: &str) -> Result<Vec<i32>, Box<dyn Error>> {
        let mut request = MetadataRequest::default();
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        request.topics = Some(vec![MetadataRequestTopic::default().with_name(Some(name))]);
        let answer = self.request(12, &request)?;
        let of_topic = answer.topics.first().filter(|topic| topic.error_code == 0);
        let partitions = &of_topic.ok_or_else(|| format!("no topic {topic}: {answer:?}"))?.partitions;
        let mut numbers: Vec<i32> = partitions.iter().map(|partition| partition.partition_index).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub fn request<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Box<dyn Error>> {
        self.correlation += 1;
        let mut header = RequestHeader::default();
        header.request_api_key = R::KEY;
        header.request_api_version = version;
        header.correlation_id = self.correlation;
        header.client_id = Some(StrBytes::from_string(self.client_id.clone()));
        let mut body = BytesMut::new();
        encode_request_header_into_buffer(&mut body, &header)?;
        request.encode(&mut body, version)?;
        let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame)?;
        self.stream.flush()?;

        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        let mut body = Bytes::from(body);
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version))?;
        if header.correlation_id != self.correlation {
            return Err(
                format!("{} is answered instead of {}", header.correlation_id, self.correlation).into()
            );
        }
        Ok(R::Response::decode(&mut body, version)?)
    }
}

/// TLS 1.3 or 1.2, whichever the broker has.
fn config(options: &Options) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(options.get("ca"))?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let identity = options.get("identity");
    if identity.is_empty() {
        return Ok(config.with_no_client_auth());
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(identity)?.collect::<Result<_, _>>()?;
    Ok(config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(identity)?)?)
}
