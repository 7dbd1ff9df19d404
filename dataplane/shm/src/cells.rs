//! Who runs the node: one cell a worker, one for the supervisor.
//!
//! ```text
//!   WorkerCell      identity (sequence lock)  <- supervisor     pid, generation, state, core, times
//!                   pulse (relaxed words)     <- worker         heartbeat, sleep, busy, idle, loops
//!   SupervisorCell  identity, interfaces      <- supervisor     pid, node id, links
//!                   heartbeat, last gap       <- supervisor
//! ```
//!
//! A worker's cell is that of its process slot, not of its role: the standby has one, too. What two
//! processes write never shares a cache line. Everybody reads; times are `CLOCK_MONOTONIC`.

use crate::life::LifeCell;
use crate::seqlock::{SeqLock, WriterBusy};
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering};

/// Bytes of a node id; the id rules allow 63.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// Bytes of an interface name (`IFNAMSIZ` with its terminating zero).
pub const INTERFACE_NAME_BYTES_MAX: usize = 16;

/// Interfaces one node serves.
pub const INTERFACES_MAX: usize = 16;

/// What a worker process is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WorkerState {
    /// No process has had this cell.
    #[default]
    Empty = 0,
    /// Running, pinned and mapped; waits to be promoted.
    Standby = 1,
    /// Owns the sockets.
    Active = 2,
    /// Its process has ended.
    Dead = 3,
}

impl WorkerState {
    /// Name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Standby => "standby",
            Self::Active => "active",
            Self::Dead => "dead",
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Standby,
            2 => Self::Active,
            3 => Self::Dead,
            _ => Self::Empty,
        }
    }
}

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PollPolicy {
    /// Never sleeps.
    #[default]
    Busy = 0,
    /// Sleeps after a while without packets.
    Adaptive = 1,
    /// Sleeps whenever there are none.
    Interrupt = 2,
}

impl PollPolicy {
    /// Name in the configuration and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
            Self::Interrupt => "interrupt",
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Adaptive,
            2 => Self::Interrupt,
            _ => Self::Busy,
        }
    }
}

/// What the supervisor says about a worker process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// Process id in the supervisor's namespace; 0 for none.
    pub pid: u32,
    /// What it is for.
    pub state: WorkerState,
    /// Processor it is pinned to.
    pub core: u32,
    /// Promotions of the node up to the one that made this worker active; 0 before.
    pub generation: u64,
    /// When it was started.
    pub started_ns: u64,
    /// When it was made active; 0 before.
    pub promoted_ns: u64,
}

impl WorkerIdentity {
    fn to_words(self) -> [u64; 6] {
        let pid = u64::from(self.pid);
        let core = u64::from(self.core);
        [pid, self.state as u64, core, self.generation, self.started_ns, self.promoted_ns]
    }

    fn from_words(words: [u64; 6]) -> Self {
        let [pid, state, core, generation, started_ns, promoted_ns] = words;
        let state = WorkerState::from_code(state);
        Self { pid: pid as u32, state, core: core as u32, generation, started_ns, promoted_ns }
    }
}

/// What a worker says about itself, each number by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerPulse {
    /// Last turn of the loop (a standby: last look at its socket).
    pub heartbeat_ns: u64,
    /// Deadline of the sleep it announced before going to sleep; 0 while awake. Before this moment
    /// an old heartbeat is sleep and not death.
    pub asleep_until_ns: u64,
    /// Time in turns that did something, in nanoseconds since the process started.
    pub busy_ns: u64,
    /// Time in other turns, sleep included.
    pub idle_ns: u64,
    /// Turns of the loop since the process started.
    pub loops: u64,
    /// How it waits.
    pub poll_policy: PollPolicy,
}

impl WorkerPulse {
    /// How long the worker has been silent beyond its announced sleep, at `now_ns`.
    pub fn silent_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.heartbeat_ns.max(self.asleep_until_ns))
    }
}

#[repr(C, align(128))]
#[derive(Debug, Default)]
struct PulseWords {
    heartbeat_ns: AtomicU64,
    asleep_until_ns: AtomicU64,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    loops: AtomicU64,
    poll_policy: AtomicU64,
}

/// One worker process slot.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct WorkerCell {
    identity: Padded<SeqLock<6>>,
    pulse: PulseWords,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for WorkerCell {}

impl WorkerCell {
    /// Replaces the identity. Single writer: the supervisor.
    pub fn set_identity(&self, identity: &WorkerIdentity) {
        self.identity.0.write(&identity.to_words());
    }

    /// The identity as one.
    pub fn identity(&self) -> Result<WorkerIdentity, WriterBusy> {
        self.identity.0.read().map(WorkerIdentity::from_words)
    }

    /// The identity as the supervisor itself wrote it, or as its dead predecessor left it.
    pub fn own_identity(&self) -> WorkerIdentity {
        WorkerIdentity::from_words(self.identity.0.own())
    }

