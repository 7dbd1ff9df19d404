//! The Rust side of `intf.h`: the same structs, with the same sizes and offsets asserted.
//!
//! Multi-byte fields are in host order unless the field says otherwise.

use std::mem::{offset_of, size_of};
use std::net::IpAddr;

/// Marks a struct that may cross to the kernel as its bytes.
///
/// # Safety
/// `repr(C)`, no padding, every bit pattern valid.
pub unsafe trait Plain: Copy {}

/// AF_XDP sockets of one node, over all its interfaces and queues; length of `xsks`.
pub const SOCKETS_MAX: u32 = 64;
/// Interfaces one program serves.
pub const INTERFACES_MAX: u32 = 16;
/// Whole addresses on the source list.
pub const SOURCES_EXACT_MAX: u32 = 16_384;
/// Prefixes on the source list.
pub const SOURCES_MAX: u32 = 16_384;
/// Addresses served.
pub const SERVED_MAX: u32 = 1_024;
/// Length of `ports`: every UDP and TCP port.
pub const PORTS_MAX: u32 = 65_536;
/// Lists of sources: the node's own, and those of caches; length of no map.
pub const LISTS_MAX: u16 = 21;
/// Limits of sources, the first of which is none; length of `limits`.
pub const LIMITS_MAX: u32 = 64;
/// Sources with a limit that are remembered; length of `buckets`.
pub const BUCKETS_MAX: u32 = 16_384;
/// Units of time in a nanosecond, as buckets count it.
pub const BUCKET_UNITS_PER_NS: u64 = 16;
/// Bits behind the point of [`Limit::byte_cost`].
pub const BYTE_COST_SHIFT: u32 = 20;
/// Slots of the hot set; length of `hot`.
pub const HOT_SLOTS: u32 = 4_096;
/// Most areas into which the slots are divided.
pub const HOT_AREAS_MAX: u32 = 8;
/// Caches of one node that can be answered from the hot set; length of `hot_words`.
pub const HOT_CACHES: u16 = 16;
/// Words of one CPU's row of `hot_hits`: answers from each slot, then for each cache.
pub const HOT_HITS_ROW_WORDS: usize = HOT_SLOTS as usize + HOT_CACHES as usize;
/// Feed channels of each; 0 means that clients own the key.
pub const HOT_CHANNELS: usize = 256;
/// Bytes of the longest key in the hot set.
pub const HOT_KEY_BYTES_MAX: usize = 32;
/// Bytes of the longest reply text in the hot set.
pub const HOT_REPLY_BYTES_MAX: usize = 208;
/// Words of the client's flags in decimal digits.
pub const HOT_FLAGS_WORDS: usize = 2;
/// Words of a version in decimal digits.
pub const HOT_VERSION_WORDS: usize = 3;
/// Feeds of a node whose applied packets the program may drop; length of `feeds`.
pub const FEEDS_MAX: u32 = 16;
/// Lines of one feed.
pub const FEED_LINES_MAX: u32 = 3;
/// Lines of all feeds; length of `feed_lines`.
pub const FEED_LINES_TOTAL: u32 = FEEDS_MAX * FEED_LINES_MAX;
/// Records of dropped packets in a slot of `feeds`.
pub const FEED_RECORDS: u32 = 2_048;
/// Longest datagram of a feed that may be dropped, UDP header included.
pub const FEED_DATAGRAM_BYTES_MAX: usize = 2_048;
/// Whether this build's program answers from the hot set, and drops what was applied of a feed. Elsewhere BPF
/// cannot promise that loads stay in order, and everything goes to the worker.
pub const HOT_PATH: bool = cfg!(target_arch = "x86_64");
/// [`RxMeta::magic`].
pub const RX_META_MAGIC: u32 = u32::from_le_bytes(*b"NAUT");

/// Directly before the first byte of every redirected frame (XDP metadata).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// `CLOCK_MONOTONIC` when the steering program ran, nanoseconds.
    pub rx_ns: u64,
    /// [`RX_META_MAGIC`].
    pub magic: u32,
    /// [`Permissions`] bits: what the source may do with the service it means.
    pub permissions: u32,
}

/// Key of `sources_exact` and `served`: sixteen bytes in network order, IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

