//! What a reader and a supervisor say to each other over `supervisor.sock`.
//!
//! The socket is `AF_UNIX`, `SOCK_SEQPACKET`, in the node's run directory. One request is one
//! packet, one reply is one packet; a connection may carry several. The supervisor checks peer
//! credentials (`SO_PEERCRED`) before it answers. All integers are little-endian.
//!
//! ```text
//!   reader                              supervisor
//!     | Request {verb}         8 bytes  |
//!     | or CacheRequest       72 bytes  |
//!     | or ExplainRequest   46 to 3552  |
//!     |-------------------------------->|  uid on the list? -> descriptors reopened read-only
//!     | Reply header          32 bytes  |
//!     | + payload        <= 4096 bytes  |
//!     | + SCM_RIGHTS            <= 9    |
//!     |<--------------------------------|
//! ```
//!
//! | verb   | for (own: the supervisor's user) | payload                     | descriptors, in this order                |
//! | ------ | ------------------------------- | --------------------------- | ----------------------------------------- |
//! | attach | root, own, `control.user`       | one [`CacheName`] per cache | control region, then one region per cache |
//! | status | root, own, `control.user`       | UTF-8 text for an operator  | none                                      |
//! | cache  | these, `cache.readers`          | its [`CacheName`]           | the region of that cache, nothing else    |
//! | hits   | as `cache`                      | its [`CacheName`]           | where its readers tell of hits, writable  |
//! | explain | root, own, `control.user`      | TOML for an operator        | none                                      |
//! | create | root, own, `control.user`       | UTF-8 text for an operator  | none                                      |
//! | remove | root, own, `control.user`       | UTF-8 text for an operator  | none                                      |
//! | start, park, drain, resume, swap, exchange, settle | as `remove` | UTF-8 text for an operator | none            |
//! | probe  | root, own, `control.user`       | a [`Probed`]                | none                                      |
//! | connect | root, own, `control.user`      | its [`CacheName`]           | a connection to the front, for that cache |
//! | halt, release | root, own, `control.user` | UTF-8 text for an operator | none                                      |
//! | host-apply, host-restore | as `remove`   | a [`HostAnswer`]            | its text                                  |
//! | host-check | root, own, `control.user`   | a [`HostAnswer`]            | what the host lacks, as JSON              |
//! | claim  | root, own, `control.user`       | none                        | [`CLAIM_FILE`], to be locked              |
//!
//! A refusal's payload may be UTF-8 text that says why. A request of `create` carries the section of the
//! cache behind its first eight bytes, as in a node file and at most [`SECTION_BYTES_MAX`]; `remove` carries a
//! [`CacheName`] there. Both are answered when the node has done it, which takes seconds for a large cache. `halt` and
//! `release` carry the operator's reason there, UTF-8 of at most [`REASON_BYTES_MAX`] bytes, none if he gives none.
//!
//! A connection of `connect` speaks memcached's protocol, may read and write, and waits for a front if there is
//! none at the moment.
//!
//! Every other descriptor is opened read-only. This module holds bytes and bounds only, no I/O: the
//! supervisor writes replies, `control` and same-host readers parse them, and neither trusts the
//! other's lengths.

mod cache;
mod explain;
mod host;
mod node;

pub use crate::kill_switch::REASON_BYTES_MAX;
pub use cache::{
    Ask, CACHE_REQUEST_BYTES, CacheRequest, create_request, kill_switch_request, remove_request,
};
pub use explain::{EXPLAIN_FRAME_BYTES_MAX, EXPLAIN_FRAME_BYTES_MIN, ExplainRequest};
pub use host::{
    HOST_ANSWER_BYTES, HOST_CORES_MAX, HOST_MEMORY_GB_MAX, HOST_ORDER_BYTES, HOST_REQUEST_BYTES,
    HOST_STAGES, HOST_TIERS, HostAnswer, HostOrder, HostRequest,
};
pub use node::{
    DRAIN_MS_MAX, HOST_RELEASE, PROBE_MS_MAX, PROBED_BYTES, Probed, drain_request,
    exchange_request, probe_request, swap_request,
};

/// Name of the socket inside a node's run directory.
pub const SUPERVISOR_SOCKET: &str = "supervisor.sock";

/// Name of the file inside a node's run directory that the one control which deploys to the node holds locked
/// (flock). Nobody but the supervisor's user can open it; whoever may ask for it gets it by [`Verb::Claim`].
pub const CLAIM_FILE: &str = "control.lock";

/// "NEAT" in the bytes of the wire: first word of every packet, both ways.
pub const MAGIC: u32 = u32::from_le_bytes(*b"NEAT");