    /// Starts the pulse of a new process: zeroes, the policy, and a first beat. Single writer: the
    /// worker, or the supervisor before it starts one.
    pub fn begin(&self, now_ns: u64, policy: PollPolicy) {
        for word in [&self.pulse.asleep_until_ns, &self.pulse.busy_ns, &self.pulse.idle_ns] {
            word.store(0, Ordering::Relaxed);
        }
        self.pulse.loops.store(0, Ordering::Relaxed);
        self.pulse.poll_policy.store(policy as u64, Ordering::Relaxed);
        self.pulse.heartbeat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Says that the worker is alive. Single writer: the worker.
    #[inline(always)]
    pub fn beat(&self, now_ns: u64) {
        self.pulse.heartbeat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Announces a sleep that ends at `until_ns` at the latest; 0 after waking up. Single writer: the
    /// worker, before it blocks.
    #[inline]
    pub fn set_asleep_until(&self, until_ns: u64) {
        // SYNC POINT: pairs with the acquire load in `pulse`: who sees the announcement sees the
        // heartbeat before it.
        self.pulse.asleep_until_ns.store(until_ns, Ordering::Release);
    }

    /// Publishes the loop's totals. Single writer: the worker.
    #[inline]
    pub fn set_totals(&self, loops: u64, busy_ns: u64, idle_ns: u64) {
        self.pulse.loops.store(loops, Ordering::Relaxed);
        self.pulse.busy_ns.store(busy_ns, Ordering::Relaxed);
        self.pulse.idle_ns.store(idle_ns, Ordering::Relaxed);
    }

    /// The pulse now.
    pub fn pulse(&self) -> WorkerPulse {
        WorkerPulse {
            // SYNC POINT: pairs with the release store in `set_asleep_until`.
            asleep_until_ns: self.pulse.asleep_until_ns.load_acquire(),
            heartbeat_ns: self.pulse.heartbeat_ns.load(Ordering::Relaxed),
            busy_ns: self.pulse.busy_ns.load(Ordering::Relaxed),
            idle_ns: self.pulse.idle_ns.load(Ordering::Relaxed),
            loops: self.pulse.loops.load(Ordering::Relaxed),
            poll_policy: PollPolicy::from_code(self.pulse.poll_policy.load(Ordering::Relaxed)),
        }
    }
}

/// What the supervisor says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupervisorIdentity {
    /// Process id; 0 before the first supervisor.
    pub pid: u32,
    /// Counts the supervisors of this node, from 1.
    pub generation: u64,
    /// When it was started.
    pub started_ns: u64,
    /// The node's id, at most 64 bytes; longer is cut at a character.
    pub node_id: String,
}

/// How the steering program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum XdpMode {
    /// It is not.
    #[default]
    None = 0,
    /// By the driver.
    Native = 1,
    /// By the kernel's generic hook.
    Generic = 2,
    /// Not wanted: the kernel-socket port serves this interface.
    Socket = 3,
}

impl XdpMode {
    /// Name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Socket => "socket",
        }
    }
}

/// State of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceState {
    /// Name, at most 16 bytes; longer is cut.
    pub name: String,
    /// The kernel's index; 0 while the interface does not exist.
    pub ifindex: u32,
    /// Whether it is up with carrier.
    pub up: bool,
    /// How the steering program is attached.
    pub xdp_mode: XdpMode,
    /// Whether the AF_XDP sockets are in zero-copy mode.
    pub zero_copy: bool,
    /// Receive queues served.
    pub queues: u16,
    /// MTU in bytes.
    pub mtu_bytes: u32,
}

const NODE_ID_WORDS: usize = NODE_ID_BYTES_MAX / 8;
const INTERFACE_NAME_WORDS: usize = INTERFACE_NAME_BYTES_MAX / 8;

/// The supervisor's cell. Its only writer is the supervisor.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct SupervisorCell {
    identity: SeqLock<{ 3 + NODE_ID_WORDS }>,
    interfaces: [SeqLock<{ 2 + INTERFACE_NAME_WORDS }>; INTERFACES_MAX],
    heartbeat_ns: AtomicU64,
    last_gap_ns: AtomicU64,
    serving: AtomicU64,
    life: LifeCell,
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for SupervisorCell {}

impl SupervisorCell {
    /// Replaces the identity.
    pub fn set_identity(&self, identity: &SupervisorIdentity) {
        let mut words = [0; 3 + NODE_ID_WORDS];
        words[0] = identity.pid.into();
        words[1] = identity.generation;
        words[2] = identity.started_ns;
        words[3..].copy_from_slice(&text_words::<NODE_ID_WORDS>(&identity.node_id));
        self.identity.write(&words);
    }

    /// The identity as one.
    pub fn identity(&self) -> Result<SupervisorIdentity, WriterBusy> {
        let words = self.identity.read()?;
        Ok(SupervisorIdentity {
            pid: words[0] as u32,
            generation: words[1],
            started_ns: words[2],
            node_id: words_text(&words[3..]),
        })
    }