/// Key of `sources`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourcePrefixKey {
    /// Prefix length over the sixteen bytes, 0..=128.
    pub bits: u32,
    /// The prefix; bits beyond `bits` are 0.
    pub address: Address,
}

/// Value of `sources_exact` and `sources`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// [`Permissions`] bits of list `n` from bit `3 * n` on; 0 denies.
    pub permissions: u64,
    /// Index of `limits`; 0 is none.
    pub limit: u32,
    /// 4 or 6: the family of the packets this entry speaks for.
    pub family: u32,
}

/// Value of `limits`. Costs are what a packet or byte takes of its bucket, in 1/16 ns, and bursts what a
/// full bucket holds; a cost of 0 is no bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Of one packet.
    pub packet_cost: u64,
    /// At least one packet's cost.
    pub packet_burst: u64,
    /// Of 2^20 bytes.
    pub byte_cost: u64,
    /// At least the longest frame's cost.
    pub byte_burst: u64,
}

/// Value of `buckets`: when each is full again, in 1/16 ns of `CLOCK_MONOTONIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket of packets.
    pub packets_full_at: u64,
    /// The bucket of bytes.
    pub bytes_full_at: u64,
}

/// What a source may do with a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl Permissions {
    /// Listed only to be refused.
    pub const NONE: Self = Self(0);
    /// May read.
    pub const READ: Self = Self(1);
    /// May write.
    pub const WRITE: Self = Self(2);
    /// May administer.
    pub const ADMIN: Self = Self(4);
    /// Every permission.
    pub const ALL: Self = Self(7);

    /// Whether it has all of `wanted`.
    #[inline]
    pub const fn allows(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Both together.
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Only what is a permission of a word somebody else has written.
    #[inline]
    pub const fn masked(word: u32) -> Self {
        Self(word & Self::ALL.0)
    }
}

/// Value of `ports`. All zero is no service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// For the reader of the map; the program does not look at it.
    pub id: u32,
    /// `UDP`, `TCP`, ... bits.
    pub flags: u32,
    /// Of a `HOT` service: what a hot slot must say too, so that a cache never answers for the one
    /// that had its index before.
    pub cache_generation: u32,
    /// Of a `HOT` service: below [`HOT_CACHES`].
    pub cache: u16,
    /// Whose permissions count; below [`LISTS_MAX`], 0 is the node's own list.
    pub list: u16,
}

impl Service {
    /// UDP is redirected.
    pub const UDP: u32 = 1;
    /// TCP of listed sources goes to the kernel, of others nowhere.
    pub const TCP: u32 = 2;
    /// Reached at unicast addresses.
    pub const UNICAST: u32 = 4;
    /// Reached at multicast groups.
    pub const MULTICAST: u32 = 8;
    /// Sends a datagram back, so datagrams from port 0 or from another replying service's port are
    /// refused: two such services would answer each other for ever.
    pub const REPLIES: u32 = 16;
    /// A memcached cache: the program may answer a `get` of a hot key itself.
    pub const HOT: u32 = 32;
    /// Lines of feeds: the program may drop what their worker says it has applied.
    pub const FEED: u32 = 64;
    const HOT_AREA_BITS_SHIFT: u32 = 8;
    const HOT_AREA_BITS_MASK: u32 = 3;

    /// A service that answers requests sent to a unicast address: echo, cache.
    pub const fn replying(id: u32) -> Self {
        Self::with(id, Self::UDP | Self::TCP | Self::UNICAST | Self::REPLIES)
    }

    /// A cache whose hot keys the program may answer: its index below [`HOT_CACHES`], and its
    /// generation, which no other cache of this index has had.
    pub const fn hot_cache(id: u32, cache: u16, cache_generation: u32) -> Self {
        let replying = Self::replying(id);
        Self { flags: replying.flags | Self::HOT, cache_generation, cache, ..replying }
    }

    /// The same where `workers` workers show hot keys, 1 to [`HOT_AREAS_MAX`] of them, each in an area of
    /// its own: [`HotArea`](crate::HotArea) of each must be made with the same number. Panics above.
    pub const fn of_workers(self, workers: u32) -> Self {
        assert!(0 < workers && workers <= HOT_AREAS_MAX);
        let bits = workers.next_power_of_two().trailing_zeros();
        let others = self.flags & !(Self::HOT_AREA_BITS_MASK << Self::HOT_AREA_BITS_SHIFT);
        Self { flags: others | bits << Self::HOT_AREA_BITS_SHIFT, ..self }
    }

