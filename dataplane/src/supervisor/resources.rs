//! Everything the supervisor holds for its workers: regions, sockets, the steering program.
//!
//! ```text
//!   name in a message   what                          handed to
//!   control             control region                every worker
//!   cache.<p>           memory of the cache at place p every worker; the front, read-only
//!   hot, hot_words,     what XDP answers itself, and  every worker
//!   hot_hits            how often it did
//!   feeds               what of feeds is applied, and every worker
//!                       what XDP dropped of it
//!   front, wake         rings of the front, eventfd   every worker, the front
//!   capture             rings of the capture process  every worker, the capture process
//!   tcp.<p>.<n>,        the front's sockets for the   the front; every worker, to keep them
//!   udp.<p>.<n>         cache at place p
//!   xsk.<n>, umem.<n>   socket and packet memory      every worker
//!   link.<i>            the program on interface i    the active worker only
//!   listener            worker-<pid>.sock             the active worker only
//! ```
//!
//! Below Linux 6.4 no worker can map a bound socket: a standby is handed sockets of its own instead
//! (`fresh.rs`), which take the place of these when it is promoted.
//!
//! Workers get no other map of the steering program: whoever holds a map can change it. A new supervisor
//! finds the maps through the link.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use nautilus_ebpf::intf;
use nautilus_ebpf::{
    FEEDS_FD_NAME, HOT_FD_NAMES, HotHits, Options, Steering, SteeringError, XdpLink,
};
use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::region::RegionError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::caches::{CacheOpenError, CacheOpened, OpenCache, open_all};
use super::counters::Counted;
use super::fill::fill;
use super::front_resources::{FrontOpenError, FrontResources};
use super::handover::{Fds, InterfaceOpened, QueueOpened};
use super::inspect::{Refusal, inspect};
use super::mirror::Mirror;
use super::near::near;
use super::netlink::Link;
use super::sys::join_group;
use super::team_resources::{TeamError, TeamResources};
use crate::config::{Auto, Feed, Interface, NodeConfig, PortKind, Resolved};
use crate::limits::{QUEUES_MAX, XDP_HEADROOM_BYTES};
use crate::xsk::{Binding, BindingSpec, CopyMode, UmemSpec, XskError, XskFds};

