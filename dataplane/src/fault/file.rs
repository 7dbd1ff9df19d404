//! A fault file: what is to happen to which packets, checked before anything is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nautilus_ebpf::fault::{FAULT_LINES_MAX, FaultRules, FaultWay, PPM, mix};
use serde::Deserialize;

use super::hold::{HoldRules, JitterShape};
use crate::config::{ConfigError, misread, refused};

/// The default file, documented line by line.
pub const DEFAULT_TOML: &str = include_str!("../../faults.default.toml");

/// Longest delay, jitter or hold.
const PAUSE_US_MAX: u32 = 10_000_000;
/// Most packets that wait at a time.
const HOLD_PACKETS_MAX: u32 = 65_536;
/// Furthest that a packet falls back.
const REORDER_DISTANCE_MAX: u32 = 1_000;

/// Why a fault file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FaultFileError {
    /// The file could not be read.
    #[error("cannot read the fault file {path}: {source}")]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The text is not TOML, a key is unknown, or a value has the wrong type or is out of bounds.
    #[error(transparent)]
    Value(#[from] ConfigError),
}

/// A whole fault file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultFile {
    /// Of all draws.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Packets that wait at a time, over all lines.
    #[serde(default = "default_hold_packets")]
    pub hold_packets: u32,
    /// Its lines, 1 to [`FAULT_LINES_MAX`].
    #[serde(default)]
    pub line: Vec<FaultLine>,
}

/// One `[[line]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultLine {
    /// How counts name it.
    #[serde(default)]
    pub name: Option<String>,
    /// Where its packets go.
    pub to: SocketAddr,
    /// Which way they go.
    #[serde(default)]
    pub way: Way,
    /// Of its draws, in the place of one made of the file's and `to`.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Packets before the first fault.
    #[serde(default)]
    pub begin_after_packets: u64,
    /// Packets until the last.
    #[serde(default)]
    pub end_after_packets: Option<u64>,
    /// Lost, outside bursts.
    #[serde(default)]
    pub loss_ppm: u32,
    /// Sent twice.
    #[serde(default)]
    pub duplicate_ppm: u32,
    /// One bit turned.
    #[serde(default)]
    pub corrupt_ppm: u32,
    /// What a corrupted datagram's checksum says.
    #[serde(default)]
    pub corrupt_checksum: Checksum,
    /// Held until others have passed.
    #[serde(default)]
    pub reorder_ppm: u32,
    /// How many others.
    #[serde(default = "default_reorder_distance")]
    pub reorder_distance: u32,
    /// And how long at most, beside the delay.
    #[serde(default = "default_reorder_hold_us")]
    pub reorder_hold_us: u32,
    /// Of every packet.
    #[serde(default)]
    pub delay_us: u32,
    /// On top of it, drawn.
    #[serde(default)]
    pub jitter_us: u32,
    /// How it is drawn.
    #[serde(default)]
    pub jitter_shape: JitterShape,
    /// Losses in bursts.
    #[serde(default)]
    pub burst: Option<Burst>,
}

/// Which way a line's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the first interface to the second.
    #[default]
    Forward,
    /// From the second to the first.
    Back,
}

impl From<Way> for FaultWay {
    fn from(way: Way) -> Self {
        match way {
            Way::Forward => Self::Forward,
            Way::Back => Self::Back,
        }
    }
}

/// What the checksum of a corrupted datagram says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// What it said before.
    #[default]
    Wrong,
    /// What fits the new content.
    Repaired,
}

/// `[line.burst]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Of a packet outside to begin one.
    pub enter_ppm: u32,
    /// Of a packet inside to be the first outside again.
    pub leave_ppm: u32,
    /// Lost inside.
    #[serde(default = "default_burst_loss_ppm")]
    pub loss_ppm: u32,
}

fn default_seed() -> u64 {
    1
}

fn default_hold_packets() -> u32 {
    8_192
}

fn default_reorder_distance() -> u32 {
    3
}

fn default_reorder_hold_us() -> u32 {
    10_000
}

fn default_burst_loss_ppm() -> u32 {
    PPM
}

impl FaultFile {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, FaultFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| FaultFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks `text`; `name` is the name errors carry.
    pub fn parse(text: &str, name: &str) -> Result<Self, FaultFileError> {
        let file: Self = toml::from_str(text).map_err(|error| misread(text, name, &error))?;
        file.check().map_err(|(key, problem)| refused(text, name, key, problem))?;
        Ok(file)
    }

