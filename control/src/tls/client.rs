//! Our side of a connection to a control: a certificate that can be exchanged while connections are open,
//! and one request at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use super::authority::fingerprint;
use super::{TlsError, pem, provider};
use crate::secret::read_private;

/// The longest that connecting, writing or reading may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer. Too low: a chain of certificates does not fit; too high: a liar fills our memory.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Our certificate and key, in one file, which may be replaced at any time.
#[derive(Debug)]
pub struct ClientIdentity {
    path: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl ClientIdentity {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, TlsError> {
        Ok(Self { path: path.into(), current: ArcSwap::from_pointee(read(path)?) })
    }

    /// Reads it again: connections from now on present what is there now.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.path)?));
        Ok(())
    }
}

fn read(path: &Path) -> Result<CertifiedKey, TlsError> {
    let secret = read_private(path)?;
    let chain = pem::certificates_in(path, secret.expose())?;
    Ok(CertifiedKey::from_der(chain, pem::key(&secret)?, &provider())?)
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whom we take for the control.
pub enum Trust<'a> {
    /// Whoever has a certificate of an authority in this file.
    Authority(&'a Path),
    /// Whoever has one of the authority with this fingerprint, which it presents.
    Fingerprint([u8; 32]),
}

/// How to connect: TLS 1.3 alone, with our certificate if there is one.
pub fn config(
    trust: Trust<'_>,
    identity: Option<Arc<ClientIdentity>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match trust {
        Trust::Authority(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem::certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Fingerprint(print) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned(print)))
        }
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes a chain that holds the authority of a fingerprint, and is valid under that one.
#[derive(Debug)]
struct Pinned([u8; 32]);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|der| fingerprint(der) == self.0);
        let authority = authority.ok_or_else(|| {
            rustls::Error::General("the server is not of the authority that the token names".into())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An open connection.
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    host: String,
}

impl Connection {
    /// Connects to `HOST:PORT` and shakes hands.
    pub fn open(target: &str, config: Arc<ClientConfig>) -> Result<Self, TlsError> {
        let wrong = |reason: String| TlsError::Refused(format!("{target}: {reason}"));
        let (host, _) = target.rsplit_once(':').ok_or_else(|| wrong("no HOST:PORT".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|error| wrong(error.to_string()))?;
        let connected = std::net::ToSocketAddrs::to_socket_addrs(target).and_then(|mut found| {
            let address = found.next().ok_or(std::io::ErrorKind::NotFound)?;
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            // A request behind the end of the handshake would wait for the acknowledgement of that.
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let tcp = connected.map_err(|error| wrong(error.to_string()))?;
        let tls = ClientConnection::new(config, name)?;
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Self { stream, host })
    }

    /// The certificate that the other side showed.
    pub fn server_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.stream.conn.peer_certificates()?.first()
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<rustls::ProtocolVersion> {
        self.stream.conn.protocol_version()
    }

    /// The key exchange that was agreed on.
    pub fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        Some(self.stream.conn.negotiated_key_exchange_group()?.name())
    }

    /// Sends a request and reads the answer: status and body.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), TlsError> {
        let host = self.host.clone();
        let wrong = |reason: String| TlsError::Refused(format!("{host}: {reason}"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = self.stream.write_all(request.as_bytes());
        let sent =
            sent.and_then(|()| self.stream.write_all(body)).and_then(|()| self.stream.flush());
        sent.map_err(|error| wrong(error.to_string()))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(|error| wrong(error.to_string()))?;
            head.push(byte[0]);
            if head.len() > 16 * 1024 {
                return Err(wrong("the answer's head does not end".into()));
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| wrong("this is no HTTP".into()))?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if length > ANSWER_BYTES_MAX {
            return Err(wrong(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).map_err(|error| wrong(error.to_string()))?;
        Ok((status, answer))
    }
}