    /// Areas of the hot set's slots, a power of two up to [`HOT_AREAS_MAX`].
    pub const fn hot_areas(&self) -> u32 {
        1 << (self.flags >> Self::HOT_AREA_BITS_SHIFT & Self::HOT_AREA_BITS_MASK)
    }

    /// A service that only listens, to groups or unicast: a market data line.
    pub const fn listening(id: u32) -> Self {
        Self::with(id, Self::UDP | Self::TCP | Self::UNICAST | Self::MULTICAST)
    }

    /// The same with lines in `feed_lines`.
    pub const fn of_feeds(self) -> Self {
        Self { flags: self.flags | Self::FEED, ..self }
    }

    const fn with(id: u32, flags: u32) -> Self {
        Self { id, flags, cache_generation: 0, cache: 0, list: 0 }
    }

    /// The same with the permissions of another list.
    pub const fn on_list(self, list: u16) -> Self {
        Self { list, ..self }
    }
}

/// Value of `interfaces`, keyed by ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's own MAC address.
    pub mac: [u8; 6],
    /// Receive queues that may have a socket.
    pub queue_count: u16,
    /// The socket of queue `q` is `xsks[first_socket + q]`.
    pub first_socket: u32,
}

/// Value of `served`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// 0.
    pub reserved: u32,
}

/// Value of `judged`, which only the program uses; here so that its shape is asserted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Who sent.
    pub source: Address,
    /// Which served address was meant.
    pub destination: Address,
    /// `list_epoch` before the lists were asked.
    pub epoch: u64,
    /// The source's, as in [`Source`]; 0 is unlisted.
    pub permissions: u64,
    /// The source's.
    pub limit: u32,
    /// 0.
    pub reserved: u32,
}

/// Value of `verdicts`, one per possible CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packet_count: u64,
    /// Their bytes, whole frames from the Ethernet header on, as received.
    pub byte_count: u64,
}

/// One half of a [`HotSlot`]: a key and its finished reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotCopy {
    /// `CLOCK_MONOTONIC` nanoseconds from which on it is no longer true; 0 is never.
    pub expiry_ns: u64,
    /// The key's bytes in four words, so that it ends with the last; zeroes before it.
    pub key: [u64; HOT_KEY_BYTES_MAX / 8],
    /// Of the cache.
    pub cache_generation: u32,
    /// The cache's flush epoch and the channel's epoch when the value was written, added.
    pub epoch: u32,
    /// Index of the cache.
    pub cache: u16,
    /// 1 to [`HOT_REPLY_BYTES_MAX`].
    pub reply_bytes: u16,
    /// Ones'-complement sum of the text from an even offset on (RFC 1071), folded, not inverted, as
    /// it would be stored.
    pub reply_sum: u16,
    /// The feed channel that owns the key; 0 for the clients.
    pub channel: u8,
    /// 1 to [`HOT_KEY_BYTES_MAX`]; 0 is an empty slot.
    pub key_bytes: u8,
    /// As `reply_sum`, of the value and the line end behind it.
    pub value_sum: u16,
    /// Bytes of the reply before its value; 0: no meta request is answered from it.
    pub line_bytes: u8,
    /// Bytes of the value.
    pub value_bytes: u8,
    /// Digits of the client's flags.
    pub flags_bytes: u8,
    /// Digits of the version.
    pub version_bytes: u8,
    /// 0.
    pub reserved: u16,
    /// Those digits, then zeroes.
    pub flags: [u64; HOT_FLAGS_WORDS],
    /// Those digits, then zeroes.
    pub version: [u64; HOT_VERSION_WORDS],
    /// The text after the UDP frame header.
    pub reply: [u64; HOT_REPLY_BYTES_MAX / 8],
}

/// Value of `hot`. Readers use `copies[version & 1]` and believe it when the version is the same
/// afterwards; the one writer fills the other and then stores the next version.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotSlot {
    /// Publications of this slot.
    pub version: u64,
    /// The published copy and the next.
    pub copies: [HotCopy; 2],
    /// 0; fills the last cache line.
    pub reserved: u64,
}

/// Key of `feed_lines`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeedLineKey {
    /// Group of the line.
    pub group: Address,
    /// UDP port.
    pub port: u32,
}

