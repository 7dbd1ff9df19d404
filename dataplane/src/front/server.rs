//! The front's loop: completions, answers of the worker, connections, one system call.
//!
//! ```text
//!   enter -> completions -> answers of the worker -> connections touched: send, pause, close -> wake
//!     ^                                                                                           |
//!     +-------------------------------------------------------------------------------------------+
//! ```
//!
//! Completions are handled some at a time: the keys that they begin with are asked of memory together,
//! before any of it is waited for.
//!
//! One thread; it owns every connection. While commands are at the worker it looks at the answer ring,
//! first spinning, then between short sleeps: the worker makes no system call to wake it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::metrics::labels::ConnectionEnd;
use nix::sys::socket::{MsgFlags, send};

use super::caches::FrontCaches;
use super::client::Client;
use super::clients::Clients;
use super::connection::{INPUT_BYTES_HIGH, Waits};
use super::counts::Counts;
use super::datagrams::{self, DATAGRAM};
use super::fetches::Fetches;
use super::link::Heard;
use super::links::Links;
use super::peer;
use super::protocol;
use super::reads::At;
use super::ring::{Event, Ring, RingError, Token};
use super::settings::Settings;
use super::snapshots::Snapshots;
use crate::config::PollPolicy;

/// How long the answer ring is looked at without a pause. Too low: an answer that is a microsecond away
/// costs a sleep. Too high: a core that worker and front share is taken from the worker.
const SPIN_NS: u64 = 20_000;

/// Sleep between two looks at the answer ring after that. Too low: system calls. Too high: latency of
/// writes while the worker sleeps.
const ANSWER_WAIT_NS: u64 = 30_000;

/// The same once the worker has been silent for [`SILENT_NS`].
const SILENT_WAIT_NS: u64 = 1_000_000;
const SILENT_NS: u64 = 5_000_000;

/// Sleep between two looks at the socket of a snapshot that is being fetched, unless it has much to give.
const FETCH_WAIT_NS: u64 = 200_000;

/// What an adaptive front spins through after the last completion.
const ADAPTIVE_SPIN_NS: u64 = 50_000;

/// Between two looks at deadlines, supervisor and counters.
pub const TICK_NS: u64 = 100_000_000;

/// Memory of one connection from which it is ended when the front's memory is used up.
const HELD_BYTES_FAIR: usize = 64 << 10;

mod ahead;
mod draining;
mod leaving;
mod listeners;
mod supervisor;
mod sweep;

use supervisor::SUPERVISOR;

/// Where the place of the cache stands in the index of a listener's token.
const CACHE_SHIFT: u32 = 16;

/// A front that serves.
pub struct Server<'a> {
    ring: Ring,
    links: Links<'a>,
    caches: FrontCaches,
    settings: Settings,
    clients: Clients,
    fetches: Fetches,
    snapshots: Snapshots,
    counts: Counts,
    /// Completions that are handled next; empty between two turns.
    events: Vec<Event>,
    /// Clients that wait for room in the request ring, oldest first.
    blocked: Vec<u32>,
    /// Sockets and listeners that are not armed.
    unarmed: Vec<(bool, Token)>,
    /// Read once a turn, after everything of it has arrived.
    now_ns: u64,
    busy_ns: u64,
    ticked_ns: u64,
    started_ns: u64,
    /// No client is taken.
    draining: bool,
    /// Since when another front waits; 0 while none does.
    leaving_ns: u64,
    /// When listeners were last looked at by ourselves.
    looked_ns: u64,
    /// The way to the supervisor, and whether it has to be armed.
    supervisor: Option<(BorrowedFd<'a>, bool)>,
}

impl<'a> Server<'a> {
    /// A front of these caches, whose listeners are bound, non-blocking and listening.
    pub fn new(
        ring: Ring,
        links: Links<'a>,
        caches: FrontCaches,
        settings: Settings,
        (fetches, snapshots): (Fetches, Snapshots),
    ) -> Self {
        let unarmed = caches.iter().flat_map(listeners::tokens).collect();
        Self {
            ring,
            links,
            caches,
            settings,
            clients: Clients::default(),
            fetches,
            snapshots,
            counts: Counts::default(),
            events: Vec::new(),
            blocked: Vec::new(),
            unarmed,
            now_ns: monotonic_ns(),
            busy_ns: 0,
            ticked_ns: 0,
            started_ns: monotonic_ns(),
            draining: false,
            leaving_ns: 0,
            looked_ns: 0,
            supervisor: None,
        }
    }