/// Why a resource could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A worker would have to bind all its sockets anew with each standby.
    #[error("worker.count: several workers need Linux 6.4, which maps the rings of bound sockets")]
    SeveralWorkers,
    /// What the workers share.
    #[error(transparent)]
    Team(#[from] TeamError),
    /// The interface is not one that can be served.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The steering program.
    #[error("interface {name}: {source}", source = chain(.source))]
    Steering {
        /// Interface in question, or "(all)".
        name: String,
        /// What the program's loader says.
        source: SteeringError,
    },
    /// A socket.
    #[error("interface {name}: {source}")]
    Socket {
        /// Interface in question.
        name: String,
        /// Which step.
        source: XskError,
    },
    /// A multicast group.
    #[error("interface {name}: cannot join {group}: {source}")]
    Group {
        /// Interface in question.
        name: String,
        /// The group.
        group: IpAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The interfaces have more queues than the steering program has sockets.
    #[error("interface {0}: queues 0..=63 in all can be served; name fewer in `queues`")]
    Queues(String),
    /// The control region.
    #[error("control region: {0}")]
    Region(#[from] RegionError),
    /// The host has not reserved enough huge pages for packet memory, and the node file insists.
    #[error(
        "port.huge_pages: interface {name} queue {queue}: {why}; reserve more (`sysctl \
         vm.nr_hugepages`), or write \"auto\""
    )]
    HugePages {
        /// Interface in question.
        name: String,
        /// Queue in question.
        queue: u32,
        /// What the kernel said.
        why: String,
    },
    /// A cache.
    #[error(transparent)]
    Cache(#[from] CacheOpenError),
    /// The front's rings.
    #[error(transparent)]
    Front(#[from] FrontOpenError),
    /// The rings of what is captured.
    #[error("capture.buffer_mb: {0}")]
    Capture(#[source] RegionError),
    /// Duplicating descriptors.
    #[error("cannot duplicate a descriptor: {0}")]
    Descriptor(#[from] std::io::Error),
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// One receive queue that is served.
#[derive(Debug)]
pub struct Queue {
    /// Its number on the interface.
    pub queue: u32,
    /// Packet memory on huge pages.
    pub huge_pages: bool,
    /// Number of the worker that serves it.
    pub worker: u32,
    /// Socket and packet memory.
    pub fds: XskFds,
    /// Its counters as far as they are in the metric bank.
    pub counted: Counted,
    /// A worker can map it although it is bound.
    pub maps_when_bound: bool,
    /// What it is still to be bound to.
    pub unbound: Option<BindingSpec>,
}

/// One interface that is served.
#[derive(Debug)]
pub struct Opened {
    /// Name, index and MTU when it was opened.
    pub interface: InterfaceOpened,
    /// First of its places in the steering program's socket map.
    pub first_socket: u32,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// The program on it.
    pub link: XdpLink,
}

/// Whether an interface may be opened on ordinary pages when huge ones cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// At the start, when the node file says `huge_pages = true`.
    Insisted,
    /// While the node runs: the pages of the interface that is gone are not free yet, and being served
    /// matters more than a faster reap.
    Preferred,
}

impl Opened {
    /// Opens the queues of an interface and attaches the program: sockets first, so that the first
    /// packet finds them.
    pub fn open(
        steering: &Steering,
        resolved: &Resolved,
        wanted: &Interface,
        link: Option<&Link>,
        first_socket: u32,
        huge_pages: HugePages,
    ) -> Result<(Self, Vec<String>), OpenError> {
        let numbers = inspect(wanted, link, 0)?;
        let Some(link) = link else { return Err(Refusal::Missing(wanted.name.clone()).into()) };
        let name = link.name.clone();
        let places = numbers.iter().max().map_or(0, |last| last + 1);
        if (first_socket + places) as usize > QUEUES_MAX {
            return Err(OpenError::Queues(name));
        }
        let mut notes = Vec::new();
        let mut queues = Vec::new();
        for (place, queue) in numbers.into_iter().enumerate() {
            let spec = binding_spec(resolved, link.ifindex, queue);
            let worker = place as u32 % resolved.config.worker.count;
            let _near = near(&[resolved.cores[worker as usize]]);
            let binding = Binding::create(&spec)
                .map_err(|source| OpenError::Socket { name: name.clone(), source })?;
            if let Some(why) = binding.huge_pages_refused {
                if huge_pages == HugePages::Insisted {
                    return Err(OpenError::HugePages { name, queue, why });
                }
                notes.push(format!("interface {name} queue {queue}: {why}; ordinary pages taken"));
            }
            if !binding.maps_when_bound && resolved.config.worker.count > 1 {
                return Err(OpenError::SeveralWorkers);
            }
            if !binding.maps_when_bound {
                notes.push(format!(
                    "interface {name} queue {queue}: the rings of a bound socket cannot be mapped \
                     (Linux 6.4 can): every worker binds sockets of its own"
                ));
            }
            queues.push(Queue {
                queue,
                huge_pages: binding.spec.umem.huge_pages,
                worker,
                fds: binding.fds,
                counted: Counted::default(),
                maps_when_bound: binding.maps_when_bound,
                unbound: None,
            });
        }
        let failed = |source| OpenError::Steering { name: name.clone(), source };
        let entry = intf::Interface { mac: link.mac, queue_count: places as u16, first_socket };
        steering.set_interface(link.ifindex, entry).map_err(failed)?;
        // A socket that no worker can map must not be given packets.
        for queue in queues.iter().filter(|queue| queue.maps_when_bound) {
            steering
                .set_socket(first_socket + queue.queue, queue.fds.socket.as_fd())
                .map_err(failed)?;
        }
        let attached = steering.attach(link.ifindex).map_err(failed)?;
        let (ifindex, mtu) = (link.ifindex, link.mtu);
        let interface = InterfaceOpened { name, ifindex, mtu };
        Ok((Self { interface, first_socket, queues, link: attached }, notes))
    }

    /// Places in the socket map, used or not.
    pub fn places(&self) -> u32 {
        self.queues.iter().map(|queue| queue.queue + 1).max().unwrap_or(0)
    }
}

/// What a socket of this queue is bound to, and with what.
pub fn binding_spec(resolved: &Resolved, ifindex: u32, queue: u32) -> BindingSpec {
    let port = &resolved.config.port;
    BindingSpec {
        ifindex,
        queue,
        mode: if port.zero_copy { CopyMode::ZeroCopy } else { CopyMode::Copy },
        umem: UmemSpec::new(port.frames, resolved.chunk_bytes, resolved.huge_pages),
        busy_poll_budget: port.prefer_busy_poll.then_some(port.busy_poll_budget),
    }
}

/// Everything that is handed out.
#[derive(Debug)]
pub struct Resources {
    /// Cells, metrics, events, next hops.
    pub control: ControlRegion,
    /// The caches, by place.
    pub caches: Vec<OpenCache>,
    /// What the front serves with, where the node has one.
    pub front: Option<FrontResources>,
    /// What workers see on its way to files, where something is captured.
    pub capture: Option<CaptureRegion>,
    /// What the workers reach each other and are woken by.
    pub team: TeamResources,
    /// The steering program; none with the socket port.
    pub steering: Option<Steering>,
    /// How often that answered by itself.
    pub hot_hits: Option<HotHits>,
    /// Interfaces, in the order of the node file; empty with the socket port.
    pub interfaces: Vec<Opened>,
    /// The standby's own sockets, an entry an interface, where it cannot map those of `interfaces`.
    pub fresh: Option<Vec<Vec<Queue>>>,
    /// Sockets whose only purpose is to be members of the feeds' groups.
    pub memberships: Vec<OwnedFd>,
    /// Counts the sets of descriptors; +1 whenever one is replaced.
    pub serial: u64,
    /// Counts the changes of the caches since this supervisor began.
    pub changes: u64,
}

impl Resources {
    /// Opens everything a node needs. The notes are for the operator.
    pub fn open(resolved: &Resolved, mirror: &Mirror) -> Result<(Self, Vec<String>), OpenError> {
        let _near = near(&resolved.cores);
        let control = ControlRegion::create(c"nautilus-control")?;
        let caches = open_all(&resolved.config, 0)?;
        Self::open_with(control, caches, resolved, mirror)
    }

    /// The same with a control region and caches that are there.
    pub fn open_with(
        control: ControlRegion,
        caches: Vec<OpenCache>,
        resolved: &Resolved,
        mirror: &Mirror,
    ) -> Result<(Self, Vec<String>), OpenError> {
        let _near = near(&resolved.cores);
        let front = match resolved.config.has_front() {
            true => Some(FrontResources::open(resolved.config.worker.count as usize)?),
            false => None,
        };
        let workers = resolved.config.worker.count as usize;
        let capture = resolved.config.capture.as_ref();
        let capture = capture
            .map(|capture| CaptureRegion::create(c"nautilus-capture", workers, capture.buffer_mb));
        let mut this = Self {
            control,
            caches,
            front,
            capture: capture.transpose().map_err(OpenError::Capture)?,
            team: TeamResources::open(resolved.config.worker.count as usize)?,
            steering: None,
            hot_hits: None,
            interfaces: Vec::new(),
            fresh: None,
            memberships: Vec::new(),
            serial: 1,
            changes: 0,
        };
        let mut notes = Vec::new();
        if resolved.config.port.kind == PortKind::Xdp {
            // All refusals before the first change to any interface.
            for wanted in &resolved.config.interface {
                inspect(wanted, mirror.link_named(&wanted.name), 0)?;
            }
            let frame_bytes_max = resolved.chunk_bytes - XDP_HEADROOM_BYTES;
            let steering = Steering::load(Options { frame_bytes_max })
                .map_err(|source| OpenError::Steering { name: "(all)".into(), source })?;
            fill(&steering, &this.caches, &resolved.config, mirror)?;
            let huge_pages = match resolved.config.port.huge_pages {
                Auto::Is(true) => HugePages::Insisted,
                _ => HugePages::Preferred,
            };
            let mut first_socket = 0;
            for wanted in &resolved.config.interface {
                let link = mirror.link_named(&wanted.name);
                let (opened, said) =
                    Opened::open(&steering, resolved, wanted, link, first_socket, huge_pages)?;
                first_socket += opened.places();
                this.interfaces.push(opened);
                notes.extend(said);
            }
            let source = |source| OpenError::Steering { name: "(all)".into(), source };
            this.hot_hits = Some(steering.hot_hits().map_err(source)?);
            this.steering = Some(steering);
            this.join(&resolved.config)?;
        }
        Ok((this, notes))
    }

    /// Joins the feeds' groups on every interface, so that switches send them here.
    pub fn join(&mut self, config: &NodeConfig) -> Result<(), OpenError> {
        self.memberships.clear();
        for opened in &self.interfaces {
            for line in config.feed.iter().flat_map(Feed::every_line) {
                let family =
                    if line.group.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let failed = |source| OpenError::Group {
                    name: opened.interface.name.clone(),
                    group: line.group,
                    source,
                };
                // Never bound: it receives nothing, it only is a member.
                let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
                    .map_err(|errno| failed(errno.into()))?;
                join_group(fd.as_fd(), opened.interface.ifindex, line.group).map_err(failed)?;
                self.memberships.push(fd);
            }
        }
        Ok(())
    }

    /// The caches that a new process of the node is given.
    pub fn caches_handed(&self) -> Vec<CacheOpened> {
        let handed = self.caches.iter().filter(|cache| cache.is_handed());
        handed.map(|cache| cache.opened.clone()).collect()
    }

    /// What every worker is handed.
    pub fn for_standby(&self) -> Result<Fds, OpenError> {
        let mut fds = Fds::default();
        fds.push("control", self.control.fd().try_clone_to_owned()?);
        for cache in self.caches.iter().filter(|cache| cache.is_handed()) {
            cache.append_to(&mut fds)?;
        }
        if let Some(steering) = &self.steering {
            for (name, fd) in HOT_FD_NAMES.iter().zip(steering.hot_fds()) {
                fds.push(*name, fd.try_clone_to_owned()?);
            }
            fds.push(FEEDS_FD_NAME, steering.feeds_fd().try_clone_to_owned()?);
        }
        if let Some(front) = &self.front {
            front.append_to(&mut fds)?;
        }
        if let Some(capture) = &self.capture {
            fds.push("capture", capture.try_clone()?);
        }
        self.team.append_to(&mut fds)?;
        for (index, (_, queue)) in self.queues_for_standby().enumerate() {
            let XskFds { socket, umem } = queue.fds.try_clone()?;
            fds.push(format!("xsk.{index}"), socket);
            fds.push(format!("umem.{index}"), umem);
        }
        Ok(fds)
    }

    /// What only the active worker is handed, besides its listener.
    pub fn for_active(&self) -> Result<Fds, OpenError> {
        let mut fds = Fds::default();
        for (index, opened) in self.interfaces.iter().enumerate() {
            fds.push(format!("link.{index}"), opened.link.try_clone()?.into());
        }
        Ok(fds)
    }

    /// What a standby is handed of each queue, with the place of its interface.
    fn queues_for_standby(&self) -> impl Iterator<Item = (usize, &Queue)> {
        self.interfaces.iter().enumerate().flat_map(|(index, opened)| {
            let fresh = self.fresh.as_ref().and_then(|all| all.get(index));
            fresh.unwrap_or(&opened.queues).iter().map(move |queue| (index, queue))
        })
    }

    /// The queues in the order of their descriptors.
    pub fn queues_opened(&self) -> Vec<QueueOpened> {
        let row = |(index, queue): (usize, &Queue)| QueueOpened {
            interface: index as u16,
            queue: queue.queue,
            huge_pages: queue.huge_pages,
            worker: queue.worker,
        };
        self.queues_for_standby().map(row).collect()
    }

    /// Puts every socket into the program that a worker can map: what arrives is theirs.
    pub fn steer(&self) -> Result<(), OpenError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        for opened in &self.interfaces {
            let can = |queue: &&Queue| queue.unbound.is_none();
            for queue in opened.queues.iter().filter(can) {
                let place = opened.first_socket + queue.queue;
                let set = steering.set_socket(place, queue.fds.socket.as_fd());
                set.map_err(|source| OpenError::Steering {
                    name: opened.interface.name.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Takes every socket out of the program: what arrives from now on goes to the kernel.
    pub fn stop_steering(&self) {
        let Some(steering) = &self.steering else { return };
        for opened in &self.interfaces {
            for queue in &opened.queues {
                let _ = steering.remove_socket(opened.first_socket + queue.queue);
            }
        }
    }
}
