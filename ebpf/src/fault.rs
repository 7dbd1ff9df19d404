//! The adversary from user space: a wire between two interfaces whose lines lose, double, corrupt, hold back
//! and reorder their packets.
//!
//! ```text
//!   IN ──► fault_forward ──► OUT          lost: nowhere        held: AF_XDP socket of the queue of arrival,
//!   IN ◄── fault_back    ◄── OUT                                     which sends it on when it is due
//! ```
//!
//! Lives as long as the process that made it: maps, programs and links have no name, so that a killed one
//! leaves interfaces without a program, and no way through.

mod fate;
mod intf;

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys as raw;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

pub use fate::{FaultFate, FaultFates, FaultRules, PPM, mix};
pub use intf::{CORRUPTED, DUPLICATED, FAULT_LINES_MAX, FAULT_QUEUES_MAX, FaultMeta, REORDERED};
use intf::{FAULT_WAYS, FaultKey, FaultLineValue, FaultOther};

use crate::link::XdpLink;
use crate::sys;
use crate::verdict::Action;

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/fault.skel.rs"));
}

/// Through the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FaultWay {
    /// From the first interface to the second.
    #[default]
    Forward = 0,
    /// From the second to the first.
    Back = 1,
}

impl FaultWay {
    /// Both.
    pub const ALL: [Self; FAULT_WAYS] = [Self::Forward, Self::Back];
}

/// Why a wire could not be made, filled or read.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The kernel refused the program; the verifier's lines are on standard error.
    #[error(
        "cannot load the fault program: needs root, or CAP_BPF with CAP_NET_ADMIN, and Linux 6.1 or later"
    )]
    Load(#[source] libbpf_rs::Error),
    /// Only one XDP program fits on an interface.
    #[error(
        "it has an XDP program already: find it with `ip link show`, take it off with \
         `ip link set dev NAME xdp off`"
    )]
    Occupied,
    /// The driver has no native XDP, or refuses this MTU or number of queues.
    #[error(
        "cannot attach natively: the driver has no XDP, or none at this MTU or with these queues (a \
         veth needs as many as its peer)"
    )]
    Attach(#[source] io::Error),
    /// A call on a map failed.
    #[error("cannot {verb} map {map}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// `read` or `write`.
        verb: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A packet the kernel does not run programs on.
    #[error(
        "cannot run the fault program on a packet of {packet_bytes} bytes (it takes 14 or more)"
    )]
    TestRun {
        /// The packet's length.
        packet_bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What became of a line's packets, all of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Came.
    pub received: u64,
    /// Their bytes, whole frames.
    pub bytes: u64,
    /// Went nowhere.
    pub lost: u64,
    /// Went on with one bit turned.
    pub corrupted: u64,
    /// Went on twice without being held.
    pub duplicated: u64,
    /// Were given to the user-space half.
    pub handed: u64,
    /// Bursts of losses begun.
    pub bursts: u64,
    /// Fate of the last.
    pub last: FaultFate,
}

/// What the program did with a packet in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultOutcome {
    /// Dropped or redirected.
    pub action: Action,
    /// What stands before it if it is for the user-space half.
    pub metadata: Option<FaultMeta>,
    /// The packet as it goes on.
    pub packet: Vec<u8>,
}

/// Loaded programs and their maps. Frees them when dropped, with no link left.
#[derive(Debug)]
pub struct FaultWire {
    programs: [OwnedFd; FAULT_WAYS],
    lines: OwnedFd,
    rules: OwnedFd,
    others: OwnedFd,
    ways: OwnedFd,
    twice: [OwnedFd; FAULT_WAYS],
    xsks: OwnedFd,
}

/// Has an interface take frames for any MAC, as a wire does, for as long as the descriptor lives. Needs
/// `CAP_NET_RAW`.
pub fn hear_all(ifindex: u32) -> io::Result<OwnedFd> {
    sys::promiscuous(ifindex)
}

