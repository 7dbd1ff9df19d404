//! The steering program from load to hand-over.
//!
//! ```text
//!   Steering::load ──► Steering ──attach(ifindex)──► XdpLink (one per interface)
//!                         │ fds() over a unix socket    │ the link alone is enough for root
//!   Steering::from_fds ◄──┘      Steering::from_link ◄──┘
//! ```
//!
//! The supervisor owns it and is the only writer of every map but `judged`, `buckets`, `verdicts`,
//! `feeds` and the hot set's. A `Steering` is only
//! descriptors: a new supervisor rebuilds it from the old one's, or from a link a worker kept, and
//! goes on without the program missing a packet. What may be done to the maps is in `tables.rs`.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapInfo, MapType};

use crate::hot::HotHits;
use crate::intf;
use crate::link::XdpLink;
use crate::sys::{self, ProgramStatistics};
use crate::test_run::{self, TestContext, TestOutcome};
use crate::verdict::VERDICT_COUNT;

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}

/// Descriptors that make up a [`Steering`].
pub const STEERING_FD_COUNT: usize = 16;

/// What each is, in the order of [`Steering::fds`]: the program, then the maps by name.
pub const STEERING_FD_NAMES: [&str; STEERING_FD_COUNT] = [
    "program",
    "xsks",
    "sources_exact",
    "sources",
    "ports",
    "served",
    "interfaces",
    "verdicts",
    "list_epoch",
    "limits",
    "buckets",
    "feed_lines",
    "feeds",
    "hot",
    "hot_words",
    "hot_hits",
];

/// The descriptors a worker may have, in the order of [`Steering::hot_fds`]: what it writes, and the
/// hits it reads. Each is usable without any capability.
pub const HOT_FD_NAMES: [&str; 3] = ["hot", "hot_words", "hot_hits"];

/// The descriptor that a worker which applies feeds may have beside those: [`Steering::feeds_fd`].
pub const FEEDS_FD_NAME: &str = "feeds";

/// What each map must look like, in the order of [`STEERING_FD_NAMES`] after the program: type, key
/// bytes, value bytes, entries.
const SHAPES: [Shape; STEERING_FD_COUNT - 1] = [
    (MapType::Xskmap, 4, 4, intf::SOCKETS_MAX),
    (MapType::Hash, size_of::<intf::Address>(), size_of::<intf::Source>(), intf::SOURCES_EXACT_MAX),
    (
        MapType::LpmTrie,
        size_of::<intf::SourcePrefixKey>(),
        size_of::<intf::Source>(),
        intf::SOURCES_MAX,
    ),
    (MapType::Array, 4, size_of::<intf::Service>(), intf::PORTS_MAX),
    (MapType::Hash, size_of::<intf::Address>(), size_of::<intf::Served>(), intf::SERVED_MAX),
    (MapType::Hash, 4, size_of::<intf::Interface>(), intf::INTERFACES_MAX),
    (MapType::PercpuArray, 4, size_of::<intf::Tally>(), VERDICT_COUNT as u32),
    (MapType::Array, 4, size_of::<u64>(), 1),
    (MapType::Array, 4, size_of::<intf::Limit>(), intf::LIMITS_MAX),
    (MapType::LruHash, size_of::<intf::Address>(), size_of::<intf::Bucket>(), intf::BUCKETS_MAX),
    (
        MapType::Hash,
        size_of::<intf::FeedLineKey>(),
        size_of::<intf::FeedLine>(),
        intf::FEED_LINES_TOTAL,
    ),
    FEEDS_SHAPE,
    HOT_SHAPES[0],
    HOT_SHAPES[1],
    HOT_SHAPES[2],
];

type Shape = (MapType, usize, usize, u32);

/// That of `feeds`.
const FEEDS_SHAPE: Shape = (MapType::Array, 4, size_of::<intf::FeedSlotValue>(), intf::FEEDS_MAX);

/// The same in the order of [`HOT_FD_NAMES`].
const HOT_SHAPES: [Shape; HOT_FD_NAMES.len()] = [
    (MapType::Array, 4, size_of::<intf::HotSlot>(), intf::HOT_SLOTS),
    (MapType::Array, 4, size_of::<intf::HotWordsValue>(), intf::HOT_CACHES as u32),
    (MapType::Array, 4, size_of::<u64>() * intf::HOT_HITS_ROW_WORDS, ONE_A_CPU),
];

/// Entries of a map that has one for each possible CPU.
const ONE_A_CPU: u32 = 0;