/// Version of the layouts below. A supervisor answers another version with [`Code::Version`].
pub const VERSION: u8 = 1;

/// Caches one node may have; with the control region this bounds the descriptors of a reply.
pub const CACHES_MAX: usize = 8;

/// Descriptors of one reply: the control region and every cache.
pub const FDS_MAX: usize = 1 + CACHES_MAX;

/// Bytes of a request.
pub const REQUEST_BYTES: usize = 8;

/// Bytes of a reply before its payload.
pub const REPLY_HEADER_BYTES: usize = 32;

/// Largest payload of a reply.
pub const PAYLOAD_BYTES_MAX: usize = 4096;

/// Largest packet of the protocol; a receive buffer of this size never truncates.
pub const PACKET_BYTES_MAX: usize = REPLY_HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// Longest section of a cache that is to be made.
pub const SECTION_BYTES_MAX: usize = 4000;

const _: () = assert!(REQUEST_BYTES + SECTION_BYTES_MAX <= PACKET_BYTES_MAX, "one packet");

/// Bytes of a cache's id in an attach reply, padded with zeros at the end.
pub const CACHE_NAME_BYTES: usize = 64;

const _: () = assert!(CACHES_MAX * CACHE_NAME_BYTES <= PAYLOAD_BYTES_MAX, "names must fit a reply");

/// A cache's id as it travels: UTF-8, padded with zeros.
pub type CacheName = [u8; CACHE_NAME_BYTES];

/// What a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// Read-only descriptors of the node's regions.
    Attach = 1,
    /// A line of text on what the supervisor is doing.
    Status = 2,
    /// A read-only descriptor of one cache, named in a [`CacheRequest`].
    Cache = 3,
    /// A writable descriptor of the memory in which readers of one cache tell of their hits
    /// ([`crate::sampled_hits`]). A reader does without where there is none.
    Hits = 4,
    /// Where the frame of an [`ExplainRequest`] would go, and why.
    Explain = 5,
    /// Makes a cache.
    Create = 6,
    /// Removes a cache that was made by [`Self::Create`].
    Remove = 7,
    /// Starts a parked node; answered when it serves.
    Start = 8,
    /// Has the node give everything back but its supervisor; answered when that is done.
    Park = 9,
    /// Takes no more clients over TCP; answered when the last is gone.
    Drain = 10,
    /// Takes clients again.
    Resume = 11,
    /// Exchanges the running programs for those of a release, or has the node file read anew; answered when
    /// the new ones have served for a while.
    Swap = 12,
    /// Measures the node with packets of its own.
    Probe = 13,
    /// A connection to the front, by which one cache, named in a [`CacheRequest`], is changed.
    Connect = 14,
    /// [`CLAIM_FILE`], which one control holds locked for as long as it deploys to this node.
    Claim = 15,
    /// As [`Self::Swap`], but answered as soon as the new ones serve. They are watched for as long, and may yet
    /// be taken back, which [`Self::Settle`] tells.
    Exchange = 16,
    /// How the last swap went; answered when none is under way.
    Settle = 17,
    /// Turns the kill switch on ([`crate::kill_switch`]), for the reason behind the verb.
    Halt = 20,
    /// Turns it off again.
    Release = 21,
    /// Shows, or carries out, what stages of the host doctor would change for a tier.
    HostApply = 24,
    /// Undoes what [`Self::HostApply`] changed.
    HostRestore = 25,
    /// Says what of a [`HostOrder`] the node's host lacks. Changes nothing.
    HostCheck = 26,
}

impl Verb {
    /// The verb of this byte, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Attach),
            2 => Some(Self::Status),
            3 => Some(Self::Cache),
            4 => Some(Self::Hits),
            5 => Some(Self::Explain),
            6 => Some(Self::Create),
            7 => Some(Self::Remove),
            8 => Some(Self::Start),
            9 => Some(Self::Park),
            10 => Some(Self::Drain),
            11 => Some(Self::Resume),
            12 => Some(Self::Swap),
            13 => Some(Self::Probe),
            14 => Some(Self::Connect),
            15 => Some(Self::Claim),
            16 => Some(Self::Exchange),
            17 => Some(Self::Settle),
            20 => Some(Self::Halt),
            21 => Some(Self::Release),
            24 => Some(Self::HostApply),
            25 => Some(Self::HostRestore),
            26 => Some(Self::HostCheck),
            _ => None,
        }
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Granted; payload and descriptors follow.
    Ok = 0,
    /// The peer's uid is not on the list for this.
    Refused = 1,
    /// The request is malformed or its verb unknown.
    BadRequest = 2,
    /// The supervisor speaks another version, which the reply header names.
    Version = 3,
    /// The node is still being set up; ask again.
    NotReady = 4,
    /// The node has no cache of the name asked for.
    NoCache = 5,
    /// It cannot be done; the payload says why.
    Impossible = 6,
}