impl FaultWire {
    /// Loads both programs, without a line and leading nowhere.
    pub fn load() -> Result<Self, FaultError> {
        let mut object = MaybeUninit::uninit();
        let skeleton = skeleton::FaultSkelBuilder::default()
            .open(&mut object)
            .and_then(OpenSkel::load)
            .map_err(FaultError::Load)?;
        let (programs, maps) = (&skeleton.progs, &skeleton.maps);
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| FaultError::Load(error.into()))
        };
        Ok(Self {
            programs: [own(programs.fault_forward.as_fd())?, own(programs.fault_back.as_fd())?],
            lines: own(maps.fault_lines.as_fd())?,
            rules: own(maps.fault_rules.as_fd())?,
            others: own(maps.fault_others.as_fd())?,
            ways: own(maps.fault_ways.as_fd())?,
            twice: [own(maps.fault_twice_forward.as_fd())?, own(maps.fault_twice_back.as_fd())?],
            xsks: own(maps.fault_xsks.as_fd())?,
        })
    }

    /// Says which packets are line `index`, below [`FAULT_LINES_MAX`], and what becomes of them. Counts from
    /// 0 again.
    pub fn set_line(
        &self,
        index: usize,
        to: SocketAddr,
        way: FaultWay,
        rules: FaultRules,
    ) -> Result<(), FaultError> {
        assert!(index < FAULT_LINES_MAX, "line {index} of {FAULT_LINES_MAX}");
        let (place, address) = (index as u32, to.ip().to_canonical().into());
        let key = FaultKey { address, port: to.port().into(), way: way as u32 };
        let fail = |map| move |source| FaultError::Map { map, verb: "write", source };
        sys::map_update(self.rules.as_fd(), &place, &rules.to_value())
            .map_err(fail("fault_rules"))?;
        sys::map_update(self.lines.as_fd(), &key, &place).map_err(fail("fault_lines"))
    }

    /// Says to which interface a way leads.
    pub fn lead(&self, way: FaultWay, ifindex: u32) -> Result<(), FaultError> {
        let fail = |map| move |source| FaultError::Map { map, verb: "write", source };
        let both = &self.twice[way as usize];
        sys::map_update(self.ways.as_fd(), &(way as u32), &ifindex).map_err(fail("fault_ways"))?;
        for place in [0u32, 1] {
            sys::map_update(both.as_fd(), &place, &ifindex).map_err(fail("fault_twice"))?;
        }
        Ok(())
    }

    /// Gives what is to be held of a way, and arrives on this queue (below [`FAULT_QUEUES_MAX`]), to an AF_XDP
    /// socket bound to that queue.
    pub fn set_socket(
        &self,
        way: FaultWay,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), FaultError> {
        assert!(queue < FAULT_QUEUES_MAX, "queue {queue} of {FAULT_QUEUES_MAX}");
        let (place, fd) = (way as u32 * FAULT_QUEUES_MAX + queue, socket.as_raw_fd() as u32);
        sys::map_update(self.xsks.as_fd(), &place, &fd).map_err(|source| FaultError::Map {
            map: "fault_xsks",
            verb: "write",
            source,
        })
    }

    /// Attaches a way's program to the interface it begins at, for as long as the link lives.
    pub fn attach(&self, way: FaultWay, ifindex: u32) -> Result<XdpLink, FaultError> {
        XdpLink::attach(self.programs[way as usize].as_fd(), ifindex).map_err(|source| match source
            .kind()
        {
            io::ErrorKind::ResourceBusy => FaultError::Occupied,
            _ => FaultError::Attach(source),
        })
    }

    /// What has become of a line's packets.
    pub fn counts(&self, index: usize) -> Result<FaultCounts, FaultError> {
        let mut value = FaultLineValue::default();
        sys::map_lookup_locked(self.rules.as_fd(), &(index as u32), &mut value)
            .map_err(|source| FaultError::Map { map: "fault_rules", verb: "read", source })?;
        Ok(FaultCounts {
            received: value.received,
            bytes: value.bytes,
            lost: value.lost,
            corrupted: value.corrupted,
            duplicated: value.duplicated,
            handed: value.handed,
            bursts: value.burst_count,
            last: value.last.into(),
        })
    }

    /// Packets of no line that went a way, all CPUs together.
    pub fn others(&self, way: FaultWay) -> Result<u64, FaultError> {
        let fail = |source| FaultError::Map { map: "fault_others", verb: "read", source };
        let cpus = libbpf_rs::num_possible_cpus().map_err(|error| fail(io::Error::other(error)))?;
        let mut values = vec![FaultOther::default(); cpus];
        sys::map_lookup(self.others.as_fd(), &(way as u32), &mut values).map_err(fail)?;
        Ok(values.iter().map(|value| value.packet_count).sum())
    }

    /// What a way's program does with this packet, a whole frame of at least 14 bytes, on queue 0. It counts
    /// like any other.
    pub fn test_run(&self, way: FaultWay, packet: &[u8]) -> Result<FaultOutcome, FaultError> {
        let fail = |source| FaultError::TestRun { packet_bytes: packet.len(), source };
        let mut context = raw::xdp_md {
            data_end: packet.len() as u32,
            ingress_ifindex: 1,
            ..raw::xdp_md::default()
        };
        let mut out = vec![0; packet.len() + 256];
        let program = self.programs[way as usize].as_fd();
        let (code, bytes, _) =
            sys::program_test_run(program, packet, &mut context, &mut out, 1).map_err(fail)?;
        out.truncate(bytes);
        let strange = |what: String| fail(io::Error::new(io::ErrorKind::InvalidData, what));
        let action = Action::from_xdp(code)
            .ok_or_else(|| strange(format!("the program returned {code}")))?;
        let metadata_bytes = (context.data - context.data_meta) as usize;
        let metadata = out
            .first_chunk::<{ size_of::<FaultMeta>() }>()
            .filter(|_| metadata_bytes == FaultMeta::BYTES)
            .and_then(FaultMeta::read);
        let packet = out.split_off(metadata_bytes.min(out.len()));
        Ok(FaultOutcome { action, metadata, packet })
    }
}
