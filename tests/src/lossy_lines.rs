//! A venue's two lines on their way to the nodes of a lab, each of which loses packets by itself.
//!
//! ```text
//!   nautilus-venue --> groups on the venue's loopback --> LossyLines --> the lab's groups, over its bridge
//! ```
//!
//! A thread in the venue's namespace: what it loses it never sends. Stops when it is dropped.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nautilus_dataplane::replay::random::Random;

use crate::lab::NetNs;

/// Groups that the venue sends lines A and B to, on its own loopback.
pub const SENT: [SocketAddrV4; 2] = [
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 71, 1), 26_481),
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 71, 2), 26_482),
];

/// Longest datagram of a line.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// What became of the packets of one line.
#[derive(Debug, Default)]
pub struct LineCounts {
    /// Sent on.
    pub passed: AtomicU64,
    /// Lost.
    pub lost: AtomicU64,
}

/// Both lines.
#[derive(Debug)]
pub struct LossyLines {
    stop: Arc<AtomicBool>,
    counts: Arc<[LineCounts; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl LossyLines {
    /// Joins [`SENT`] in the venue's namespace and sends to `to`, less `lost_ppm` of a million packets of each
    /// line, drawn by `seed`.
    pub fn start(
        namespace: &Arc<NetNs>,
        to: [SocketAddrV4; 2],
        lost_ppm: u32,
        seed: u64,
    ) -> std::io::Result<Self> {
        let open = |from: SocketAddrV4, to: SocketAddrV4| {
            let receiver = UdpSocket::bind(from)?;
            receiver.join_multicast_v4(from.ip(), &Ipv4Addr::LOCALHOST)?;
            receiver.set_read_timeout(Some(Duration::from_millis(1)))?;
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            sender.connect(to)?;
            std::io::Result::Ok((receiver, sender))
        };
        let lines = namespace.run(|| {
            let lines = SENT.into_iter().zip(to).map(|(from, to)| open(from, to));
            lines.collect::<std::io::Result<Vec<_>>>()
        })?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted): (_, Arc<[LineCounts; 2]>) =
            (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            let mut random = [1, 2].map(|line| Random::new(seed ^ line << 32));
            let mut bytes = [0; DATAGRAM_BYTES_MAX];
            while !stopped.load(Ordering::Relaxed) {
                for ((line, random), counts) in lines.iter().zip(&mut random).zip(&*counted) {
                    pass(line, random, counts, lost_ppm, &mut bytes);
                }
            }
        });
        Ok(Self { stop, counts, thread: Some(thread) })
    }

    /// What became of the packets of line A and line B.
    pub fn counts(&self) -> &[LineCounts; 2] {
        &self.counts
    }
}

/// Passes on what has come on a line.
fn pass(
    (receiver, sender): &(UdpSocket, UdpSocket),
    random: &mut Random,
    counts: &LineCounts,
    lost_ppm: u32,
    bytes: &mut [u8],
) {
    loop {
        let length = match receiver.recv(bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let is_lost = random.below(1_000_000) < lost_ppm || sender.send(&bytes[..length]).is_err();
        let count = if is_lost { &counts.lost } else { &counts.passed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for LossyLines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