    /// Serves until `tick`, called every [`TICK_NS`] with the counts so far, says `false`.
    pub fn run(
        &mut self,
        mut tick: impl FnMut(&mut Self, &Counts) -> bool,
    ) -> Result<(), RingError> {
        loop {
            self.arm();
            self.ring.enter(self.rest_ns())?;
            let mut busy = false;
            let mut left = self.ring.completed();
            self.now_ns = monotonic_ns();
            self.look_for_inherited();
            for cache in self.caches.all() {
                cache.reads.now_ns = self.now_ns;
            }
            // What completes from here on belongs to the next turn: it came after the clock was read.
            while left > 0 {
                let count = self.together(left);
                busy |= count > 0;
                left = if count == 0 { 0 } else { left - count };
            }
            for cache in self.caches.all() {
                busy |= cache.datagrams.turn(&mut cache.reads, &mut self.links);
            }
            busy |= self.answers();
            busy |= self.fetches.turn(self.now_ns, &mut self.links);
            self.snapshots.turn(self.now_ns, &mut self.links);
            self.unblock();
            while let Some(index) = self.clients.next_touched() {
                self.settle(index);
            }
            self.links.wake();
            if self.has_left() {
                return Ok(());
            }
            let now_ns = self.now_ns;
            if busy {
                self.busy_ns = now_ns;
            }
            if now_ns.saturating_sub(self.ticked_ns) >= TICK_NS {
                self.ticked_ns = now_ns;
                self.sweep(now_ns);
                let counts = self.count();
                if !tick(self, &counts) {
                    return Ok(());
                }
            }
        }
    }

    /// Everything counted so far.
    pub fn count(&self) -> Counts {
        let mut counts = Counts {
            connections: self.clients.count() as u64,
            held_bytes: self.clients.held_bytes() as u64,
            link: self.links.counts(),
            datagrams: self.caches.gone().datagrams,
            dropped_datagrams: self.caches.gone().dropped_datagrams,
            syscalls: self.counts.syscalls + self.ring.syscalls() + self.caches.gone().syscalls,
            snapshots: self.fetches.ended,
            served_snapshots: self.snapshots.ended,
            ..self.counts
        };
        for cache in self.caches.iter() {
            counts.datagrams += cache.datagrams.received;
            counts.dropped_datagrams += cache.datagrams.dropped;
            counts.syscalls += cache.datagrams.syscalls();
            counts.forbidden += cache.reads.forbidden;
            if let Some(reads) = counts.reads.get_mut(cache.target.place as usize) {
                *reads = (cache.reads.hits, cache.reads.misses);
            }
        }
        counts
    }

    /// How long to sleep at most.
    fn rest_ns(&self) -> u64 {
        if self.ticked_ns == 0 {
            return 0;
        }
        if self.caches.iter().any(|cache| cache.datagrams.pending) {
            return 0;
        }
        if self.leaving_ns > 0 {
            return leaving::LEAVING_WAIT_NS;
        }
        if self.follows() {
            return listeners::FOLLOWS_WAIT_NS;
        }
        let idle_ns = monotonic_ns().saturating_sub(self.busy_ns);
        if self.fetches.is_open() || self.snapshots.is_open() {
            return FETCH_WAIT_NS;
        }
        if self.links.outstanding() > 0 || !self.blocked.is_empty() {
            return match idle_ns {
                ..SPIN_NS => 0,
                SPIN_NS..SILENT_NS => ANSWER_WAIT_NS,
                _ => SILENT_WAIT_NS,
            };
        }
        match self.settings.poll {
            PollPolicy::Busy => 0,
            PollPolicy::Adaptive if idle_ns < ADAPTIVE_SPIN_NS => 0,
            PollPolicy::Adaptive | PollPolicy::Interrupt => TICK_NS,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { token, connection, armed } => {
                if !armed {
                    self.unarmed.push((true, token));
                }
                // Out of descriptors, or the client is gone already: the next one is accepted as well.
                if let Ok(connection) = connection
                    && self.cache_of(token).is_some()
                {
                    self.accept(connection, token.index >> CACHE_SHIFT);
                }
            }
            Event::Readable { token: SUPERVISOR, armed } => {
                self.supervisor_speaks(armed);
            }
            Event::Readable { token, armed } => {
                if !armed {
                    self.unarmed.push((false, token));
                }
                if let Some(cache) = self.cache_of(token) {
                    cache.datagrams.pending = true;
                }
            }
            Event::Received { token, result, armed } => self.received(token, result, armed),
            Event::Sent { token, buffer, result } => self.sent(token, buffer, result),
        }
    }

