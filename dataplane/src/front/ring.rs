//! The front's io_uring: one ring, one thread, one system call a turn.
//!
//! ```text
//!   accept (multishot)  receive (multishot, provided buffers)  send (owned buffer)  poll (multishot)
//!        \___________________________ enter ______________________________/
//!                                       |
//!                          events: Accepted Received Sent Readable
//! ```
//!
//! Nearly all unsafe code of the front (`unsent.rs` has the rest). Memory that the kernel may touch is never freed and never lent out
//! meanwhile: receive buffers live as long as the process and are lent only between their completion and
//! [`Ring::give_back`]; a buffer that is being sent belongs to the ring until its completion.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Entries of the submission queue. Too low: more than one system call a turn. Too high: memory.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue; what does not fit waits in the kernel.
const COMPLETIONS: u32 = 4096;

/// Receive buffers. Too low: many busy connections run out of them and receive again only a turn later.
/// Too high: a working set that leaves the cache.
const BUFFERS: u16 = 256;

/// Bytes of one. Too low: large values arrive in many pieces. Too high: memory.
const BUFFER_BYTES: usize = 8 << 10;

const BUFFER_GROUP: u16 = 0;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The host does not allow it.
    #[error(
        "io_uring is refused on this host ({0}): set the sysctl kernel.io_uring_disabled to 0 (or to 1 \
         with the worker's group in kernel.io_uring_group), or write front.enabled = false"
    )]
    Refused(#[source] io::Error),
    /// A step of making it.
    #[error("cannot {0} an io_uring (Linux 6.1 or later is needed): {1}")]
    Step(&'static str, #[source] io::Error),
    /// The loop's system call.
    #[error("io_uring_enter: {0}")]
    Enter(#[source] io::Error),
}

/// Whose operation an event is about; chosen by the caller, returned as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Number of the connection, listener or socket.
    pub index: u32,
    /// Distinguishes users of one number; 24 bits.
    pub generation: u32,
}

/// A completion: whose it is, what came of it, and, where one operation completes many times, whether
/// it is still armed or has to be begun again.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event {
    /// A listener's connection, or why there is none ([`Ring::accept`]).
    Accepted { token: Token, connection: io::Result<OwnedFd>, armed: bool },
    /// Bytes of a connection ([`Ring::receive`]): how many, none at its end, and in which buffer, to be
    /// given back.
    Received { token: Token, result: io::Result<(Option<u16>, usize)>, armed: bool },
    /// How many bytes of the buffer went ([`Ring::send`]).
    Sent { token: Token, buffer: Vec<u8>, result: io::Result<usize> },
    /// A socket has something to read ([`Ring::poll`]).
    Readable { token: Token, armed: bool },
}

const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const POLL: u64 = 4;
const CANCEL: u64 = 5;

impl Token {
    fn pack(self, kind: u64) -> u64 {
        kind << 56 | u64::from(self.generation & 0xff_ffff) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> (u64, Self) {
        (data >> 56, Self { index: data as u32, generation: (data >> 32) as u32 & 0xff_ffff })
    }
}

/// The ring and all memory the kernel reads and writes for it.
pub struct Ring {
    uring: IoUring,
    /// `BUFFERS` entries, page-aligned; the tail lies in the first.
    entries: NonNull<BufRingEntry>,
    /// `BUFFERS` times `BUFFER_BYTES`.
    buffers: NonNull<u8>,
    tail: u16,
    /// By buffer: it is ours at the moment.
    lent: [bool; BUFFERS as usize],
    /// By connection: what is being sent.
    sends: Vec<Option<Vec<u8>>>,
    syscalls: u64,
}

/// Zeroed memory that is never freed: the kernel may write into it until the process is gone.
fn forever(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, 4096).expect("a small constant");
    // SAFETY: the size is not zero.
    let pointer = unsafe { alloc_zeroed(layout) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}

fn build() -> Result<IoUring, RingError> {
    let base = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().dontfork();
        builder
    };
    let mut deferred = base();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let made = deferred.build(SUBMISSIONS).or_else(|error| match error.raw_os_error() {
        // Flags that this kernel does not know.
        Some(libc::EINVAL) => base().build(SUBMISSIONS),
        _ => Err(error),
    });
    made.map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => RingError::Refused(error),
        _ => RingError::Step("make", error),
    })
}

