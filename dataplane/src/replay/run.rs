//! One replay: a source of messages or frames, through a schedule, into a sink.

use super::binary_file::{BinaryFile, BinaryFileError};
use super::generate::Generator;
use super::pace::{Pace, Schedule};
use super::pack::{MESSAGES_MAX, Packer};
use super::random::Random;
use super::recording::{Content, Recording, RecordingError};
use super::sink::{DEFAULT_SOURCE, Sink, SinkError};
use crate::feed::itch::{Nanoseconds, wire::Wire};
use crate::feed::moldudp64::{HEADER_BYTES, Kind, MoldError, Packet};
use crate::net::{Discard, Parsed, RxChecksum, ethernet, parse::parse};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time of a file within which messages share a packet.
const FILE_WINDOW_NS: u64 = 100_000;

/// The same for generated messages; at 38,000 messages a second and more it is the count that ends a
/// packet.
const GENERATED_WINDOW_NS: u64 = 1_000_000;

/// Shorter waits are not slept: a timer would be later than that anyway.
const SLEEP_MIN: Duration = Duration::from_micros(60);

/// Times the end of the session is announced, one interval apart.
const END_COUNT: u32 = 3;

/// What stops a replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The BinaryFILE cannot be read.
    #[error(transparent)]
    BinaryFile(#[from] BinaryFileError),
    /// The output failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A frame of the capture holds no UDP datagram, so there is nothing to give another address.
    #[error(
        "{path}: record {record} holds no UDP datagram ({reason:?}); --as-is sends it unchanged"
    )]
    NotUdp {
        /// The file.
        path: PathBuf,
        /// Record number, from 1.
        record: u64,
        /// Why not.
        reason: Discard,
    },
    /// A datagram of the capture is not MoldUDP64, so it cannot get a session and a sequence.
    #[error("{path}: record {record} is not MoldUDP64; --as-is sends it unchanged")]
    NotMold {
        /// The file.
        path: PathBuf,
        /// Record number, from 1.
        record: u64,
        /// Why not.
        source: MoldError,
    },
    /// A message is longer than a packet.
    #[error("message {number} of {bytes} bytes does not fit a packet")]
    MessageTooLong {
        /// Message number, from 1.
        number: u64,
        /// Its length.
        bytes: usize,
    },
    /// The time limit was reached.
    #[error("stopped at the time limit of {limit_s} s after {packets} packets (see --max-seconds)")]
    TimeLimit {
        /// The limit.
        limit_s: u64,
        /// Packets sent until then.
        packets: u64,
    },
}

/// Which tags re-addressed frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vlan {
    /// Those of the capture.
    Keep,
    /// None.
    Strip,
    /// This one.
    Set(u16),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets with messages, or frames.
    pub packets: u64,
    /// Messages in them.
    pub messages: u64,
    /// Heartbeats and end-of-session packets.
    pub control_packets: u64,
}

/// The sending half of a replay.
pub struct Replay {
    sink: Sink,
    schedule: Schedule,
    heartbeat: Duration,
    limit: Duration,
    next_heartbeat: Duration,
    /// Time of the last packet in nanoseconds after the start, for stamps in files.
    at_ns: u64,
    recording: Recording,
    summary: Summary,
}

impl Replay {
    /// A replay that starts now, sends a heartbeat after each `heartbeat` without a packet, and gives
    /// up after `limit`.
    pub fn new(sink: Sink, pace: Pace, heartbeat: Duration, limit: Duration) -> Self {
        Self {
            sink,
            schedule: Schedule::new(pace),
            heartbeat,
            limit,
            next_heartbeat: heartbeat,
            at_ns: 0,
            recording: Recording::default(),
            summary: Summary::default(),
        }
    }

