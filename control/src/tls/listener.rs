//! The three listeners: TLS, plain on loopback, and a socket in the file system. Each says of every
//! connection who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::{ServerTls, subject_of};
use crate::audit::{Actor, Auditor, Entry, Outcome};
use crate::peer::{Peer, Proof, uid_of};

/// The longest a handshake may take. Too low: a slow link is refused; too high: silent peers fill the
/// places below.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes at once. Too low: a burst waits; too high: silent peers hold memory.
const HANDSHAKES_MAX: usize = 256;

/// Failed handshakes recorded in a second; more are counted into the next record. Too low: an attack
/// reads as a few attempts; too high: strangers fill the disk.
const RECORDED_MAX: u32 = 10;

/// After an error of `accept`, such as no descriptor being left.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Connections with TLS.
pub struct TlsListener {
    tcp: TcpListener,
    tls: Arc<ServerTls>,
    refusals: Arc<Refusals>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, Peer)>>,
}

impl TlsListener {
    /// Takes connections of `tcp` with what `tls` holds at that moment.
    pub fn new(tcp: TcpListener, tls: Arc<ServerTls>, auditor: Option<Auditor>) -> Self {
        let second = Mutex::new((Instant::now(), 0, 0));
        let refusals = Arc::new(Refusals { auditor, second });
        Self { tcp, tls, refusals, handshakes: JoinSet::new() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    let Ok((stream, address)) = accepted else {
                        tokio::time::sleep(AFTER_ERROR).await;
                        continue;
                    };
                    at_once(&stream);
                    let acceptor = TlsAcceptor::from(self.tls.config());
                    let refusals = Arc::clone(&self.refusals);
                    self.handshakes.spawn(shake(acceptor, stream, address, refusals));
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.tcp.local_addr().map(here)
    }
}

/// Small writes leave at once: behind Nagle's algorithm the second of them waits for the other side's delayed
/// acknowledgement, 40 ms on Linux. A refusal costs that wait and nothing else.
fn at_once(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    refusals: Arc<Refusals>,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let address = address.to_string();
    let reason = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let proof = match subject_of(stream.get_ref().1) {
                Some(Ok(subject)) => Proof::Certificate(subject),
                Some(Err(reason)) => Proof::Nothing(reason),
                None => Proof::Nothing("no certificate".into()),
            };
            return Some((stream, Peer { address, proof }));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no handshake within {} s", HANDSHAKE.as_secs()),
    };
    refusals.record(address, reason).await;
    None
}

/// What is recorded of handshakes that failed.
struct Refusals {
    auditor: Option<Auditor>,
    /// When this second began, what was recorded in it, what was not since the last record.
    second: Mutex<(Instant, u32, u64)>,
}

impl Refusals {
    async fn record(&self, address: String, reason: String) {
        let (Some(auditor), Some(unrecorded)) = (&self.auditor, self.place()) else { return };
        let more = match unrecorded {
            0 => String::new(),
            count => format!("; {count} more were refused and not recorded one by one"),
        };
        let entry = Entry {
            actor: Actor { kind: "unknown", address, ..Actor::default() },
            verb: "connect".into(),
            object: "tls".into(),
            outcome: Outcome::Denied,
            request_id: String::new(),
            reason: reason + &more,
        };
        // It stays refused either way; the trail says itself what it could not take.
        let _ = auditor.record(entry).await;
    }

    /// Whether there is room in this second, and how many had none before.
    fn place(&self) -> Option<u64> {
        let mut second = self.second.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (began, recorded, unrecorded) = &mut *second;
        if began.elapsed() >= Duration::from_secs(1) {
            (*began, *recorded) = (Instant::now(), 0);
        }
        if *recorded >= RECORDED_MAX {
            *unrecorded += 1;
            return None;
        }
        *recorded += 1;
        Some(std::mem::take(unrecorded))
    }
}

/// Connections over loopback without TLS; the kernel says whose they are.
pub struct PlainListener(pub TcpListener);

impl Listener for PlainListener {
    type Io = TcpStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (TcpStream, Peer) {
        loop {
            let Ok((stream, address)) = self.0.accept().await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            at_once(&stream);
            let uid = stream.local_addr().ok().and_then(|ours| uid_of(address, ours));
            let unknown = || Proof::Nothing("the user of this connection is not known".into());
            let proof = uid.map_or_else(unknown, Proof::Uid);
            return (stream, Peer { address: address.to_string(), proof });
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.0.local_addr().map(here)
    }
}

/// Connections through a socket in the file system; the kernel says whose they are.
pub struct LocalListener(pub UnixListener);

impl Listener for LocalListener {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            let proof = match stream.peer_cred() {
                Ok(credentials) => Proof::Uid(credentials.uid()),
                Err(error) => Proof::Nothing(error.to_string()),
            };
            return (stream, Peer { address: "local".into(), proof });
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: "local".into(), proof: Proof::Nothing("ourselves".into()) })
    }
}

fn here(address: SocketAddr) -> Peer {
    Peer { address: address.to_string(), proof: Proof::Nothing("ourselves".into()) }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Connected<IncomingStream<'_, PlainListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PlainListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Connected<IncomingStream<'_, LocalListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, LocalListener>) -> Self {
        stream.remote_addr().clone()
    }
}
