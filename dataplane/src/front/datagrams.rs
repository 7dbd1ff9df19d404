//! What reaches a cache's port through the kernel: fragments put together, loopback, and everything
//! where the steering program is not.
//!
//! A datagram is a connection that is over with its last answer: the same state machine, its answers sent
//! one by one as numbered datagrams. At most [`EXCHANGES_MAX`] of them wait for the worker; beyond that
//! they are dropped and counted.

use std::os::fd::{BorrowedFd, OwnedFd};

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::clock::monotonic_ns;

use super::connection::{Connection, Waits};
use super::link::Target;
use super::links::Links;
use super::protocol::REPLY_TOO_LARGE;
use super::reads::{At, Reads};
use crate::access::AccessList;
use crate::memcached::FrameHeader;
use crate::memcached::frame::{FRAME_HEADER_BYTES, FRAME_TEXT_BYTES_MAX, REPLY_FRAMES_MAX};
use crate::port::{Burst, Path, Port, SocketPort, Transmit};

/// Datagrams that wait for the worker. Too low: writes are dropped in a burst. Too high: memory.
const EXCHANGES_MAX: usize = 1024;

/// Bursts taken in one turn. Too low: system calls. Too high: connections wait.
const BURSTS_A_TURN: usize = 4;

/// Marks the number of a datagram among those of connections.
pub const DATAGRAM: u64 = 1 << 63;

/// Where the place of the cache stands in the number of a datagram, above its own.
const CACHE_SHIFT: u32 = 16;

const _: () = assert!(EXCHANGES_MAX <= 1 << CACHE_SHIFT, "a place fits below the cache's");

struct Exchange {
    connection: Connection,
    path: Path,
    header: FrameHeader,
    generation: u32,
    permissions: Permissions,
}

/// The kernel's UDP sockets of one cache.
pub struct Datagrams {
    cache: Target,
    port: SocketPort,
    access: AccessList,
    exchanges: Vec<Option<Exchange>>,
    free: Vec<u32>,
    /// Of the last exchange.
    pub generation: u32,
    /// More may have come than was taken.
    pub pending: bool,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams dropped.
    pub dropped: u64,
}

impl Datagrams {
    /// Serves bound sockets, for the sources of a list.
    pub fn new(cache: Target, sockets: Vec<OwnedFd>, access: AccessList) -> std::io::Result<Self> {
        Ok(Self {
            cache,
            port: SocketPort::adopt(sockets)?,
            access,
            exchanges: Vec::new(),
            free: Vec::new(),
            generation: 0,
            pending: true,
            received: 0,
            dropped: 0,
        })
    }