impl Code {
    /// The code of this byte, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Ok),
            1 => Some(Self::Refused),
            2 => Some(Self::BadRequest),
            3 => Some(Self::Version),
            4 => Some(Self::NotReady),
            5 => Some(Self::NoCache),
            6 => Some(Self::Impossible),
            _ => None,
        }
    }

    /// What an operator is told.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Ok => "granted",
            Self::Refused => "refused: this user is not on the supervisor's list of readers",
            Self::BadRequest => "the supervisor did not understand the request",
            Self::Version => "the supervisor speaks another version of the attach protocol",
            Self::NotReady => "the node is still being set up",
            Self::NoCache => "this node has no such cache",
            Self::Impossible => "this cannot be done",
        }
    }
}

/// Why a packet of this protocol was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Shorter than its fixed part, or longer than the protocol allows.
    #[error("packet of {0} bytes")]
    Length(usize),
    /// The first word is not [`MAGIC`].
    #[error("not an attach packet (first word {0:#010x})")]
    Magic(u32),
    /// Another version of the protocol.
    #[error("version {0}, this side speaks {VERSION}")]
    Version(u8),
    /// A verb this version does not have.
    #[error("unknown verb {0}")]
    Verb(u8),
    /// A number that is in no list, or beyond its bounds.
    #[error("a value that there is not")]
    Value,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// A code this version does not have.
    #[error("unknown reply code {0}")]
    Code(u8),
    /// The payload's length disagrees with the packet's, or with the verb's.
    #[error("payload of {said} bytes announced, {found} found")]
    Payload {
        /// Bytes the header announces.
        said: usize,
        /// Bytes that follow the header.
        found: usize,
    },
    /// The header announces more descriptors than the protocol allows.
    #[error("{0} descriptors announced, at most {FDS_MAX} are possible")]
    Fds(u32),
}

/// A request of [`Verb::Attach`] or [`Verb::Status`]: magic (u32), version (u8), verb (u8), two zero
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub verb: Verb,
}

impl Request {
    /// The packet.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut packet = [0; REQUEST_BYTES];
        packet[..4].copy_from_slice(&MAGIC.to_le_bytes());
        packet[4] = VERSION;
        packet[5] = self.verb as u8;
        packet
    }

    /// Reads a packet; exactly [`REQUEST_BYTES`] long.
    pub fn decode(packet: &[u8]) -> Result<Self, AttachError> {
        let packet: &[u8; REQUEST_BYTES] =
            packet.try_into().map_err(|_| AttachError::Length(packet.len()))?;
        check(word(packet, 0), packet[4])?;
        let verb = Verb::from_byte(packet[5]).ok_or(AttachError::Verb(packet[5]))?;
        Ok(Self { verb })
    }
}

/// The fixed part of a reply.
///
/// | offset | type | field |
/// | --- | --- | --- |
/// | 0 | u32 | magic |
/// | 4 | u8 | version |
/// | 5 | u8 | code |
/// | 6 | u16 | zero |
/// | 8 | u64 | supervisor generation: +1 each time a supervisor takes the node over |
/// | 16 | u32 | pid of the supervisor |
/// | 20 | u32 | descriptors attached |
/// | 24 | u32 | payload bytes |
/// | 28 | u32 | zero |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// How the request went.
    pub code: Code,
    /// Generation of the answering supervisor.
    pub generation: u64,
    /// Process id of the answering supervisor, in its own namespace.
    pub pid: u32,
    /// Descriptors that came with the packet, at most [`FDS_MAX`].
    pub fds: u32,
    /// Bytes that follow the header, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
}