    fn accept(&mut self, connection: OwnedFd, place: u32) {
        self.counts.accepted += 1;
        let Some(served) = self.caches.at(place) else { return };
        let cache = served.target;
        let Some(permissions) = peer::permissions_of(&connection, served) else {
            return self.counts.end(ConnectionEnd::Broken);
        };
        if permissions == Permissions::NONE {
            return self.counts.end(ConnectionEnd::Source);
        }
        if self.clients.count() >= self.settings.connections_max {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let _ = send(connection.as_raw_fd(), protocol::TOO_MANY, flags);
            return self.counts.end(ConnectionEnd::Limit);
        }
        let client = Client::new(connection, cache, permissions, self.now_ns);
        self.clients.insert(client);
    }

    fn received(
        &mut self,
        token: Token,
        result: std::io::Result<(Option<u16>, usize)>,
        armed: bool,
    ) {
        let number = self.clients.number(token);
        let buffer = result.as_ref().ok().and_then(|(buffer, _)| *buffer);
        let mut spare = self.clients.spare();
        if let Some(client) = self.clients.get_mut(token) {
            client.receiving = armed;
            match result {
                Ok((Some(buffer), bytes)) if bytes > 0 => {
                    client.heard_ns = self.now_ns;
                    self.counts.rx_bytes += bytes as u64;
                    let target = client.cache;
                    if client.end.is_none()
                        && let Some(cache) = self.caches.get(target)
                    {
                        spare = client.connection.lend(spare);
                        let bytes = self.ring.buffer(buffer, bytes);
                        let (reads, links) = (&mut cache.reads, &mut self.links);
                        let permissions = client.permissions;
                        let mut at = At { reads, links, target, number, permissions };
                        client.waits = client.connection.receive(bytes, &mut at);
                    }
                }
                Ok(_) => client.input_ended = true,
                Err(error) => match error.raw_os_error() {
                    // Out of buffers, or paused: armed again when it may go on.
                    Some(libc::ENOBUFS | libc::ECANCELED) => client.stopping = false,
                    _ => {
                        client.input_ended = true;
                        client.end.get_or_insert(ConnectionEnd::Broken);
                    }
                },
            }
            client.stopping &= armed;
            self.clients.touch(token.index);
        }
        self.clients.recycle(spare);
        if let Some(buffer) = buffer {
            self.ring.give_back(buffer);
        }
    }

    fn sent(&mut self, token: Token, buffer: Vec<u8>, result: std::io::Result<usize>) {
        let Some(client) = self.clients.get_mut(token) else { return };
        client.sending = false;
        client.sending_bytes = 0;
        match result {
            Ok(bytes) => {
                self.counts.tx_bytes += bytes as u64;
                client.sent_ns = self.now_ns;
                client.sent_bytes += bytes;
                if client.sent_bytes < buffer.len() && client.end.is_none() {
                    client.sending = true;
                    client.sending_bytes = buffer.capacity();
                    let from = client.sent_bytes;
                    return self.ring.send(client.socket.as_fd(), token, buffer, from);
                }
                if client.waits == Waits::Output {
                    let number = self.clients.number(token);
                    self.resume(token.index, number);
                }
            }
            Err(_) => {
                client.end.get_or_insert(ConnectionEnd::Broken);
            }
        }
        self.clients.recycle(buffer);
        self.clients.touch(token.index);
    }

    fn resume(&mut self, index: u32, number: u64) {
        let Some(client) = self.clients.at_mut(index) else { return };
        let target = client.cache;
        if client.end.is_none()
            && let Some(cache) = self.caches.get(target)
        {
            let (reads, links) = (&mut cache.reads, &mut self.links);
            let permissions = client.permissions;
            let mut at = At { reads, links, target, number, permissions };
            client.waits = client.connection.resume(&mut at);
        }
        self.clients.touch(index);
    }