    /// The sockets, to be waited for.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.port.sockets()
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        let counters = self.port.counters();
        counters.rx_wakeup_count + counters.tx_wakeup_count
    }

    /// Takes what has come, up to a bound; says whether there was anything.
    pub fn turn(&mut self, reads: &mut Reads, links: &mut Links<'_>) -> bool {
        if !std::mem::take(&mut self.pending) {
            return false;
        }
        for _ in 0..BURSTS_A_TURN {
            let count = self.port.receive();
            if count == 0 {
                return true;
            }
            self.received += count as u64;
            reads.now_ns = monotonic_ns();
            let mut waiting = Vec::new();
            {
                let (burst, tx) = self.port.split();
                for index in 0..burst.len() {
                    let datagram = burst.get(index);
                    let permissions = self.access.permissions_of(datagram.source.ip());
                    let listed = permissions != Permissions::NONE;
                    let request = FrameHeader::parse(datagram.payload);
                    let (true, Some((header, text))) =
                        (listed && !datagram.destination.is_multicast(), request)
                    else {
                        self.dropped += 1;
                        continue;
                    };
                    let place = self.free.pop().unwrap_or(self.exchanges.len() as u32);
                    if place as usize >= EXCHANGES_MAX {
                        self.dropped += 1;
                        continue;
                    }
                    self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
                    let generation = self.generation;
                    let number = number(self.cache.place, place, generation);
                    let mut connection = Connection::of_datagram();
                    let target = self.cache;
                    let mut at =
                        At { reads: &mut *reads, links: &mut *links, target, number, permissions };
                    let waits = connection.receive(text, &mut at);
                    let path = datagram.reply_path();
                    let mut exchange =
                        Exchange { connection, path, header, generation, permissions };
                    answer(&mut exchange, tx);
                    let over = is_over(&exchange, waits);
                    if place as usize == self.exchanges.len() {
                        self.exchanges.push(None);
                    }
                    if over {
                        self.free.push(place);
                    } else {
                        self.exchanges[place as usize] = Some(exchange);
                        if matches!(waits, Waits::Room | Waits::Output) {
                            waiting.push(number);
                        }
                    }
                }
            }
            self.port.release();
            for number in waiting {
                self.resume(number, reads, links);
            }
            self.port.flush();
        }
        self.pending = true;
        true
    }

    /// Takes an answer of the worker.
    pub fn answered(
        &mut self,
        number: u64,
        text: Option<&[u8]>,
        reads: &mut Reads,
        links: &mut Links<'_>,
    ) {
        if let Some(exchange) = self.exchange(number) {
            exchange.connection.answered(text);
            self.resume(number, reads, links);
        }
    }

    /// Sends what was queued.
    pub fn flush(&mut self) {
        self.port.flush();
    }

    fn exchange(&mut self, number: u64) -> Option<&mut Exchange> {
        let exchange = self.exchanges.get_mut(place_of(number))?.as_mut()?;
        let generation = (number >> 32) as u32 & 0x7fff_ffff;
        (exchange.generation == generation).then_some(exchange)
    }

    fn resume(&mut self, number: u64, reads: &mut Reads, links: &mut Links<'_>) {
        let place = place_of(number);
        let Some(exchange) = self.exchanges.get_mut(place).and_then(Option::as_mut) else { return };
        loop {
            let waits = exchange.connection.resume(&mut At {
                reads: &mut *reads,
                links: &mut *links,
                target: self.cache,
                number,
                permissions: exchange.permissions,
            });
            let (_, tx) = self.port.split();
            answer(exchange, tx);
            match waits {
                Waits::Output => {}
                // A datagram that finds no room is lost, like any other.
                Waits::Room if exchange.connection.in_flight() == 0 => {
                    self.dropped += 1;
                    break;
                }
                waits if is_over(exchange, waits) => break,
                _ => return,
            }
        }
        self.exchanges[place] = None;
        self.free.push(place as u32);
    }
}

fn number(cache: u32, place: u32, generation: u32) -> u64 {
    DATAGRAM | u64::from(generation) << 32 | u64::from(cache << CACHE_SHIFT | place)
}

fn place_of(number: u64) -> usize {
    number as usize & ((1 << CACHE_SHIFT) - 1)
}

/// Place of the cache that a datagram's number belongs to.
pub fn cache_of(number: u64) -> u32 {
    number as u32 >> CACHE_SHIFT
}

fn is_over(exchange: &Exchange, waits: Waits) -> bool {
    matches!(waits, Waits::Input | Waits::End) && exchange.connection.in_flight() == 0
}

/// Sends the answers that are complete, each in as many datagrams as it needs. What cannot be sent is
/// counted by the port.
fn answer(exchange: &mut Exchange, tx: &mut impl Transmit) {
    let (text, ends) = exchange.connection.take_answers();
    let mut start = 0;
    for end in ends {
        let mut text = &text[start..end];
        start = end;
        if text.len() > REPLY_FRAMES_MAX * FRAME_TEXT_BYTES_MAX {
            text = REPLY_TOO_LARGE;
        }
        let total = text.len().div_ceil(FRAME_TEXT_BYTES_MAX) as u16;
        for (sequence, part) in text.chunks(FRAME_TEXT_BYTES_MAX).enumerate() {
            let header = exchange.header.reply(sequence as u16, total);
            let _ = tx.send(&exchange.path, |out| {
                out[..FRAME_HEADER_BYTES].copy_from_slice(&header);
                out[FRAME_HEADER_BYTES..][..part.len()].copy_from_slice(part);
                FRAME_HEADER_BYTES + part.len()
            });
        }
    }
}