    /// Replaces the state of interface `index`, below [`INTERFACES_MAX`].
    pub fn set_interface(&self, index: usize, state: &InterfaceState) {
        let mut words = [0; 2 + INTERFACE_NAME_WORDS];
        words[0] = u64::from(state.ifindex) | u64::from(state.mtu_bytes) << 32;
        words[1] = 1
            | u64::from(state.up) << 8
            | (state.xdp_mode as u64) << 16
            | u64::from(state.zero_copy) << 24
            | u64::from(state.queues) << 32;
        words[2..].copy_from_slice(&text_words::<INTERFACE_NAME_WORDS>(&state.name));
        self.interfaces[index].write(&words);
    }

    /// The state of interface `index`; `None` when the node has no such interface.
    pub fn interface(&self, index: usize) -> Result<Option<InterfaceState>, WriterBusy> {
        let Some(lock) = self.interfaces.get(index) else { return Ok(None) };
        let words = lock.read()?;
        if words[1] & 1 == 0 {
            return Ok(None);
        }
        Ok(Some(InterfaceState {
            name: words_text(&words[2..]),
            ifindex: words[0] as u32,
            up: words[1] >> 8 & 1 == 1,
            xdp_mode: match words[1] >> 16 & 0xff {
                1 => XdpMode::Native,
                2 => XdpMode::Generic,
                3 => XdpMode::Socket,
                _ => XdpMode::None,
            },
            zero_copy: words[1] >> 24 & 1 == 1,
            queues: (words[1] >> 32) as u16,
            mtu_bytes: (words[0] >> 32) as u32,
        }))
    }

    /// Says that the supervisor is alive.
    pub fn beat(&self, now_ns: u64) {
        self.heartbeat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// When the supervisor was last seen alive; 0 before the first beat.
    pub fn heartbeat_ns(&self) -> u64 {
        self.heartbeat_ns.load(Ordering::Relaxed)
    }

    /// Publishes the length of the last gap in service.
    pub fn set_last_gap(&self, gap_ns: u64) {
        self.last_gap_ns.store(gap_ns, Ordering::Relaxed);
    }

    /// From a worker's death to its successor's first turn, the last time; 0 if never.
    pub fn last_gap_ns(&self) -> u64 {
        self.last_gap_ns.load(Ordering::Relaxed)
    }

    /// Says whether everything the configuration asks for has been set up.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving.into(), Ordering::Relaxed);
    }

    /// Whether the node has been set up.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed) == 1
    }

    /// Where the node is in its life.
    pub fn life(&self) -> &LifeCell {
        &self.life
    }
}

pub(crate) fn text_words<const WORDS: usize>(text: &str) -> [u64; WORDS] {
    let text = &text.as_bytes()[..text.floor_char_boundary(WORDS * 8)];
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(text.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(bytes);
    }
    words
}

pub(crate) fn words_text(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shared::zeroed_box;

    #[test]
    fn an_unused_cell_is_empty() {
        let worker = zeroed_box::<WorkerCell>();
        assert_eq!(worker.identity(), Ok(WorkerIdentity::default()));
        assert_eq!(worker.pulse(), WorkerPulse::default());
        let supervisor = zeroed_box::<SupervisorCell>();
        assert_eq!(supervisor.identity(), Ok(SupervisorIdentity::default()));
        assert_eq!(supervisor.interface(0), Ok(None));
        assert_eq!(supervisor.interface(INTERFACES_MAX), Ok(None));
    }

    #[test]
    fn what_was_written_is_read() {
        let worker = zeroed_box::<WorkerCell>();
        let identity = WorkerIdentity {
            pid: 77,
            state: WorkerState::Active,
            core: 1,
            generation: 3,
            started_ns: 100,
            promoted_ns: 200,
        };
        worker.set_identity(&identity);
        assert_eq!(worker.identity(), Ok(identity));
        worker.begin(300, PollPolicy::Adaptive);
        worker.set_totals(5, 6, 7);
        worker.beat(400);
        worker.set_asleep_until(900);
        let pulse = worker.pulse();
        assert_eq!((pulse.loops, pulse.busy_ns, pulse.idle_ns), (5, 6, 7));
        assert_eq!(pulse.poll_policy, PollPolicy::Adaptive);
        assert_eq!((pulse.silent_ns(800), pulse.silent_ns(950)), (0, 50));
        worker.set_asleep_until(0);
        assert_eq!(worker.pulse().silent_ns(800), 400);

        let supervisor = zeroed_box::<SupervisorCell>();
        let long = "n".repeat(63) + "é";
        let identity =
            SupervisorIdentity { pid: 1, generation: 2, started_ns: 3, node_id: long.clone() };
        supervisor.set_identity(&identity);
        assert_eq!(supervisor.identity().unwrap().node_id, long[..63]);
        let state = InterfaceState {
            name: "veth-abcdefghij0".into(),
            ifindex: 9,
            up: true,
            xdp_mode: XdpMode::Native,
            zero_copy: true,
            queues: 64,
            mtu_bytes: 1500,
        };
        supervisor.set_interface(2, &state);
        assert_eq!(supervisor.interface(2), Ok(Some(state)));
        assert_eq!(supervisor.interface(1), Ok(None));
    }
}