impl ReplyHeader {
    /// The first bytes of the packet.
    pub fn encode(&self) -> [u8; REPLY_HEADER_BYTES] {
        let mut packet = [0; REPLY_HEADER_BYTES];
        packet[..4].copy_from_slice(&MAGIC.to_le_bytes());
        packet[4] = VERSION;
        packet[5] = self.code as u8;
        packet[8..16].copy_from_slice(&self.generation.to_le_bytes());
        packet[16..20].copy_from_slice(&self.pid.to_le_bytes());
        packet[20..24].copy_from_slice(&self.fds.to_le_bytes());
        packet[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        packet
    }

    /// Reads a packet and returns the header and its payload, whose length has been checked.
    pub fn decode(packet: &[u8]) -> Result<(Self, &[u8]), AttachError> {
        if packet.len() < REPLY_HEADER_BYTES || packet.len() > PACKET_BYTES_MAX {
            return Err(AttachError::Length(packet.len()));
        }
        let (head, payload) = packet.split_at(REPLY_HEADER_BYTES);
        check(word(head, 0), head[4])?;
        let code = Code::from_byte(head[5]).ok_or(AttachError::Code(head[5]))?;
        let fds = word(head, 20);
        if fds as usize > FDS_MAX {
            return Err(AttachError::Fds(fds));
        }
        let payload_bytes = word(head, 24);
        if payload_bytes as usize != payload.len() {
            return Err(AttachError::Payload {
                said: payload_bytes as usize,
                found: payload.len(),
            });
        }
        let generation = u64::from(word(head, 8)) | u64::from(word(head, 12)) << 32;
        Ok((Self { code, generation, pid: word(head, 16), fds, payload_bytes }, payload))
    }
}

/// A cache's id as it travels. Longer ids are cut; the id rules allow 63 bytes, so none is.
pub fn cache_name(id: &str) -> CacheName {
    let mut name = [0; CACHE_NAME_BYTES];
    let bytes = &id.as_bytes()[..id.len().min(CACHE_NAME_BYTES)];
    name[..bytes.len()].copy_from_slice(bytes);
    name
}

/// The ids in an attach reply's payload, in the order of the descriptors after the first. Bytes
/// that are not UTF-8 are replaced, a payload that is not whole names is refused.
pub fn cache_ids(payload: &[u8]) -> Result<Vec<String>, AttachError> {
    let (names, rest) = payload.as_chunks::<CACHE_NAME_BYTES>();
    if !rest.is_empty() || names.len() > CACHES_MAX {
        let said = names.len().min(CACHES_MAX) * CACHE_NAME_BYTES;
        return Err(AttachError::Payload { said, found: payload.len() });
    }
    let id = |name: &CacheName| {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    Ok(names.iter().map(id).collect())
}

/// The four bytes at `offset`, which the caller has shown to be there.
fn word(packet: &[u8], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&packet[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}

fn check(magic: u32, version: u8) -> Result<(), AttachError> {
    if magic != MAGIC {
        return Err(AttachError::Magic(magic));
    }
    if version != VERSION {
        return Err(AttachError::Version(version));
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: ReplyHeader = ReplyHeader {
        code: Code::Ok,
        generation: 7 << 40 | 3,
        pid: 4242,
        fds: 2,
        payload_bytes: 64,
    };

    #[test]
    fn a_request_survives_the_wire_and_nothing_else_does() {
        for verb in [Verb::Attach, Verb::Status] {
            let packet = Request { verb }.encode();
            assert_eq!(Request::decode(&packet), Ok(Request { verb }));
        }
        let good = Request { verb: Verb::Attach }.encode();
        assert_eq!(Request::decode(&good[..7]), Err(AttachError::Length(7)));
        let with = |at: usize, byte: u8| {
            let mut packet = good;
            packet[at] = byte;
            Request::decode(&packet)
        };
        assert!(matches!(with(0, 0), Err(AttachError::Magic(_))));
        assert_eq!(with(4, 9), Err(AttachError::Version(9)));
        assert_eq!(with(5, 0), Err(AttachError::Verb(0)));
    }

    #[test]
    fn a_reply_survives_the_wire() {
        let mut packet = HEADER.encode().to_vec();
        packet.extend_from_slice(&cache_name("quotes"));
        let (header, payload) = ReplyHeader::decode(&packet).unwrap();
        assert_eq!(header, HEADER);
        assert_eq!(cache_ids(payload).unwrap(), ["quotes"]);
        packet.pop();
        assert_eq!(ReplyHeader::decode(&packet), Err(AttachError::Payload { said: 64, found: 63 }));
    }

    #[test]
    fn too_many_descriptors_or_odd_names_are_refused() {
        let header = ReplyHeader { fds: FDS_MAX as u32 + 1, payload_bytes: 0, ..HEADER };
        assert!(matches!(ReplyHeader::decode(&header.encode()), Err(AttachError::Fds(_))));
        assert!(cache_ids(&[0; 65]).is_err());
        assert!(cache_ids(&[0; CACHE_NAME_BYTES * (CACHES_MAX + 1)]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..PACKET_BYTES_MAX + 2),
        ) {
            let _ = Request::decode(&bytes);
            let _ = cache_ids(&bytes);
            if let Ok((header, payload)) = ReplyHeader::decode(&bytes) {
                prop_assert!(header.fds as usize <= FDS_MAX);
                prop_assert_eq!(header.payload_bytes as usize, payload.len());
            }
        }
    }
}