/// What cannot change once the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest frame that goes to a socket, Ethernet header included. Too low: jumbo requests take
    /// the kernel path. Too high: the socket drops what does not fit its chunk.
    pub frame_bytes_max: u32,
}

impl Default for Options {
    /// A 2,048-byte chunk less 256 bytes of headroom.
    fn default() -> Self {
        Self { frame_bytes_max: 2048 - 272 }
    }
}

/// Why a steering program could not be loaded, attached, taken over, filled or read.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The kernel refused the program; the verifier's lines are on standard error.
    #[error("cannot load the steering program (needs root, Linux 6.1 or later, BPF enabled)")]
    Load(#[source] libbpf_rs::Error),
    /// Only one XDP program fits on an interface.
    #[error(
        "interface {ifindex} already has an XDP program: find it with `ip link show`, \
         take it off with `ip link set dev NAME xdp off`"
    )]
    Occupied {
        /// The interface.
        ifindex: u32,
    },
    /// The driver has no native XDP, or refuses this MTU or number of queues.
    #[error(
        "cannot attach to interface {ifindex} in native mode: its driver has none, or none at this \
         MTU or with these queues (a veth needs as many as its peer)"
    )]
    Attach {
        /// The interface.
        ifindex: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A received descriptor is not what its place says.
    #[error("descriptor of {name} is not usable: {problem}; load the steering program anew")]
    WrongDescriptor {
        /// A name of [`STEERING_FD_NAMES`], or `link`.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A call on a map failed.
    #[error("cannot {verb} {subject} in map {map}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// `read`, `write`, `remove` or `list`.
        verb: &'static str,
        /// The entry.
        subject: String,
        /// The kernel's answer; `E2BIG` or `ENOSPC` is a full map.
        source: io::Error,
    },
    /// An entry no packet could match rightly.
    #[error("{0}")]
    Refused(String),
    /// A packet the kernel does not run programs on, or an interface it does not know.
    #[error(
        "cannot run the steering program on a packet of {packet_bytes} bytes (it takes 14 or more)"
    )]
    TestRun {
        /// The packet's length.
        packet_bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A descriptor could not be duplicated or examined.
    #[error("cannot handle the descriptors of the steering program")]
    Descriptor(#[source] io::Error),
}

/// A loaded steering program and its maps. Frees them when dropped, unless a link or another
/// process still holds them.
#[derive(Debug)]
pub struct Steering {
    program: OwnedFd,
    pub(crate) maps: [OwnedFd; STEERING_FD_COUNT - 1],
}

impl Steering {
    /// Loads the program with empty maps: attached like this, it passes everything.
    pub fn load(options: Options) -> Result<Self, SteeringError> {
        Self::load_with(options, None, false)
    }

    /// Loads it on the maps of another, but for those that only the program writes: a second instance that
    /// decides alike and leaves no trace in the other's.
    pub(crate) fn load_beside(live: &Self, options: Options) -> Result<Self, SteeringError> {
        Self::load_with(options, Some(live), true)
    }

    /// The same with an empty map of sockets.
    pub(crate) fn load_beside_without_sockets(
        live: &Self,
        options: Options,
    ) -> Result<Self, SteeringError> {
        Self::load_with(options, Some(live), false)
    }

    fn load_with(
        options: Options,
        beside: Option<&Self>,
        same_sockets: bool,
    ) -> Result<Self, SteeringError> {
        let mut object = MaybeUninit::uninit();
        let mut open =
            skeleton::SteerSkelBuilder::default().open(&mut object).map_err(SteeringError::Load)?;
        let rodata = open.maps.rodata_data.as_deref_mut().expect("steer.bpf.c has constants");
        rodata.frame_bytes_max = options.frame_bytes_max;
        let cpus = libbpf_rs::num_possible_cpus().map_err(SteeringError::Load)? as u32;
        open.maps.hot_hits.set_max_entries(cpus).map_err(SteeringError::Load)?;
        if let Some(live) = beside {
            let [
                _,
                xsks,
                exact,
                sources,
                ports,
                served,
                interfaces,
                _,
                epoch,
                limits,
                _,
                feed_lines,
                _,
                hot,
                words,
                _,
            ] = live.fds();
            let maps = &mut open.maps;
            if same_sockets {
                maps.xsks.reuse_fd(xsks).map_err(SteeringError::Load)?;
            }
            for (map, fd) in [
                (&mut maps.sources_exact, exact),
                (&mut maps.sources, sources),
                (&mut maps.ports, ports),
                (&mut maps.served, served),
                (&mut maps.interfaces, interfaces),
                (&mut maps.list_epoch, epoch),
                (&mut maps.limits, limits),
                (&mut maps.feed_lines, feed_lines),
                (&mut maps.hot, hot),
                (&mut maps.hot_words, words),
            ] {
                map.reuse_fd(fd).map_err(SteeringError::Load)?;
            }
        }
        let skeleton = open.load().map_err(SteeringError::Load)?;
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(SteeringError::Descriptor);
        let maps = &skeleton.maps;
        // So that a link leads to them even where the program does not use them.
        for map in [&maps.feed_lines, &maps.feeds, &maps.hot, &maps.hot_words, &maps.hot_hits] {
            let map = map.as_fd();
            sys::bind_map(skeleton.progs.steer.as_fd(), map).map_err(SteeringError::Descriptor)?;
        }
        Self::from_fds([
            own(skeleton.progs.steer.as_fd())?,
            own(maps.xsks.as_fd())?,
            own(maps.sources_exact.as_fd())?,
            own(maps.sources.as_fd())?,
            own(maps.ports.as_fd())?,
            own(maps.served.as_fd())?,
            own(maps.interfaces.as_fd())?,
            own(maps.verdicts.as_fd())?,
            own(maps.list_epoch.as_fd())?,
            own(maps.limits.as_fd())?,
            own(maps.buckets.as_fd())?,
            own(maps.feed_lines.as_fd())?,
            own(maps.feeds.as_fd())?,
            own(maps.hot.as_fd())?,
            own(maps.hot_words.as_fd())?,
            own(maps.hot_hits.as_fd())?,
        ])
    }

    /// From descriptors in the order of [`Self::fds`], received from another process. Needs no
    /// capability. Refused when a map has another shape than this build expects.
    pub fn from_fds(fds: [OwnedFd; STEERING_FD_COUNT]) -> Result<Self, SteeringError> {
        let [program, maps @ ..] = fds;
        let (name, ..) = sys::program_info(program.as_fd())
            .map_err(|error| wrong("program", error.to_string()))?;
        if name != "steer" {
            return Err(wrong("program", format!("it is a program named {name:?}")));
        }
        for ((map, shape), name) in maps.iter().zip(SHAPES).zip(&STEERING_FD_NAMES[1..]) {
            check_map(map.as_fd(), name, shape)?;
        }
        Ok(Self { program, maps })
    }

    /// From one link alone: the kernel knows the link's program and the program's maps. Needs
    /// `CAP_SYS_ADMIN`. A worker that keeps only links keeps no way to change
    /// a steering map; those of the hot set and `feeds` it is handed apart.
    pub fn from_link(link: &XdpLink) -> Result<Self, SteeringError> {
        let problem = |error: io::Error| wrong("link", error.to_string());
        let program = link.program_id().and_then(sys::program_by_id).map_err(problem)?;
        let (_, _, map_ids) = sys::program_info(program.as_fd()).map_err(problem)?;
        let mut found: [Option<OwnedFd>; STEERING_FD_COUNT - 1] = Default::default();
        for id in map_ids {
            let map = sys::map_by_id(id).map_err(problem)?;
            let info =
                MapInfo::new(map.as_fd()).map_err(|error| wrong("link", error.to_string()))?;
            let place = info.name().ok().and_then(|name| {
                STEERING_FD_NAMES[1..].iter().position(|expected| *expected == name)
            });
            if let Some(place) = place {
                found[place] = Some(map);
            }
        }
        let mut fds = vec![program];
        for (map, name) in found.into_iter().zip(&STEERING_FD_NAMES[1..]) {
            fds.push(map.ok_or_else(|| wrong(name, "its program has no such map".into()))?);
        }
        Self::from_fds(fds.try_into().expect("one for the program and one per name"))
    }

    /// Its descriptors in the order of [`STEERING_FD_NAMES`], to hand to another process. Whoever
    /// holds a map's descriptor can change the map, capability or not.
    pub fn fds(&self) -> [BorrowedFd<'_>; STEERING_FD_COUNT] {
        std::array::from_fn(|place| match place.checked_sub(1) {
            None => self.program.as_fd(),
            Some(map) => self.maps[map].as_fd(),
        })
    }

    /// A second hold on the same program and maps.
    pub fn try_clone(&self) -> Result<Self, SteeringError> {
        let clone = |fd: &OwnedFd| fd.try_clone().map_err(SteeringError::Descriptor);
        let mut maps = Vec::with_capacity(self.maps.len());
        for map in &self.maps {
            maps.push(clone(map)?);
        }
        let maps = maps.try_into().expect("as many");
        Ok(Self { program: clone(&self.program)?, maps })
    }

    /// Exactly the descriptors a worker may have, in the order of [`HOT_FD_NAMES`].
    pub fn hot_fds(&self) -> [BorrowedFd<'_>; HOT_FD_NAMES.len()] {
        let [.., slots, words, hits] = self.fds();
        [slots, words, hits]
    }

    /// The slots in which workers say what they have applied of feeds.
    pub fn feeds_fd(&self) -> BorrowedFd<'_> {
        let [.., feeds, _, _, _] = self.fds();
        feeds
    }

    /// How often the program answered from the hot set.
    pub fn hot_hits(&self) -> Result<HotHits, SteeringError> {
        let [.., hits] = self.hot_fds();
        HotHits::map(hits)
    }

    /// Attaches to an interface of this network namespace, natively, for as long as the link lives.
    pub fn attach(&self, ifindex: u32) -> Result<XdpLink, SteeringError> {
        XdpLink::attach(self.program.as_fd(), ifindex).map_err(|source| {
            if source.kind() == io::ErrorKind::ResourceBusy {
                SteeringError::Occupied { ifindex }
            } else {
                SteeringError::Attach { ifindex, source }
            }
        })
    }

    /// What the program would do with this packet, a whole frame of at least 14 bytes. It
    /// counts like any other packet. Of a frame beyond a page less headroom (3,520 bytes on x86-64) the
    /// program sees and counts only that much; no driver hands it such frames. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn test_run(
        &self,
        packet: &[u8],
        context: TestContext,
    ) -> Result<TestOutcome, SteeringError> {
        self.test_run_repeat(packet, context, 1)
    }

    /// The same `repeat` times over, for its mean duration.
    pub fn test_run_repeat(
        &self,
        packet: &[u8],
        context: TestContext,
        repeat: u32,
    ) -> Result<TestOutcome, SteeringError> {
        test_run::test_run(self.program.as_fd(), packet, context, repeat)
            .map_err(|source| SteeringError::TestRun { packet_bytes: packet.len(), source })
    }

    /// What the verifier and the JIT of the running kernel made of the program.
    pub fn statistics(&self) -> Result<ProgramStatistics, SteeringError> {
        sys::program_info(self.program.as_fd())
            .map(|(_, statistics, _)| statistics)
            .map_err(SteeringError::Descriptor)
    }
}

