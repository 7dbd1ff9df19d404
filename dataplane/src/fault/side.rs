//! One interface of a wire: what it is, and the AF_XDP sockets by which packets that wait come and leave.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nautilus_ebpf::fault::{FAULT_QUEUES_MAX, FaultMeta};
use nautilus_shm::ledger::Frame;

use super::wire::WireError;
use crate::config::{Auto, Interface};
use crate::limits::{
    CHUNK_BYTES_LARGE, CHUNK_BYTES_SMALL, LINK_HEADER_BYTES_MAX, XDP_HEADROOM_BYTES,
};
use crate::supervisor::inspect::inspect;
use crate::supervisor::netlink::Link;
use crate::xsk::{
    BIND_PATIENCE, BindingSpec, CopyMode, Mapped, RxFrame, TxFrame, UmemSpec, Unbound, XskSocket,
};

/// Frames of each socket, one half of which the kernel can fill before they are looked at. Too low: a burst
/// that comes while this process has no core is counted as queue_full. Too high: memory.
const FRAMES: u32 = 8_192;

/// Packets taken from a socket at a time. Too low: more looks at rings and clock. Too high: what is due waits
/// for what has come.
const BURST: u32 = 64;

/// An interface, opened.
pub(super) struct Side {
    pub name: String,
    pub ifindex: u32,
    mtu: u32,
    queues: Vec<u32>,
    /// One a queue, in the order of `queues`; none where nothing comes or leaves by them.
    sockets: Vec<XskSocket>,
    received: Vec<RxFrame>,
    pending: Vec<TxFrame>,
    /// Packets the interface had not taken before we came.
    undelivered_before: Option<u64>,
}

impl Side {
    /// Judges the interface `name` of `links`; nothing is changed on it.
    pub fn open(name: &str, links: &[Link]) -> Result<Self, WireError> {
        let wanted = Interface { name: name.into(), queues: Auto::Auto, addresses: Auto::Auto };
        let link = links.iter().find(|link| link.name == name);
        let mut queues = inspect(&wanted, link, 0)?;
        queues.truncate(FAULT_QUEUES_MAX as usize);
        let link = link.expect("inspected");
        let ifindex = link.ifindex;
        Ok(Self {
            name: name.into(),
            ifindex,
            mtu: link.mtu,
            queues,
            sockets: Vec::new(),
            received: Vec::with_capacity(BURST as usize),
            pending: Vec::with_capacity(BURST as usize),
            undelivered_before: tx_dropped(name, ifindex),
        })
    }

    /// Binds a socket to each queue: for packets to come by if `receives`, else to queue 0 alone, to leave by.
    /// Copy mode: packets are copied anyway, and every driver has it.
    pub fn bind(&mut self, receives: bool) -> Result<(), WireError> {
        let longest = XDP_HEADROOM_BYTES + LINK_HEADER_BYTES_MAX + self.mtu;
        let is_small = longest <= CHUNK_BYTES_SMALL;
        let chunk_bytes = if is_small { CHUNK_BYTES_SMALL } else { CHUNK_BYTES_LARGE };
        let queues = if receives { self.queues.len() } else { 1 };
        for &queue in &self.queues[..queues] {
            let spec = BindingSpec {
                ifindex: self.ifindex,
                queue,
                mode: CopyMode::Copy,
                umem: UmemSpec::new(FRAMES, chunk_bytes, false),
                busy_poll_budget: None,
            };
            let socket = bind(&spec)
                .map_err(|source| WireError::Socket { interface: self.name.clone(), source })?;
            self.sockets.push(socket);
        }
        Ok(())
    }

    /// Its sockets with their queues.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.queues.iter().copied().zip(self.sockets.iter().map(XskSocket::fd))
    }

    /// Hands what has come to `each`: metadata and frame, of some packets of each socket. True if there may be
    /// more.
    pub fn receive(&mut self, mut each: impl FnMut(FaultMeta, &[u8])) -> bool {
        let mut is_more = false;
        for socket in &mut self.sockets {
            socket.receive(BURST, |frame| self.received.push(frame));
            is_more |= self.received.len() == BURST as usize;
            for RxFrame { frame, offset, length } in self.received.drain(..) {
                let (start, length) = (offset as usize, length as usize);
                let bytes = socket.umem().bytes(&frame);
                let meta = start
                    .checked_sub(FaultMeta::BYTES)
                    .and_then(|at| bytes.get(at..)?.first_chunk())
                    .and_then(FaultMeta::read);
                // Without metadata it is no packet of ours.
                if let (Some(meta), Some(frame)) = (meta, bytes.get(start..start + length)) {
                    each(meta, frame);
                }
                socket.release(frame);
            }
            socket.refill();
        }
        is_more
    }

    /// Queues a frame to leave; false without room for it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(socket) = self.sockets.first_mut() else { return false };
        if self.pending.len() as u32 >= socket.tx_room() {
            return false;
        }
        let Some(mut frame) = socket.hold() else { return false };
        let offset = XDP_HEADROOM_BYTES;
        let room = socket.umem().bytes_mut(&mut frame).get_mut(offset as usize..);
        let Some(room) = room.and_then(|room| room.get_mut(..bytes.len())) else {
            // Longer than a chunk: the kernel could not have handed it over.
            socket.release(frame);
            return true;
        };
        room.copy_from_slice(bytes);
        self.pending.push(TxFrame { frame, offset, length: bytes.len() as u32 });
        true
    }

    /// Has the kernel send what was queued and gives back what it has sent. True if all of it is gone.
    pub fn flush(&mut self) -> bool {
        let Some(socket) = self.sockets.first_mut() else { return true };
        socket.queue(&mut self.pending);
        socket.kick();
        socket.reap();
        self.pending.is_empty() && socket.counts().tx == 0
    }

    /// Packets that its driver has refused since it was opened.
    pub fn undelivered(&self) -> Option<u64> {
        let now = tx_dropped(&self.name, self.ifindex)?;
        Some(now.saturating_sub(self.undelivered_before?))
    }

    /// Lets go of frames whose tokens would be lost.
    pub fn close(mut self) {
        if let Some(socket) = self.sockets.first_mut() {
            let frames = self.pending.drain(..).map(|packet| packet.frame);
            frames.for_each(|frame: Frame| socket.release(frame));
        }
    }
}

fn bind(spec: &BindingSpec) -> Result<XskSocket, crate::xsk::XskError> {
    let Unbound { fds, spec, .. } = Unbound::create(spec)?;
    // Mapped before it is bound: below Linux 6.4 that is the only order.
    let own = fds.socket.try_clone();
    let own = own.map_err(|source| crate::xsk::XskError::System {
        step: "duplicating the descriptors",
        source,
    })?;
    let mapped = Mapped::map(fds)?;
    let start = Instant::now();
    loop {
        match spec.bind(own.as_fd()) {
            // A wire that was killed a moment ago has not let go yet.
            Err(error) if error.is_busy() && start.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => break result?,
        }
    }
    Ok(mapped.take_over()?.0)
}

/// The driver's count of packets it did not take, where /sys shows this network namespace.
fn tx_dropped(name: &str, ifindex: u32) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        let path = format!("/sys/class/net/{name}/{file}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    (number("ifindex")? == u64::from(ifindex)).then(|| number("statistics/tx_dropped"))?
}
