//! What came to some sockets, with the kernel's time of arrival.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nautilus_shm::clock::monotonic_ns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

/// One datagram.
#[derive(Clone, Debug)]
pub struct Packet {
    /// `CLOCK_REALTIME`, when the kernel took it in.
    pub at_ns: u64,
    pub bytes: Vec<u8>,
}

type Packets = Arc<Mutex<Vec<Packet>>>;

/// Sockets by name, each with a thread that reads it.
pub struct Heard {
    sockets: BTreeMap<&'static str, (Arc<UdpSocket>, Packets)>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Heard {
    pub fn start<const COUNT: usize>(sockets: [(&'static str, UdpSocket); COUNT]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut this = Self { sockets: BTreeMap::new(), over, threads: Vec::new() };
        for (name, socket) in sockets {
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (socket, packets) = (Arc::new(socket), Packets::default());
            let (reader, heard, over) = (socket.clone(), packets.clone(), this.over.clone());
            this.threads.push(std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(packet) = receive(&reader) {
                        heard.lock().unwrap().push(packet);
                    }
                }
            }));
            this.sockets.insert(name, (socket, packets));
        }
        this
    }

    /// What came to a socket so far, in order.
    pub fn of(&self, name: &str) -> Vec<Packet> {
        self.sockets[name].1.lock().unwrap().clone()
    }

    pub fn send(&self, name: &str, bytes: &[u8]) {
        // Nobody may be there at this moment.
        let _ = self.sockets[name].0.send(bytes);
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn receive(socket: &UdpSocket) -> Option<Packet> {
    let mut bytes = vec![0; 2048];
    let mut ancillary = nix::cmsg_space!(TimeSpec);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut ancillary),
        MsgFlags::empty(),
    )
    .ok()?;
    let length = message.bytes;
    let stamp = message.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    })?;
    let at_ns = stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64;
    bytes.truncate(length);
    Some(Packet { at_ns, bytes })
}

/// From `CLOCK_MONOTONIC` to `CLOCK_REALTIME`.
pub struct Offset(i64);

impl Offset {
    /// The tightest of many comparisons.
    pub fn measure() -> Self {
        let compare = |_| {
            let before = monotonic_ns();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
            let after = monotonic_ns();
            (after - before, wall - (before + (after - before) / 2) as i64)
        };
        Self((0..1000).map(compare).min().unwrap().1)
    }

    pub fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        (monotonic_ns as i64 + self.0) as u64
    }
}