    /// Sends every frame of a capture unchanged.
    pub fn frames(&mut self, path: &Path) -> Result<(), ReplayError> {
        let mut recording = std::mem::take(&mut self.recording);
        let mut file = recording.open(path)?;
        while let Some(record) = file.next_record()? {
            let Content::Frame(frame) = record.content else { continue };
            self.wait_for(record.stamp_ns, None)?;
            self.sink.send_frame(self.at_ns, frame)?;
            self.summary.packets += 1;
        }
        self.recording = recording;
        Ok(())
    }

    /// Sends the MoldUDP64 packets of a capture with the sink's addresses and the packer's session and
    /// running sequence.
    pub fn readdressed(
        &mut self,
        path: &Path,
        vlan: Vlan,
        packer: &mut Packer,
    ) -> Result<(), ReplayError> {
        let mut recording = std::mem::take(&mut self.recording);
        let mut file = recording.open(path)?;
        let mut payload = Vec::new();
        let mut number = 0;
        while let Some(record) = file.next_record()? {
            let Content::Frame(frame) = record.content else { continue };
            number += 1;
            let path = || path.to_path_buf();
            let parsed = locate(frame).map_err(|reason| ReplayError::NotUdp {
                path: path(),
                record: number,
                reason,
            })?;
            let start = usize::from(parsed.payload_offset);
            payload.clear();
            payload.extend_from_slice(&frame[start..start + usize::from(parsed.payload_bytes)]);
            let count = count_of(&payload).map_err(|source| ReplayError::NotMold {
                path: path(),
                record: number,
                source,
            })?;
            self.sink.set_vlans(match vlan {
                Vlan::Keep => parsed.vlans,
                Vlan::Strip => [0; 2],
                Vlan::Set(identifier) => [identifier, 0],
            });
            self.wait_for(record.stamp_ns, Some(packer))?;
            if let Some(header) = payload.first_chunk_mut::<HEADER_BYTES>() {
                packer.readdress(header, count);
            }
            self.send(&payload, count)?;
        }
        self.recording = recording;
        Ok(())
    }

    /// Sends the messages of a BinaryFILE.
    pub fn binary_file(
        &mut self,
        mut file: BinaryFile,
        packer: &mut Packer,
    ) -> Result<(), ReplayError> {
        let mut limit = || MESSAGES_MAX;
        let mut packing = Packing::new(&mut limit, FILE_WINDOW_NS);
        while let Some(message) = file.next_message()? {
            packing.push(message, self, packer)?;
        }
        packing.flush(self, packer)
    }

    /// Sends what a generator gives, 1 to 38 messages a packet as `seed` has it.
    pub fn generated(
        &mut self,
        mut generator: Generator,
        seed: u64,
        packer: &mut Packer,
    ) -> Result<(), ReplayError> {
        let mut random = Random::new(!seed);
        let mut limit = || 1 + random.below(u32::from(MESSAGES_MAX)) as u16;
        let mut packing = Packing::new(&mut limit, GENERATED_WINDOW_NS);
        while let Some(message) = generator.next_message() {
            packing.push(message, self, packer)?;
        }
        packing.flush(self, packer)
    }

    /// Ends the session, or only the output when there is none, and says what was sent.
    pub fn finish(mut self, packer: Option<&Packer>) -> Result<Summary, ReplayError> {
        if let Some(packer) = packer {
            for index in 0..END_COUNT {
                if index != 0 && !self.sink.is_file() {
                    std::thread::sleep(self.heartbeat.min(Duration::from_secs(1)));
                }
                self.sink.send_payload(self.at_ns, &packer.end_of_session())?;
                self.summary.control_packets += 1;
            }
        }
        self.sink.finish()?;
        Ok(self.summary)
    }

    fn send(&mut self, payload: &[u8], messages: u16) -> Result<(), ReplayError> {
        self.sink.send_payload(self.at_ns, payload)?;
        self.summary.packets += 1;
        self.summary.messages += u64::from(messages);
        Ok(())
    }

