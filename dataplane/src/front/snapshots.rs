//! The snapshot server: books of feeds that are given out again, for whoever comes late or has lost too much.
//!
//! ```text
//!   client logs in -> books wanted -> worker tells them, as they change -> shadow -> tape -> every client that
//!                       (request ring)        (answer ring)          end: as of S     waited for it
//! ```
//!
//! GLIMPSE over SoupBinTCP. A login is answered when the worker begins to tell: only then is a session known that
//! the books are of, and where they cannot be believed it is rejected. Who logs in until the books are whole shares
//! them; who comes later has them told again, for what he needs may not be older than his question. What was told
//! is void when its worker dies, when something of it may be lost, or when the worker says so; then the connections
//! are closed without an end of the snapshot.
//!
//! Owned by the front's loop. Sockets that do not block, looked at a bounded piece a turn; a new connection is
//! noticed within [`LOOK_NS`]. Books and tapes are made at start.

mod client;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::control_region::FRONT_PROCESS;
use nautilus_shm::front_region::SnapshotContent;
use nautilus_shm::kill_switch::KillSwitch;
use nautilus_shm::metrics::labels::{Label, ServedSnapshot};

use super::link::Heard;
use super::links::Links;
use crate::access::AccessList;
use crate::config::{Feed, NodeConfig};
use crate::feed::moldudp64::Session;
use crate::feed::republish::shadow::{Shadow, ShadowState, Writing};
use crate::feed::soupbintcp::{Credentials, LoginRequest, RejectReason};
use client::{Client, Stage};

/// Clients of one feed at once. Too low: receivers that start together wait. Too high: sockets to look at.
const CLIENTS_MAX: usize = 64;

/// Snapshots of one feed in memory: one that is being written, and one that slow clients still take.
const TAPES: usize = 2;

/// Between two looks for new connections.
const LOOK_NS: u64 = 100_000_000;

/// How long a worker may say nothing of the books that were asked for.
const SILENCE_NS: u64 = 5_000_000_000;

/// Steps of writing a snapshot down in one turn, each an order or a part of a stock.
const STEPS_A_TURN: usize = 8_192;

/// Bytes read from one client in a turn.
const READ_BYTES: usize = 1_024;

/// How a client ended.
type End = ServedSnapshot;

/// Where the books of a feed are.
enum Asked {
    /// Nobody wants them.
    Nothing,
    /// The worker is still to be told.
    Wanted,
    /// The worker was asked, and heard last at this time.
    Waiting { heard_ns: u64 },
    /// They are being written on this tape.
    Writing { tape: usize, writing: Writing },
}

/// A snapshot as it is sent, and how many clients take it.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    clients: usize,
}

/// The server of one feed.
struct Service {
    channel: u8,
    listen: SocketAddr,
    listener: Option<TcpListener>,
    user: String,
    password_file: PathBuf,
    access: AccessList,
    attempt: u64,
    asked: Asked,
    shadow: Shadow,
    tapes: [Tape; TAPES],
    clients: Vec<Client>,
}

/// All of them.
pub struct Snapshots {
    services: Vec<Service>,
    kill_switch: &'static KillSwitch,
    /// The turn of the switch that the region says this front obeys.
    obeyed_turn: u64,
    scratch: Box<[u8]>,
    now_ns: u64,
    looked_ns: u64,
    /// By how they ended.
    pub ended: [u64; End::ALL.len()],
}

impl Snapshots {
    /// Makes the servers of the node file; `generation` is the front's, greater than that of any before. What is to
    /// be said about it is added to `notes`.
    pub fn new(
        config: &NodeConfig,
        generation: u64,
        kill_switch: &'static KillSwitch,
        notes: &mut Vec<String>,
    ) -> Self {
        let services = config.feed.iter().filter_map(|feed| Service::new(feed, config, generation));
        let mut services: Vec<Service> = services.collect();
        for service in &mut services {
            if let Err(error) = service.open() {
                let listen = service.listen;
                notes
                    .push(format!("cannot listen on {listen} for snapshots, tried again: {error}"));
            }
        }
        Self {
            services,
            kill_switch,
            // One that never was: the first look says what holds.
            obeyed_turn: u64::MAX,
            scratch: vec![0; READ_BYTES].into(),
            now_ns: 0,
            looked_ns: 0,
            ended: [0; End::ALL.len()],
        }
    }

    /// Whether there is something to look at without being told.
    pub fn is_open(&self) -> bool {
        self.services.iter().any(|service| !service.clients.is_empty())
    }

    /// Takes in what a worker says.
    pub fn hear(&mut self, heard: &Heard<'_>) {
        let Self { services, now_ns, .. } = self;
        for service in services {
            service.hear(heard, *now_ns);
        }
    }

