//! The supervisor's half: what makes a bound socket, and needs privilege.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::header::Header;
use super::socket::XskSocket;
use super::umem::Umem;
use super::{UmemSpec, XskError, sys};

/// How long a queue may stay busy. Too low: a restart after a crash fails. Too high: a queue that
/// another program has is reported late.
pub const BIND_PATIENCE: Duration = Duration::from_secs(3);

/// How packets get between driver and UMEM. Always named at bind: without it the kernel silently
/// takes copy mode where zero copy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// `XDP_COPY`: works on every driver, veth included.
    Copy,
    /// `XDP_ZEROCOPY`: where the driver has it.
    ZeroCopy,
}

/// What to bind.
#[derive(Clone, Copy, Debug)]
pub struct BindingSpec {
    /// Interface.
    pub ifindex: u32,
    /// Receive queue.
    pub queue: u32,
    /// Copy or zero copy.
    pub mode: CopyMode,
    /// The UMEM and its rings.
    pub umem: UmemSpec,
    /// `SO_PREFER_BUSY_POLL` with this budget (packets a poll); a worker could not set it.
    pub busy_poll_budget: Option<u16>,
}

/// The two descriptors that are a binding. Both are handed to workers; neither gives power over
/// anything but this queue.
#[derive(Debug)]
pub struct XskFds {
    /// The AF_XDP socket, bound.
    pub socket: OwnedFd,
    /// The UMEM memfd with the frame ledger.
    pub umem: OwnedFd,
}

impl XskFds {
    /// Duplicates both.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, umem: self.umem.try_clone()? })
    }
}

/// A bound socket as its maker holds it: nothing mapped, so that the exit of a worker is the last
/// unmapping and huge pages keep it short.
#[derive(Debug)]
pub struct Binding {
    /// To be handed to workers.
    pub fds: XskFds,
    /// What was bound. `umem.huge_pages` says what was got, not what was asked for.
    pub spec: BindingSpec,
    /// Why huge pages were not got, if they were asked for; print it.
    pub huge_pages_refused: Option<String>,
    /// Whether the rings of the now bound socket can be mapped by a process it is handed to (Linux
    /// 6.4). Probed, not inferred from a version. Without it the promise "no rebind" is void.
    pub maps_when_bound: bool,
}

/// A socket with UMEM and rings that is not bound yet: below Linux 6.4 a worker has to map it now.
#[derive(Debug)]
pub struct Unbound {
    /// To be handed to one worker.
    pub fds: XskFds,
    /// What to bind it to, with [`BindingSpec::bind`]. `umem.huge_pages` says what was got.
    pub spec: BindingSpec,
    /// As in [`Binding`].
    pub huge_pages_refused: Option<String>,
}

impl Unbound {
    /// Makes a UMEM and a socket and gives three quarters of the frames to the fill ring. Needs
    /// CAP_NET_RAW, and CAP_IPC_LOCK or enough RLIMIT_MEMLOCK.
    pub fn create(spec: &BindingSpec) -> Result<Self, XskError> {
        let mut spec = *spec;
        let mut huge_pages_refused = None;
        let memfd = match Umem::create(c"nautilus-umem", &spec.umem) {
            Err(XskError::System { step, source }) if spec.umem.huge_pages => {
                huge_pages_refused = Some(format!("{step} on huge pages: {source}"));
                spec.umem.huge_pages = false;
                Umem::create(c"nautilus-umem", &spec.umem)?
            }
            other => other?,
        };
        let umem = Arc::new(Umem::map_as(memfd.as_fd(), spec.umem)?);
        Header { spec: spec.umem, ifindex: spec.ifindex, queue: spec.queue, mode: spec.mode }
            .write(umem.mapping());
        let fd = sys::socket()?;
        register(&fd, &umem)?;
        if let Some(budget) = spec.busy_poll_budget {
            prefer_busy_poll(&fd, budget)?;
        }
        let fds = XskFds { socket: fd, umem: memfd };
        // As the first writer of the ledger: nobody else has the descriptors yet.
        let (mut first, _) = XskSocket::over(fds.try_clone_step()?, umem, ())?;
        first.refill();
        drop(first);
        Ok(Self { fds, spec, huge_pages_refused })
    }
}

