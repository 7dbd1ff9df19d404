//! A wire in use: programs on both interfaces, and the loop that lets packets go when they are due.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nautilus_ebpf::XdpLink;
use nautilus_ebpf::fault::{DUPLICATED, FaultError, FaultWay, FaultWire, REORDERED, hear_all};
use nautilus_shm::clock::monotonic_ns;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::counts::{LineReport, Report};
use super::file::FaultFile;
use super::hold::{Arrival, Hold};
use super::side::Side;
use crate::supervisor::inspect::Refusal;
use crate::supervisor::netlink::{NetlinkError, NetlinkSocket};
use crate::xsk::XskError;

/// A packet that is due sooner than this is waited for awake. Too low: sleeping and waking makes delays longer
/// than they should be. Too high: a core is kept busy for nothing.
const AWAKE_NS: u64 = 10_000;

/// How long the end waits for the driver to take what it is given.
const END_MAX: Duration = Duration::from_secs(2);

/// How often a wire looks whether its interfaces are there and its time is over.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Why a wire could not be made, or not be kept.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Both ends are one interface.
    #[error("--in and --out are both {0}")]
    OneInterface(String),
    /// The interfaces could not be listed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// An interface that cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A socket for the packets that wait could not be made.
    #[error("interface {interface}: socket for packets that wait (needs CAP_NET_RAW)")]
    Socket {
        /// Which.
        interface: String,
        /// What went wrong.
        source: XskError,
    },
    /// The program could not be loaded, filled or read.
    #[error(transparent)]
    Program(#[from] FaultError),
    /// The program could not be attached.
    #[error("interface {interface}")]
    Attach {
        /// Which.
        interface: String,
        /// What went wrong.
        source: FaultError,
    },
    /// An interface could not be told to take frames for others.
    #[error("interface {interface}: cannot take frames for other MACs (needs CAP_NET_RAW)")]
    Promiscuous {
        /// Which.
        interface: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A wait failed.
    #[error("waiting for packets")]
    Wait(#[source] nix::Error),
    /// An interface has gone, and its program with it.
    #[error("interface {0} has gone")]
    Gone(String),
}

/// A wire. Dropping it takes the programs off both interfaces: then nothing passes any more.
pub struct Wire {
    file: FaultFile,
    program: FaultWire,
    links: [Option<XdpLink>; 2],
    _promiscuous: [OwnedFd; 2],
    /// The interface each way begins at.
    sides: [Side; 2],
    hold: Hold,
}

impl Wire {
    /// From interface `from` to interface `to` and back, with the faults of `file`. Everything that can be
    /// refused is refused before a program is attached.
    pub fn open(from: &str, to: &str, file: FaultFile) -> Result<Self, WireError> {
        if from == to {
            return Err(WireError::OneInterface(from.into()));
        }
        let links = NetlinkSocket::for_requests()?.links()?;
        let mut sides = [Side::open(from, &links)?, Side::open(to, &links)?];
        let program = FaultWire::load()?;
        for (index, line) in file.line.iter().enumerate() {
            program.set_line(index, line.to, line.way.into(), file.rules(line))?;
        }
        let holds = FaultWay::ALL.map(|way| {
            file.line.iter().any(|line| line.holds() && FaultWay::from(line.way) == way)
        });
        if holds.contains(&true) {
            for (side, receives) in sides.iter_mut().zip(holds) {
                side.bind(receives)?;
            }
        }
        for way in FaultWay::ALL {
            let [begin, end] = [&sides[way as usize], &sides[1 - way as usize]];
            program.lead(way, end.ifindex)?;
            if holds[way as usize] {
                for (queue, socket) in begin.sockets() {
                    program.set_socket(way, queue, socket)?;
                }
            }
        }
        let hear = |Side { name, ifindex, .. }: &Side| {
            hear_all(*ifindex)
                .map_err(|source| WireError::Promiscuous { interface: name.clone(), source })
        };
        let promiscuous = [hear(&sides[0])?, hear(&sides[1])?];
        let attach = |way: FaultWay| {
            let Side { name, ifindex, .. } = &sides[way as usize];
            program
                .attach(way, *ifindex)
                .map_err(|source| WireError::Attach { interface: name.clone(), source })
        };
        let links = [Some(attach(FaultWay::Forward)?), Some(attach(FaultWay::Back)?)];
        let rules = file.line.iter().map(|line| line.hold_rules());
        let hold = Hold::new(rules, file.hold_packets as usize);
        Ok(Self { file, program, links, _promiscuous: promiscuous, sides, hold })
    }

    /// Carries packets until `stop` is readable or `end` has come.
    pub fn run(&mut self, stop: BorrowedFd<'_>, end: Option<Instant>) -> Result<(), WireError> {
        let mut looked = Instant::now();
        loop {
            let is_more = self.turn();
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(());
            }
            if looked.elapsed() >= LOOK_MAX {
                looked = Instant::now();
                self.look()?;
            }
            let pause_ns = match self.hold.next_ns() {
                _ if is_more => 0,
                Some(due_ns) => due_ns.saturating_sub(monotonic_ns()).saturating_sub(AWAKE_NS),
                None => u64::MAX,
            };
            if self.wait(stop, Duration::from_nanos(pause_ns).min(LOOK_MAX))? {
                return Ok(());
            }
        }
    }

    /// Refuses to go on without one of the interfaces.
    fn look(&self) -> Result<(), WireError> {
        for (link, side) in self.links.iter().flatten().zip(&self.sides) {
            if !matches!(link.ifindex(), Ok(Some(_))) {
                return Err(WireError::Gone(side.name.clone()));
            }
        }
        Ok(())
    }

    /// Takes the programs off, lets go of everything that waits, at once and in order, and says what became of
    /// all packets.
    pub fn end(mut self) -> Result<Report, WireError> {
        self.links = [None, None];
        while self.take_in() {}
        self.hold.hurry();
        let start = Instant::now();
        while (self.hold.waiting() > 0 || !self.flush()) && start.elapsed() < END_MAX {
            self.let_go(u64::MAX);
        }
        let report = self.report();
        self.sides.into_iter().for_each(Side::close);
        report
    }

    /// What has become of all packets so far.
    pub fn report(&self) -> Result<Report, WireError> {
        let lines = self.file.line.iter().enumerate().map(|(index, line)| {
            let counts = self.program.counts(index)?;
            let held = line.holds().then(|| (self.hold.held(index), self.hold.waiting_of(index)));
            Ok(LineReport::new(line.name(), &counts, held))
        });
        let [first, second] = &self.sides;
        Ok(Report {
            lines: lines.collect::<Result<_, FaultError>>()?,
            others: [self.program.others(FaultWay::Forward)?, self.program.others(FaultWay::Back)?],
            undelivered: [second.undelivered(), first.undelivered()],
        })
    }

    /// Takes in what has come and lets go of what is due. True if more has come.
    fn turn(&mut self) -> bool {
        let is_more = self.take_in();
        self.let_go(monotonic_ns());
        self.flush();
        is_more
    }

    fn take_in(&mut self) -> bool {
        let hold = &mut self.hold;
        let mut is_more = false;
        for side in &mut self.sides {
            is_more |= side.receive(|meta, frame| {
                let flag = |flag: u32| u32::from(meta.flags) & flag != 0;
                hold.accept(&Arrival {
                    line: meta.line.into(),
                    rx_ns: meta.rx_ns,
                    jitter: meta.jitter,
                    is_reordered: flag(REORDERED),
                    is_duplicated: flag(DUPLICATED),
                    frame,
                });
            });
        }
        is_more
    }

    fn let_go(&mut self, now_ns: u64) {
        let (file, sides) = (&self.file, &mut self.sides);
        self.hold.release(now_ns, |line, frame| {
            let end = 1 - FaultWay::from(file.line[line].way) as usize;
            sides[end].send(frame)
        });
    }

    fn flush(&mut self) -> bool {
        let [first, second] = self.sides.each_mut().map(Side::flush);
        first && second
    }

    /// Sleeps until a packet has come or `stop` is readable, which it says.
    fn wait(&self, stop: BorrowedFd<'_>, pause: Duration) -> Result<bool, WireError> {
        let sockets = self.sides.iter().flat_map(Side::sockets).map(|(_, socket)| socket);
        let mut polled: Vec<PollFd<'_>> = std::iter::once(stop.as_fd())
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut polled, Some(TimeSpec::from(pause)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(WireError::Wait(error)),
        }
        Ok(polled[0].any().unwrap_or(false))
    }
}