    /// Moves every client on; says whether there was one.
    pub fn turn(&mut self, now_ns: u64, links: &mut Links<'_>) -> bool {
        self.now_ns = now_ns;
        let (turn, is_halted) = (self.kill_switch.turn(), self.kill_switch.is_on());
        if is_halted {
            self.services.iter_mut().for_each(|service| service.halt(now_ns, &mut self.ended));
        }
        if turn != self.obeyed_turn {
            self.kill_switch.obey(FRONT_PROCESS, turn, now_ns);
            self.obeyed_turn = turn;
        }
        if self.services.is_empty() {
            return false;
        }
        let looks = now_ns.saturating_sub(self.looked_ns) >= LOOK_NS;
        if looks {
            self.looked_ns = now_ns;
        }
        for service in &mut self.services {
            if looks {
                service.look(now_ns, &mut self.ended);
            }
            match service.clients.is_empty() {
                true => {}
                false if is_halted => service.turn_away(now_ns, &mut self.scratch, &mut self.ended),
                false => service.turn(now_ns, links, &mut self.scratch, &mut self.ended),
            }
        }
        self.is_open()
    }
}

impl Service {
    fn new(feed: &Feed, config: &NodeConfig, generation: u64) -> Option<Self> {
        let snapshot = feed.republish.as_ref()?.snapshot.as_ref()?;
        let limits = feed.book_limits(nautilus_shm::clock::monotonic_ns());
        let tape = || {
            // Reserved, so that it never moves; a page of it is taken when it is written.
            let bytes = Vec::with_capacity(Shadow::snapshot_bytes_max(&limits));
            Tape { bytes, clients: 0 }
        };
        let listed = config.access.sources.iter();
        Some(Self {
            channel: feed.channel,
            listen: snapshot.listen,
            listener: None,
            user: snapshot.user.clone(),
            password_file: snapshot.password_file.clone(),
            access: AccessList::new(listed.map(|prefix| (*prefix, Permissions::ALL)).collect()),
            attempt: generation << 32,
            asked: Asked::Nothing,
            shadow: Shadow::new(limits),
            tapes: [tape(), tape()],
            clients: Vec::with_capacity(CLIENTS_MAX),
        })
    }

    fn open(&mut self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.listen)?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Takes new connections in.
    fn look(&mut self, now_ns: u64, ended: &mut [u64]) {
        if self.listener.is_none() {
            // The address may come to the host later.
            let _ = self.open();
        }
        let Some(listener) = &self.listener else { return };
        while let Ok((socket, peer)) = listener.accept() {
            let is_listed = self.access.permissions_of(peer.ip()) != Permissions::NONE;
            if !is_listed {
                ended[End::Source.index()] += 1;
            } else if self.clients.len() == CLIENTS_MAX {
                ended[End::Limit.index()] += 1;
            } else if socket.set_nonblocking(true).and(socket.set_nodelay(true)).is_ok() {
                self.clients.push(Client::new(socket, now_ns));
            } else {
                ended[End::Left.index()] += 1;
            }
        }
    }

    fn turn(&mut self, now_ns: u64, links: &mut Links<'_>, scratch: &mut [u8], ended: &mut [u64]) {
        self.move_clients(now_ns, scratch, ended);
        self.judge(now_ns);
        self.ask(now_ns, links);
        self.write(now_ns);
    }

    /// Nobody is given books while the kill switch is on: who waits to be let in is told that there are none, and a
    /// snapshot that was begun is cut off where it is, also where only the kernel has something of it left.
    fn halt(&mut self, now_ns: u64, ended: &mut [u64]) {
        self.shadow.forget();
        self.asked = Asked::Nothing;
        self.tapes.iter_mut().for_each(|tape| tape.clients = 0);
        self.clients.retain_mut(|client| {
            match client.stage {
                Stage::Login => return true,
                // It has all of a snapshot, but for what the kernel has not sent yet.
                Stage::Leaving { end: End::Sent, .. } => client.cut_off(),
                Stage::Leaving { .. } => return true,
                Stage::Knocking(_) | Stage::Asking(_) | Stage::Expecting(_) => {
                    client.reject(RejectReason::NoSession, End::Void, now_ns);
                    return true;
                }
                Stage::Joined | Stage::Taking { .. } => client.cut_off(),
            }
            ended[End::Void.index()] += 1;
            false
        });
    }

    /// Hears who comes while the kill switch is on, and lets nobody in: no worker is asked for books.
    fn turn_away(&mut self, now_ns: u64, scratch: &mut [u8], ended: &mut [u64]) {
        self.move_clients(now_ns, scratch, ended);
        self.judge(now_ns);
        self.halt(now_ns, ended);
    }