impl BindingSpec {
    /// Binds a socket made for this, once. [`XskError::is_busy`] says that the queue has not been let
    /// go of.
    pub fn bind(&self, socket: BorrowedFd<'_>) -> Result<(), XskError> {
        let (mode, flags) = match self.mode {
            CopyMode::Copy => ("XDP_COPY", libc::XDP_COPY),
            CopyMode::ZeroCopy => ("XDP_ZEROCOPY", libc::XDP_ZEROCOPY),
        };
        let flags = flags | libc::XDP_USE_NEED_WAKEUP;
        let (ifindex, queue) = (self.ifindex, self.queue);
        sys::bind(socket, ifindex, queue, flags).map_err(|source| XskError::Bind {
            mode,
            ifindex,
            queue,
            source,
        })
    }
}

impl Binding {
    /// Makes what [`Unbound::create`] makes, and binds it. The caller puts the socket into the
    /// XSKMAP.
    pub fn create(spec: &BindingSpec) -> Result<Self, XskError> {
        let Unbound { fds, spec, huge_pages_refused } = Unbound::create(spec)?;
        bind_patiently(fds.socket.as_fd(), &spec)?;
        let maps_when_bound = super::Given::examine(&fds)?.maps_when_bound;
        Ok(Self { fds, spec, huge_pages_refused, maps_when_bound })
    }
}

impl XskFds {
    pub(super) fn try_clone_step(&self) -> Result<Self, XskError> {
        self.try_clone()
            .map_err(|source| XskError::System { step: "duplicating the descriptors", source })
    }
}

/// Binds, waiting for a queue that its last owner has not let go of: the kernel frees the socket of a
/// dead process from a work queue, which usually takes 12 to 26 ms and longer on a busy machine.
fn bind_patiently(socket: BorrowedFd<'_>, spec: &BindingSpec) -> Result<(), XskError> {
    let start = Instant::now();
    loop {
        match spec.bind(socket) {
            Err(error) if error.is_busy() && start.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn register(fd: &OwnedFd, umem: &Umem) -> Result<(), XskError> {
    let spec = umem.spec();
    let registration = libc::xdp_umem_reg {
        addr: umem.mapping().base().as_ptr() as u64,
        len: spec.frame_bytes() as u64,
        chunk_size: spec.chunk_bytes,
        headroom: crate::limits::UMEM_HEADROOM_BYTES,
        flags: 0,
        tx_metadata_len: 0,
    };
    let fd = fd.as_fd();
    sys::set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration, "XDP_UMEM_REG")?;
    for (name, entries, step) in [
        (libc::XDP_UMEM_FILL_RING, spec.entries[0], "XDP_UMEM_FILL_RING"),
        (libc::XDP_RX_RING, spec.entries[1], "XDP_RX_RING"),
        (libc::XDP_TX_RING, spec.entries[2], "XDP_TX_RING"),
        (libc::XDP_UMEM_COMPLETION_RING, spec.entries[3], "XDP_UMEM_COMPLETION_RING"),
    ] {
        sys::set_option(fd, libc::SOL_XDP, name, &entries, step)?;
    }
    Ok(())
}

/// The socket options of preferred busy polling (Linux 5.11), all of which take CAP_NET_ADMIN.
fn prefer_busy_poll(fd: &OwnedFd, budget: u16) -> Result<(), XskError> {
    /// Microseconds a poll may spin (`SO_BUSY_POLL`); the value of the kernel's own example.
    const BUSY_POLL_US: i32 = 20;
    let fd = fd.as_fd();
    let level = libc::SOL_SOCKET;
    sys::set_option(fd, level, libc::SO_PREFER_BUSY_POLL, &1i32, "SO_PREFER_BUSY_POLL")?;
    sys::set_option(fd, level, libc::SO_BUSY_POLL, &BUSY_POLL_US, "SO_BUSY_POLL")?;
    let budget = i32::from(budget);
    sys::set_option(fd, level, libc::SO_BUSY_POLL_BUDGET, &budget, "SO_BUSY_POLL_BUDGET")
}