/// Value of `feed_lines`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedLine {
    /// Index of `feeds`.
    pub feed: u32,
    /// Below [`FEED_LINES_MAX`].
    pub line: u32,
}

/// One dropped packet in [`FeedSlotValue`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedRecordValue {
    /// Its place in the sequence of records, plus 1, once the rest is written.
    pub stamp: u64,
    /// Of the slot, by which it was judged.
    pub version: u64,
    /// Number of its first message.
    pub sequence: u64,
    /// 1 to 65,534.
    pub message_count: u16,
    /// Of the feed.
    pub line: u16,
    /// 0.
    pub reserved: u32,
}

/// Value of `feeds`; what the words mean stands in `intf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedSlotValue {
    /// Odd or 0: nothing is known.
    pub version: u64,
    /// The session's first 8 bytes as they stand in the packet.
    pub session_head: u64,
    /// And its last 2.
    pub session_tail: u64,
    /// Every message from this number on ...
    pub from: u64,
    /// ... to before this one was applied.
    pub next: u64,
    /// 0.
    pub reserved_0: [u64; 3],
    /// Records begun.
    pub head: u64,
    /// 0.
    pub reserved_1: [u64; 7],
    /// Records counted by the owner.
    pub tail: u64,
    /// 0.
    pub reserved_2: [u64; 495],
    /// What was dropped.
    pub records: [FeedRecordValue; FEED_RECORDS as usize],
}

/// One feed channel in [`HotWordsValue`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotChannel {
    /// `CLOCK_MONOTONIC` nanoseconds; 0 is suspect, `u64::MAX` without a limit.
    pub valid_until_ns: u64,
    /// How often the channel was begun anew.
    pub epoch: u64,
}

/// Value of `hot_words`. All zero, as loaded, allows no reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotWordsValue {
    /// `CLOCK_MONOTONIC` nanoseconds, the lease; `u64::MAX` for a cache that needs none.
    pub valid_until_ns: u64,
    /// How often everything was forgotten.
    pub flush_epoch: u64,
    /// Not 0 while the node's kill switch is on: nothing of a feed is answered.
    pub halted: u64,
    /// 0; fills the cache line.
    pub reserved: [u64; 5],
    /// Of channel 0 only the epoch counts, and it stays 0.
    pub channels: [HotChannel; HOT_CHANNELS],
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        IpAddr::from(address.0).to_canonical()
    }
}

macro_rules! plain {
    ($($name:ty, $size:literal $(, $field:ident at $offset:literal)*;)*) => {$(
        // SAFETY: repr(C) integers and byte arrays; the sizes below leave no room for padding.
        unsafe impl Plain for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(offset_of!($name, $field) == $offset);)*
    )*};
}

plain! {
    RxMeta, 16, magic at 8, permissions at 12;
    Address, 16;
    SourcePrefixKey, 20, address at 4;
    Source, 16, limit at 8, family at 12;
    Limit, 32, packet_burst at 8, byte_cost at 16, byte_burst at 24;
    Bucket, 16, bytes_full_at at 8;
    Service, 16, flags at 4, cache_generation at 8, cache at 12, list at 14;
    Interface, 12, queue_count at 6, first_socket at 8;
    Served, 4;
    Judged, 56, destination at 16, epoch at 32, permissions at 40, limit at 48;
    Tally, 16, byte_count at 8;
    FeedLineKey, 20, port at 16;
    FeedLine, 8, line at 4;
    FeedRecordValue, 32, version at 8, sequence at 16, message_count at 24, line at 26;
    FeedSlotValue, 69_632, session_head at 8, session_tail at 16, from at 24, next at 32, head at 64,
        tail at 128, records at 4096;
    HotCopy, 312, key at 8, cache_generation at 40, epoch at 44, cache at 48, reply_bytes at 50,
        reply_sum at 52, channel at 54, key_bytes at 55, value_sum at 56, line_bytes at 58,
        value_bytes at 59, flags_bytes at 60, version_bytes at 61, reserved at 62, flags at 64,
        version at 80, reply at 104;
    HotSlot, 640, copies at 8, reserved at 632;
    HotChannel, 16, epoch at 8;
    HotWordsValue, 4160, flush_epoch at 8, halted at 16, channels at 64;
    u32, 4;
    u64, 8;
}