    fn move_clients(&mut self, now_ns: u64, scratch: &mut [u8], ended: &mut [u64]) {
        let Self { clients, tapes, .. } = self;
        clients.retain_mut(|client| {
            let taken = match client.stage {
                Stage::Taking { tape, .. } => Some(tape),
                _ => None,
            };
            let bytes = taken.map(|tape| &tapes[tape].bytes[..]);
            let end = client.turn(now_ns, scratch, bytes);
            let still_takes = end.is_none() && matches!(client.stage, Stage::Taking { .. });
            if let Some(tape) = taken.filter(|_| !still_takes) {
                tapes[tape].clients -= 1;
            }
            if let Some(end) = end {
                ended[end.index()] += 1;
            }
            end.is_none()
        });
    }

    /// Judges who wants in.
    fn judge(&mut self, now_ns: u64) {
        for index in 0..self.clients.len() {
            if let Stage::Knocking(request) = self.clients[index].stage {
                let is_admitted = self.admits(&request);
                let client = &mut self.clients[index];
                match is_admitted {
                    true => client.stage = Stage::Asking(request),
                    false => client.reject(RejectReason::NotAuthorized, End::Rejected, now_ns),
                }
            }
        }
    }

    /// A password that cannot be read admits nobody.
    fn admits(&self, request: &LoginRequest) -> bool {
        let password = std::fs::read_to_string(&self.password_file);
        password.is_ok_and(|password| {
            Credentials::new(&self.user, password.trim_end_matches(['\r', '\n']))
                .is_ok_and(|own| own.admits(&request.credentials))
        })
    }

    fn ask(&mut self, now_ns: u64, links: &mut Links<'_>) {
        let is_asking = |client: &Client| matches!(client.stage, Stage::Asking(_));
        if matches!(self.asked, Asked::Nothing) && self.clients.iter().any(is_asking) {
            self.attempt += 1;
            self.asked = Asked::Wanted;
        }
        match self.asked {
            Asked::Wanted if links.want_books(self.channel, self.attempt) => {
                self.asked = Asked::Waiting { heard_ns: now_ns };
                for client in &mut self.clients {
                    if let Stage::Asking(request) = client.stage {
                        client.stage = Stage::Expecting(request);
                    }
                }
            }
            Asked::Waiting { heard_ns } if now_ns.saturating_sub(heard_ns) >= SILENCE_NS => {
                self.fail(now_ns);
            }
            _ => {}
        }
    }

    fn hear(&mut self, heard: &Heard<'_>, now_ns: u64) {
        if !matches!(self.asked, Asked::Waiting { .. }) {
            return;
        }
        let piece = match heard {
            Heard::Books(piece) => piece,
            Heard::BooksLost => return self.fail(now_ns),
            Heard::Wanted(_) => return,
        };
        if (piece.channel, piece.attempt) != (self.channel, self.attempt) {
            return;
        }
        self.asked = Asked::Waiting { heard_ns: now_ns };
        if self.shadow.take(&piece.content).is_err() {
            return self.fail(now_ns);
        }
        if let SnapshotContent::Begin(session) = piece.content {
            // At once: all of it may have come together.
            self.clients.iter_mut().for_each(|client| client.admit(Session(session), now_ns));
        }
        if let SnapshotContent::End(_) = piece.content {
            // With both tapes in use the books wait; nobody changes them.
            self.asked = Asked::Writing { tape: TAPES, writing: Writing::default() };
        }
    }

    /// What was told is of no use: those who wait for it get nothing.
    fn fail(&mut self, now_ns: u64) {
        let has_begun = matches!(self.shadow.state(), ShadowState::Loading(_));
        self.shadow.forget();
        self.asked = Asked::Nothing;
        for client in &mut self.clients {
            match client.stage {
                Stage::Expecting(_) => {
                    let end = if has_begun { End::Void } else { End::NotExact };
                    client.reject(RejectReason::NoSession, end, now_ns);
                }
                Stage::Joined => client.leave(End::Void, now_ns),
                _ => {}
            }
        }
    }

    /// Writes some of the snapshot down, and gives it to all who wait when that is done.
    fn write(&mut self, now_ns: u64) {
        let Asked::Writing { tape, writing } = &mut self.asked else { return };
        if *tape == TAPES {
            let Some(free) = self.tapes.iter().position(|tape| tape.clients == 0) else { return };
            *tape = free;
            self.tapes[free].bytes.clear();
        }
        let number = *tape;
        if !self.shadow.write(writing, STEPS_A_TURN, &mut self.tapes[number].bytes) {
            return;
        }
        self.shadow.forget();
        self.asked = Asked::Nothing;
        let given =
            self.clients.iter_mut().filter_map(|client| client.give(number, now_ns).then_some(()));
        self.tapes[number].clients = given.count();
    }
}
