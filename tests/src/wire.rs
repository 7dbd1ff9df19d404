//! One AF_XDP socket on a client's interface, by xsk-rs: a sender and receiver of whole frames, tags
//! included, that shares no code with the product's rings, so that each checks the other.
//!
//! Half the frames are with the kernel for receiving, half are for sending; a frame goes back to its
//! own half.
#![allow(unsafe_code)]

use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::Context;
use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

mod redirect;

/// Frames for each direction, and the size of every ring: several times the largest window.
const FRAMES: u32 = 2_048;

/// Frames taken from the receive ring at once.
const BATCH: usize = 64;

/// A sender and receiver of whole frames.
pub struct Wire {
    umem: Umem,
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    free: Vec<FrameDesc>,
    staged: Vec<FrameDesc>,
    batch: [FrameDesc; BATCH],
    scratch: Vec<u8>,
    in_flight: usize,
}

impl Wire {
    /// Opens queue 0 of `interface` in the calling thread's network namespace.
    pub fn open(interface: &str) -> anyhow::Result<Self> {
        let queue = QueueSize::new(FRAMES)?;
        let umem_config = UmemConfig::builder()
            .frame_size(FrameSize::new(2_048)?)
            .fill_queue_size(queue)
            .comp_queue_size(queue)
            .build()?;
        let frames = NonZeroU32::new(2 * FRAMES).context("no frames")?;
        let (umem, mut receive) =
            Umem::new(umem_config, frames, false).context("making the peer's UMEM")?;
        let config = SocketConfig::builder()
            .rx_queue_size(queue)
            .tx_queue_size(queue)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        // SAFETY: this UMEM has no other socket.
        let (tx, rx, rings) = unsafe { Socket::new(config, &umem, &interface.parse()?, 0) }
            .with_context(|| format!("opening an AF_XDP socket on {interface}"))?;
        let (mut fill, completion) = rings.context("the fill ring belongs to another socket")?;
        let free = receive.split_off(FRAMES as usize);
        let batch = [receive[0]; BATCH];
        // SAFETY: these frames are of this UMEM, and given to the kernel once.
        let given = unsafe { fill.produce(&receive) };
        anyhow::ensure!(given == receive.len(), "the fill ring took {given} of {FRAMES} frames");
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("looking up {interface}"))?;
        // SAFETY: the socket outlives this borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(tx.fd().as_raw_fd()) };
        redirect::attach(i32::try_from(ifindex)?, socket)?;
        Ok(Self {
            umem,
            tx,
            rx,
            fill,
            completion,
            free,
            staged: Vec::with_capacity(FRAMES as usize),
            batch,
            scratch: vec![0; 2_048 - 256],
            in_flight: 0,
        })
    }

    /// Stages a frame: `write` fills the front of a buffer and returns its length. False when every
    /// frame is on its way.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(mut frame) = self.free.pop() else { return false };
        let length = write(&mut self.scratch);
        // SAFETY: the frame is of this UMEM, and ours: it came back over the completion ring.
        let mut data = unsafe { self.umem.data_mut(&mut frame) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        let written = cursor.write_all(&self.scratch[..length]);
        debug_assert!(written.is_ok(), "a scratch buffer is no longer than a frame");
        self.staged.push(frame);
        true
    }

    /// Sends what is staged, and again what the kernel has not taken yet: in copy mode one call
    /// sends a bounded batch. Takes back the frames of what has been sent.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if !self.staged.is_empty() {
            // SAFETY: staged frames are of this UMEM and were written before.
            let given = unsafe { self.tx.produce(&self.staged) };
            if given > 0 {
                self.in_flight += given;
                self.staged.clear();
            }
        }
        if self.in_flight > 0 {
            self.tx.wakeup().context("waking the peer's transmit ring")?;
            // SAFETY: every descriptor received is used as a free frame of this UMEM and no other.
            let done = unsafe { self.completion.consume(&mut self.batch) };
            self.in_flight -= done;
            self.free.extend_from_slice(&self.batch[..done]);
        }
        Ok(())
    }

    /// Whether frames still wait to be sent or taken back.
    pub fn is_sending(&self) -> bool {
        self.in_flight > 0 || !self.staged.is_empty()
    }

    /// Hands every frame received to `take` and gives them back to the kernel.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        // SAFETY: every descriptor received goes back to this UMEM's fill ring below.
        let count = unsafe { self.rx.consume(&mut self.batch) };
        if count == 0 {
            return 0;
        }
        for frame in &self.batch[..count] {
            // SAFETY: the frame is of this UMEM and the kernel has given it to us.
            take(unsafe { self.umem.data(frame) }.contents());
        }
        // SAFETY: these are the frames just taken; the fill ring holds as many as there are.
        let given = unsafe { self.fill.produce(&self.batch[..count]) };
        debug_assert_eq!(given, count, "the fill ring has room for every receive frame");
        count
    }

    /// Drops what is in the receive ring.
    pub fn drain(&mut self) {
        while self.receive(|_| ()) > 0 {}
    }
}