fn wrong(name: &'static str, problem: String) -> SteeringError {
    SteeringError::WrongDescriptor { name, problem }
}

/// A received descriptor of the hot set's map at `place` in [`HOT_FD_NAMES`].
pub(crate) fn check_hot_map(map: BorrowedFd<'_>, place: usize) -> Result<(), SteeringError> {
    check_map(map, HOT_FD_NAMES[place], HOT_SHAPES[place])
}

/// A received descriptor of `feeds`.
pub(crate) fn check_feeds_map(map: BorrowedFd<'_>) -> Result<(), SteeringError> {
    check_map(map, FEEDS_FD_NAME, FEEDS_SHAPE)
}

fn check_map(
    map: BorrowedFd<'_>,
    name: &'static str,
    (kind, key_bytes, value_bytes, entries): Shape,
) -> Result<(), SteeringError> {
    sys::require_kind(map, "bpf-map").map_err(|error| wrong(name, error.to_string()))?;
    let info = MapInfo::new(map).map_err(|error| wrong(name, error.to_string()))?;
    let found = (info.info.key_size, info.info.value_size, info.info.max_entries);
    let entries = match entries {
        ONE_A_CPU => {
            libbpf_rs::num_possible_cpus().map_err(|error| wrong(name, error.to_string()))? as u32
        }
        entries => entries,
    };
    let expected = (key_bytes as u32, value_bytes as u32, entries);
    if info.name().ok() != Some(name) || info.map_type() != kind || found != expected {
        let problem = format!(
            "it is {:?}, a {:?} with (key bytes, value bytes, entries) {found:?}; \
             this build uses a {kind:?} with {expected:?}",
            info.name().unwrap_or("?"),
            info.map_type()
        );
        return Err(wrong(name, problem));
    }
    Ok(())
}
