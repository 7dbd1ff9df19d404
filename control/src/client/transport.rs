//! A connection to a control, over which hyper speaks HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ClientError;
use super::target::{Target, Where};
use crate::tls::client::{ClientIdentity, Trust, config};

/// How long connecting and shaking hands may take. Too low: another continent counts as gone; too high: a
/// host that drops packets holds scripts up.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What connections are made with.
pub struct Transport {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
}

impl Transport {
    /// Reads the certificate, where TLS is spoken.
    pub fn open(place: &Where) -> Result<Self, ClientError> {
        let tls = match (&place.target, &place.identity) {
            (Target::Tls(_), Some(folder)) => {
                let usage = |error: crate::tls::TlsError| ClientError::Usage(error.to_string());
                let identity = ClientIdentity::open(&folder.join("identity.pem")).map_err(usage)?;
                let authority = folder.join("ca.pem");
                let trust = Trust::Authority(&authority);
                Some(config(trust, Some(Arc::new(identity))).map_err(usage)?)
            }
            _ => None,
        };
        Ok(Self { target: place.target.clone(), tls })
    }

    /// Connects anew.
    pub async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        match tokio::time::timeout(CONNECT, self.shake_hands()).await {
            Ok(result) => result,
            Err(_) => Err(self.gone(format!("no connection within {} s", CONNECT.as_secs()))),
        }
    }

    async fn shake_hands(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let io = |error: std::io::Error| self.gone(error.to_string());
        match &self.target {
            Target::Socket(path) => {
                self.speak(tokio::net::UnixStream::connect(path).await.map_err(io)?).await
            }
            Target::Loopback(address) => self.speak(dial(address).await.map_err(io)?).await,
            Target::Tls(address) => {
                let config = self.tls.clone().ok_or_else(|| {
                    ClientError::Usage(format!("{address}: there is no certificate to show"))
                })?;
                let name = self.host().to_owned();
                let name = ServerName::try_from(name)
                    .map_err(|error| ClientError::Usage(format!("{address}: {error}")))?;
                let stream = dial(address).await.map_err(io)?;
                let connector = tokio_rustls::TlsConnector::from(config);
                self.speak(connector.connect(name, stream).await.map_err(io)?).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.gone(error.to_string()))?;
        // Its end is seen by whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    /// The name or address that certificate and `Host` are about.
    pub fn host(&self) -> &str {
        let address = match &self.target {
            Target::Socket(_) => return "localhost",
            Target::Loopback(address) | Target::Tls(address) => address,
        };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    fn gone(&self, reason: String) -> ClientError {
        ClientError::Unreachable { target: self.target.to_string(), reason }
    }
}

/// A connection whose small writes leave at once: a request behind the end of a handshake would wait 40 ms for
/// the other side's delayed acknowledgement.
async fn dial(address: impl tokio::net::ToSocketAddrs) -> std::io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
