//! Where a record of a capture comes from: one interface block of a file each.

/// Which way a record reached the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// A whole frame, as AF_XDP gave it, by a queue of an interface.
    Frame,
    /// A datagram by a kernel socket: its headers are made up by the writer.
    Datagram,
    /// A datagram that another worker received and sent on: likewise.
    SentOn,
    /// No packet: what else moved the feeds, see [`super::event`].
    Events,
}

impl SourceKind {
    const ALL: [Self; 4] = [Self::Frame, Self::Datagram, Self::SentOn, Self::Events];

    /// The name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Datagram => "datagram",
            Self::SentOn => "sent_on",
            Self::Events => "events",
        }
    }
}

/// A source of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Which way.
    pub kind: SourceKind,
    /// Place of the interface in the node file; 0 for events.
    pub interface: u8,
    /// Queue of a frame, worker that sent a datagram on; else 0.
    pub number: u16,
}

impl Source {
    /// The only source of events of a worker.
    pub const EVENTS: Self = Self { kind: SourceKind::Events, interface: 0, number: 0 };

    /// As the ring names it.
    pub fn identity(self) -> u32 {
        (self.kind as u32) << 24 | u32::from(self.interface) << 16 | u32::from(self.number)
    }

    /// Reads it back; `None` for what no worker writes.
    pub fn from_identity(identity: u32) -> Option<Self> {
        let kind = *SourceKind::ALL.get((identity >> 24) as usize)?;
        Some(Self { kind, interface: (identity >> 16) as u8, number: identity as u16 })
    }

    /// What the interface block of a file says of it, for programs.
    pub fn mark(self, worker: usize) -> String {
        let Self { kind, interface, number } = self;
        format!(
            "nautilus worker={worker} source={} interface={interface} number={number}",
            kind.name()
        )
    }

    /// Reads [`Self::mark`]: the worker and the source.
    pub fn from_mark(mark: &str) -> Option<(u8, Self)> {
        let mut words = mark.strip_prefix("nautilus worker=")?.split(' ');
        let worker = words.next()?.parse().ok()?;
        let name = words.next()?.strip_prefix("source=")?;
        let kind = SourceKind::ALL.into_iter().find(|kind| kind.name() == name)?;
        let interface = words.next()?.strip_prefix("interface=")?.parse().ok()?;
        let number = words.next()?.strip_prefix("number=")?.parse().ok()?;
        words.next().is_none().then_some((worker, Self { kind, interface, number }))
    }

    /// The same for people.
    pub fn describe(self, worker: usize) -> String {
        match self.kind {
            SourceKind::Frame => {
                format!("worker {worker}, queue {}: frames as received", self.number)
            }
            SourceKind::Datagram => format!(
                "worker {worker}, kernel socket: datagrams; link, IP and UDP headers are synthesized"
            ),
            SourceKind::SentOn => format!(
                "worker {worker}, sent on by worker {}: datagrams; link, IP and UDP headers are \
                 synthesized",
                self.number
            ),
            SourceKind::Events => {
                format!("worker {worker}: events that moved its feeds beside packets; no packets")
            }
        }
    }
}

/// What a file says of itself, in the comment of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which run of the node it is of: the workers' numbers of packets begin with it.
    pub run: u64,
    /// What was added to `CLOCK_MONOTONIC` to get the stamps.
    pub offset_ns: u64,
}

impl Section {
    /// The comment.
    pub fn comment(&self, node: &str) -> String {
        let Self { run, offset_ns } = self;
        format!(
            "nautilus capture of node {node}, run={run}; stamps are CLOCK_MONOTONIC plus \
             realtime_offset_ns={offset_ns}"
        )
    }

    /// Reads it back; `None` for a file of other hands.
    pub fn from_comment(comment: &str) -> Option<Self> {
        let (_, rest) = comment.strip_prefix("nautilus capture of node ")?.split_once(", run=")?;
        let (run, rest) = rest.split_once(';')?;
        let (_, offset) = rest.split_once("realtime_offset_ns=")?;
        Some(Self { run: run.parse().ok()?, offset_ns: offset.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_survives_its_comment() {
        let section = Section { run: 7, offset_ns: u64::MAX };
        assert_eq!(Section::from_comment(&section.comment("edge-1")), Some(section));
        for comment in ["", "nautilus capture of node a, run=x; realtime_offset_ns=1", "other"] {
            assert_eq!(Section::from_comment(comment), None);
        }
    }

    #[test]
    fn a_source_survives_ring_and_file() {
        for kind in SourceKind::ALL {
            let source = Source { kind, interface: 15, number: 63 };
            assert_eq!(Source::from_identity(source.identity()), Some(source));
            assert_eq!(Source::from_mark(&source.mark(7)), Some((7, source)));
        }
        assert_eq!(Source::from_identity(9 << 24), None);
        for mark in ["", "nautilus worker=1", "nautilus worker=1 source=x interface=0 number=0"] {
            assert_eq!(Source::from_mark(mark), None);
        }
    }
}