    fn check(&self) -> Result<(), (String, String)> {
        within("hold_packets".into(), self.hold_packets, 1, HOLD_PACKETS_MAX)?;
        if self.line.is_empty() || self.line.len() > FAULT_LINES_MAX {
            let problem = format!("{} lines, not 1..={FAULT_LINES_MAX}", self.line.len());
            return Err(("line".into(), problem));
        }
        for (index, line) in self.line.iter().enumerate() {
            line.check(&format!("line[{index}]"))?;
            for other in &self.line[..index] {
                if (other.canonical(), other.way) == (line.canonical(), line.way) {
                    let problem = format!("{} stands twice", line.to);
                    return Err((format!("line[{index}].to"), problem));
                }
                if other.name() == line.name() {
                    let problem = format!("{:?} stands twice", line.name());
                    return Err((format!("line[{index}].name"), problem));
                }
            }
        }
        Ok(())
    }

    /// What the program is told of a line of this file.
    pub fn rules(&self, line: &FaultLine) -> FaultRules {
        let burst = line.burst.unwrap_or(Burst { enter_ppm: 0, leave_ppm: 0, loss_ppm: 0 });
        FaultRules {
            seed: line.seed.map_or_else(|| line.seed_of(self.seed), mix),
            after: line.begin_after_packets,
            until: line.end_after_packets.unwrap_or(u64::MAX),
            loss_ppm: line.loss_ppm,
            burst_enter_ppm: burst.enter_ppm,
            burst_leave_ppm: burst.leave_ppm,
            burst_loss_ppm: burst.loss_ppm,
            corrupt_ppm: line.corrupt_ppm,
            duplicate_ppm: line.duplicate_ppm,
            reorder_ppm: line.reorder_ppm,
            repairs: line.corrupt_checksum == Checksum::Repaired,
            holds: line.holds(),
        }
    }
}

impl FaultLine {
    /// How counts name it.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.to.to_string())
    }

    /// Whether its packets have to wait. All of them do then, for no moment at the least, so that one that
    /// waits is overtaken by those that it is to be overtaken by and no others.
    pub fn holds(&self) -> bool {
        self.reorder_ppm > 0 || self.delay_us > 0 || self.jitter_us > 0
    }

    /// How long they wait.
    pub fn hold_rules(&self) -> HoldRules {
        HoldRules {
            delay_ns: u64::from(self.delay_us) * 1_000,
            jitter_ns: u64::from(self.jitter_us) * 1_000,
            shape: self.jitter_shape,
            distance: self.reorder_distance,
            reorder_hold_ns: u64::from(self.reorder_hold_us) * 1_000,
        }
    }

    fn canonical(&self) -> SocketAddr {
        SocketAddr::new(self.to.ip().to_canonical(), self.to.port())
    }

    /// Of the file's seed and where the line goes, so that neither its place in the file nor the other lines
    /// change what is drawn.
    fn seed_of(&self, seed: u64) -> u64 {
        let octets = match self.to.ip().to_canonical() {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(address) => address.octets(),
        };
        let address = u128::from_be_bytes(octets);
        let place = u64::from(self.to.port()) << 1 | u64::from(self.way == Way::Back);
        [address as u64, (address >> 64) as u64, place]
            .into_iter()
            .fold(mix(seed), |mixed, word| mix(mixed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    fn check(&self, at: &str) -> Result<(), (String, String)> {
        let key = |name: &str| format!("{at}.{name}");
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 63) {
            return Err((key("name"), "is empty or longer than 63 bytes".into()));
        }
        if self.to.port() == 0 {
            return Err((key("to"), "0 is not a port".into()));
        }
        for (name, ppm) in [
            ("loss_ppm", self.loss_ppm),
            ("duplicate_ppm", self.duplicate_ppm),
            ("corrupt_ppm", self.corrupt_ppm),
            ("reorder_ppm", self.reorder_ppm),
        ] {
            within(key(name), ppm, 0, PPM)?;
        }
        within(key("reorder_distance"), self.reorder_distance, 1, REORDER_DISTANCE_MAX)?;
        within(key("reorder_hold_us"), self.reorder_hold_us, 1, PAUSE_US_MAX)?;
        within(key("delay_us"), self.delay_us, 0, PAUSE_US_MAX)?;
        within(key("jitter_us"), self.jitter_us, 0, PAUSE_US_MAX)?;
        if let Some(burst) = self.burst {
            within(key("burst.enter_ppm"), burst.enter_ppm, 0, PPM)?;
            within(key("burst.leave_ppm"), burst.leave_ppm, 1, PPM)?;
            within(key("burst.loss_ppm"), burst.loss_ppm, 0, PPM)?;
        }
        if self.end_after_packets.is_some_and(|end| end < self.begin_after_packets) {
            return Err((key("end_after_packets"), "is less than begin_after_packets".into()));
        }
        Ok(())
    }
}

fn within(key: String, value: u32, least: u32, most: u32) -> Result<(), (String, String)> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err((key, format!("{value} is not {least}..={most}")))
}

#[cfg(test)]
mod tests;