    /// Takes the worker's answers; says whether there was one.
    fn answers(&mut self) -> bool {
        let mut resumed = Vec::new();
        let (clients, mut datagrams) = (&mut self.clients, Vec::new());
        let (fetches, snapshots, now_ns) = (&mut self.fetches, &mut self.snapshots, self.now_ns);
        let deliver = |number, text: Option<&[u8]>| {
            if number & DATAGRAM != 0 {
                datagrams.push((number, text.map(<[u8]>::to_vec)));
            } else if let Some((index, client)) = clients.by_number(number) {
                client.connection.answered(text);
                resumed.push((index, number));
            }
        };
        let count = self.links.poll(deliver, |worker, heard| match heard {
            Heard::Wanted(wanted) => fetches.want(worker, wanted, now_ns),
            heard => snapshots.hear(&heard),
        });
        for (number, text) in &datagrams {
            if let Some(cache) = self.caches.at(datagrams::cache_of(*number)) {
                let (reads, links) = (&mut cache.reads, &mut self.links);
                cache.datagrams.answered(*number, text.as_deref(), reads, links);
            }
        }
        if !datagrams.is_empty() {
            self.caches.all().for_each(|cache| cache.datagrams.flush());
        }
        // Several answers of one connection stand beside each other more often than not.
        resumed.dedup();
        for (index, number) in resumed {
            self.resume(index, number);
        }
        count > 0
    }

    /// Lets the clients that waited for room try again.
    fn unblock(&mut self) {
        for index in std::mem::take(&mut self.blocked) {
            let Some(client) = self.clients.at_mut(index) else { continue };
            client.blocked = false;
            let number = self.clients.number_of(index);
            self.resume(index, number);
        }
    }

    /// Sends, pauses, goes on receiving, or closes: what is due after a connection has moved.
    fn settle(&mut self, index: u32) {
        let over = self.clients.held_bytes() > self.settings.held_bytes_max;
        let Some((token, client)) = self.clients.with_token(index) else { return };
        if over && client.end.is_none() && client.connection.held_bytes() > HELD_BYTES_FAIR {
            if client.connection.input_bytes() > HELD_BYTES_FAIR {
                client.connection.fail(protocol::NO_MEMORY);
                client.waits = Waits::End;
                client.failed = true;
            } else {
                client.end = Some(ConnectionEnd::Unbounded);
            }
        }
        let at_end = client.waits == Waits::End
            || (client.input_ended
                && client.waits == Waits::Input
                && client.connection.in_flight() == 0);
        if at_end && client.end.is_none() && !client.sending && !client.connection.has_output() {
            let unbounded = client.failed || client.connection.is_endless();
            client.end =
                Some(if unbounded { ConnectionEnd::Unbounded } else { ConnectionEnd::Client });
        }
        if let Some(reason) = client.end {
            if !client.shut {
                client.shut = true;
                let how = nix::sys::socket::Shutdown::Both;
                // Whatever is on its way for it completes now.
                let _ = nix::sys::socket::shutdown(client.socket.as_raw_fd(), how);
            }
            if !client.receiving && !client.sending {
                self.clients.remove(index);
                self.counts.end(reason);
            }
            return;
        }
        let mut unused = Vec::new();
        if !client.connection.has_output() {
            unused = client.connection.take_output();
        } else if !client.sending {
            let output = client.connection.take_output();
            client.sending = true;
            client.sending_bytes = output.capacity();
            client.sent_bytes = 0;
            client.sent_ns = self.now_ns;
            self.ring.send(client.socket.as_fd(), token, output, 0);
        }
        let waits_for_input = client.waits == Waits::Input;
        let full = client.connection.input_bytes() > INPUT_BYTES_HIGH && !waits_for_input;
        if client.receiving && full && !client.stopping {
            client.stopping = true;
            self.ring.stop_receiving(token);
        } else if !client.receiving && !client.input_ended && !full {
            client.receiving = true;
            self.ring.receive(client.socket.as_fd(), token);
        }
        if client.waits == Waits::Room && !client.blocked {
            client.blocked = true;
            self.blocked.push(index);
        }
        self.clients.recycle(unused);
        self.clients.account(index);
    }
}