    /// Waits until a packet with this stamp is due, sending heartbeats meanwhile.
    fn wait_for(&mut self, stamp_ns: u64, packer: Option<&Packer>) -> Result<(), ReplayError> {
        let due = self.schedule.due(stamp_ns, self.summary.messages);
        let is_file = self.sink.is_file();
        loop {
            let now = if is_file { due } else { self.schedule.elapsed() };
            if now > self.limit || due > self.limit {
                let limit_s = self.limit.as_secs();
                return Err(ReplayError::TimeLimit { limit_s, packets: self.summary.packets });
            }
            if let Some(packer) = packer
                && self.next_heartbeat <= now.min(due)
            {
                self.sink.send_payload(nanoseconds(self.next_heartbeat), &packer.heartbeat())?;
                self.summary.control_packets += 1;
                self.next_heartbeat += self.heartbeat;
                continue;
            }
            if now + SLEEP_MIN >= due {
                self.at_ns = nanoseconds(now.max(due));
                self.next_heartbeat = now.max(due) + self.heartbeat;
                return Ok(());
            }
            let until = match packer {
                Some(_) => due.min(self.next_heartbeat),
                None => due,
            };
            std::thread::sleep(until.saturating_sub(now));
        }
    }
}

/// Collects messages into packets that close when they are full, or when time goes on.
struct Packing<'a> {
    limit: &'a mut dyn FnMut() -> u16,
    window_ns: u64,
    room: u16,
    first_ns: u64,
    number: u64,
    packet: Vec<u8>,
}

impl<'a> Packing<'a> {
    fn new(limit: &'a mut dyn FnMut() -> u16, window_ns: u64) -> Self {
        let room = limit();
        Self { limit, window_ns, room, first_ns: 0, number: 0, packet: Vec::new() }
    }

    fn push(
        &mut self,
        message: &[u8],
        replay: &mut Replay,
        packer: &mut Packer,
    ) -> Result<(), ReplayError> {
        self.number += 1;
        // A message too short to hold a stamp shares that of the packet.
        let stamp_ns = message.get(5..11).map_or(self.first_ns, |stamp| Nanoseconds::get(stamp).0);
        let later = stamp_ns.abs_diff(self.first_ns) > self.window_ns;
        if packer.count() == self.room || !packer.fits(message.len()) || later {
            self.flush(replay, packer)?;
        }
        if packer.count() == 0 {
            self.first_ns = stamp_ns;
        }
        if !packer.push(message) {
            let (number, bytes) = (self.number, message.len());
            return Err(ReplayError::MessageTooLong { number, bytes });
        }
        Ok(())
    }

    fn flush(&mut self, replay: &mut Replay, packer: &mut Packer) -> Result<(), ReplayError> {
        if packer.count() == 0 {
            return Ok(());
        }
        replay.wait_for(self.first_ns, Some(packer))?;
        if let Some(count) = packer.take(&mut self.packet) {
            replay.send(&self.packet, count)?;
        }
        self.room = (self.limit)();
        Ok(())
    }
}

/// Where the datagram is in a captured frame whose addresses and checksums may be blank.
fn locate(frame: &[u8]) -> Result<Parsed, Discard> {
    match parse(frame, RxChecksum::Trust) {
        // Nobody sends from 0.0.0.0: look again with a source in its place.
        Err(Discard::Source) => {
            let mut frame = frame.to_vec();
            let link = ethernet::parse(&frame)?;
            if let (ethernet::IPV4, Some(source)) =
                (link.ether_type, frame.get_mut(link.bytes + 12..link.bytes + 16))
            {
                source.copy_from_slice(&DEFAULT_SOURCE.octets());
            }
            parse(&frame, RxChecksum::Trust)
        }
        result => result,
    }
}

/// Message count of a packet whose sequence may be blank.
fn count_of(payload: &[u8]) -> Result<u16, MoldError> {
    let packet = Packet::parse(payload)?;
    for message in packet.messages() {
        message?;
    }
    Ok(match packet.kind {
        Kind::Messages(count) => count,
        Kind::Heartbeat => 0,
        Kind::EndOfSession => crate::feed::moldudp64::COUNT_END_OF_SESSION,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