impl Ring {
    /// Makes the ring and its receive buffers. Used by the calling thread only.
    pub fn new() -> Result<Self, RingError> {
        let uring = build()?;
        if !uring.params().is_feature_ext_arg() {
            let error = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(RingError::Step("wait with a timeout on", error));
        }
        let entries = forever(size_of::<BufRingEntry>() * usize::from(BUFFERS)).cast();
        let buffers = forever(usize::from(BUFFERS) * BUFFER_BYTES);
        // SAFETY: page-aligned memory of that many entries that is never freed.
        let registered = unsafe {
            uring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFERS,
                BUFFER_GROUP,
                0,
            )
        };
        registered.map_err(|error| RingError::Step("register receive buffers with", error))?;
        let lent = [true; BUFFERS as usize];
        let mut this =
            Self { uring, entries, buffers, tail: 0, lent, sends: Vec::new(), syscalls: 0 };
        for buffer in 0..BUFFERS {
            this.give_back(buffer);
        }
        Ok(this)
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every entry is made by a method below, which says why its memory outlives it.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.syscalls += 1;
            // The queue is full; submitting empties it. An error is met again by `enter`.
            let _ = self.uring.submit();
        }
    }

    /// Accepts every connection of a listener.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build();
        self.push(&entry.user_data(token.pack(ACCEPT)));
    }

    /// Receives everything of a connection, into the ring's buffers.
    pub fn receive(&mut self, connection: BorrowedFd<'_>, token: Token) {
        let entry = opcode::RecvMulti::new(Fd(connection.as_raw_fd()), BUFFER_GROUP).build();
        self.push(&entry.user_data(token.pack(RECEIVE)));
    }

    /// Ends [`Self::receive`]; its last event says that it is not armed.
    pub fn stop_receiving(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack(RECEIVE)).build();
        self.push(&entry.user_data(token.pack(CANCEL)));
    }

    /// Ends [`Self::accept`]. The listener is closed for its clients once nobody holds it any more.
    pub fn stop_accepting(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack(ACCEPT)).build();
        self.push(&entry.user_data(token.pack(CANCEL)));
    }

    /// Ends [`Self::poll`].
    pub fn stop_polling(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack(POLL)).build();
        self.push(&entry.user_data(token.pack(CANCEL)));
    }

    /// Sends the bytes of `buffer` from `from` on. At most one a connection at a time.
    ///
    /// # Panics
    /// When one is on its way already.
    pub fn send(&mut self, connection: BorrowedFd<'_>, token: Token, buffer: Vec<u8>, from: usize) {
        let index = token.index as usize;
        if self.sends.len() <= index {
            self.sends.resize_with(index + 1, || None);
        }
        assert!(self.sends[index].is_none(), "one send a connection at a time");
        let buffer = self.sends[index].insert(buffer);
        let bytes = &buffer[from..];
        // The buffer stays in `sends`, neither moved nor changed, until the completion.
        let entry =
            opcode::Send::new(Fd(connection.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_NOSIGNAL)
                .build();
        self.push(&entry.user_data(token.pack(SEND)));
    }

    /// Says when a socket has become readable.
    pub fn poll(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLIN as u32);
        self.push(&entry.multi(true).build().user_data(token.pack(POLL)));
    }

    /// Submits everything and, for a `timeout_ns` other than 0, sleeps until something has completed
    /// or the time is over. Nothing to submit, no sleep and nothing known to have completed: no system
    /// call.
    pub fn enter(&mut self, timeout_ns: u64) -> Result<(), RingError> {
        let idle = {
            let queue = self.uring.submission();
            queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
        };
        if timeout_ns == 0 && idle && self.uring.params().is_setup_single_issuer() {
            return Ok(());
        }
        self.syscalls += 1;
        let time = Timespec::new()
            .sec(timeout_ns / 1_000_000_000)
            .nsec((timeout_ns % 1_000_000_000) as u32);
        let arguments = SubmitArgs::new().timespec(&time);
        let want = usize::from(timeout_ns > 0);
        match self.uring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is over, a signal, or completions first: the next turn goes on.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(RingError::Enter(error)),
            },
        }
    }

    /// Completions that have arrived. One of them may be nobody's.
    pub fn completed(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// The next completion.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let completion = self.uring.completion().next()?;
            let (kind, token) = Token::unpack(completion.user_data());
            let result = match completion.result() {
                ..0 => Err(io::Error::from_raw_os_error(-completion.result())),
                bytes => Ok(bytes as usize),
            };
            let armed = cqueue::more(completion.flags());
            return Some(match kind {
                ACCEPT => {
                    // SAFETY: the kernel has just made this descriptor for us.
                    let owned = |fd: usize| unsafe { OwnedFd::from_raw_fd(fd as i32) };
                    Event::Accepted { token, connection: result.map(owned), armed }
                }
                RECEIVE => {
                    let buffer = cqueue::buffer_select(completion.flags());
                    let buffer = buffer.filter(|buffer| *buffer < BUFFERS);
                    if let Some(buffer) = buffer {
                        self.lent[usize::from(buffer)] = true;
                    }
                    let result = result.map(|bytes| (buffer, bytes.min(BUFFER_BYTES)));
                    Event::Received { token, result, armed }
                }
                SEND => {
                    let send = self.sends.get_mut(token.index as usize).and_then(Option::take);
                    Event::Sent { token, buffer: send.unwrap_or_default(), result }
                }
                POLL => Event::Readable { token, armed },
                _ => continue,
            });
        }
    }

    /// Whether the socket of this number has a send on its way.
    pub fn is_sending(&self, index: u32) -> bool {
        self.sends.get(index as usize).is_some_and(Option::is_some)
    }

    /// The front of a buffer that a completion named; empty for one that is not ours.
    pub fn buffer(&self, buffer: u16, bytes: usize) -> &[u8] {
        let place = usize::from(buffer);
        if !self.lent.get(place).is_some_and(|lent| *lent) {
            return &[];
        }
        // SAFETY: inside the buffers, initialized; the kernel leaves this one alone until `give_back`,
        // which needs `&mut self`.
        unsafe {
            let start = self.buffers.as_ptr().add(place * BUFFER_BYTES);
            std::slice::from_raw_parts(start, bytes.min(BUFFER_BYTES))
        }
    }

    /// Lets the kernel use a buffer again.
    pub fn give_back(&mut self, buffer: u16) {
        let place = usize::from(buffer);
        if !self.lent.get(place).is_some_and(|lent| *lent) {
            return;
        }
        self.lent[place] = false;
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: inside both allocations. The kernel reads an entry only below the tail, which is
        // published last; the setters leave the tail, in the first entry's reserved field, alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.buffers.as_ptr().add(place * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            // SYNC POINT: pairs with the kernel's acquire load of the tail.
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read them.
        std::mem::forget(std::mem::take(&mut self.sends));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn wait(ring: &mut Ring) -> Event {
        for _ in 0..1000 {
            if let Some(event) = ring.next_event() {
                return event;
            }
            ring.enter(10_000_000).unwrap();
        }
        panic!("nothing completed");
    }

    #[test]
    fn a_connection_is_accepted_heard_and_answered() {
        let mut ring = match Ring::new() {
            Ok(ring) => ring,
            Err(error) => return println!("skipped: {error}"),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        ring.accept(listener.as_fd(), Token { index: 7, generation: 0 });
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Event::Accepted { token, connection, armed: true } = wait(&mut ring) else {
            panic!("not accepted");
        };
        assert_eq!(token.index, 7);
        let connection = connection.unwrap();
        let token = Token { index: 3, generation: 0xff_fffe };
        ring.receive(connection.as_fd(), token);
        // More often than there are buffers.
        for round in 0..2 * usize::from(BUFFERS) {
            let text = round.to_string().into_bytes();
            client.write_all(&text).unwrap();
            let Event::Received { token: heard, result, armed: true } = wait(&mut ring) else {
                panic!("not received");
            };
            assert_eq!(heard, token);
            let (Some(buffer), bytes) = result.unwrap() else { panic!("no buffer") };
            assert_eq!(ring.buffer(buffer, bytes), text);
            let answer = [ring.buffer(buffer, bytes), b"!"].concat();
            ring.give_back(buffer);
            assert_eq!(ring.buffer(buffer, bytes), b"", "not ours any more");
            ring.send(connection.as_fd(), token, [b"xx".to_vec(), answer.clone()].concat(), 2);
            let Event::Sent { result, .. } = wait(&mut ring) else { panic!("not sent") };
            assert_eq!(result.unwrap(), answer.len());
            let mut heard = vec![0; answer.len()];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(heard, answer);
        }
        ring.stop_receiving(token);
        let Event::Received { armed: false, result, .. } = wait(&mut ring) else {
            panic!("not stopped");
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    }
}
