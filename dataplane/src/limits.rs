//! Every fixed bound of the data plane, with the asserts that relate them to each other.
//!
//! A constant that was tuned says what happens when it is too low and when it is too high.

/// Datagrams handled per turn of the run loop. Too low: per-turn costs (clock, ring publishes) are
/// not spread, and prefetching has nothing to overlap. Too high: one burst delays the next flush.
pub const BURST_DATAGRAMS_MAX: usize = 32;

/// UMEM chunk that carries a 1,500-byte MTU: 272 bytes of headroom, 14 + 8 of Ethernet and two tags,
/// 1,500 of packet.
pub const CHUNK_BYTES_SMALL: u32 = 2048;

/// The largest chunk: one page. An MTU that does not fit is refused, multi-buffer is not built.
pub const CHUNK_BYTES_LARGE: u32 = 4096;

/// What we have the kernel leave beyond its own headroom: the metadata in front of a received packet, 16
/// bytes, then begins a cache line and shares it with the headers. Lower: every packet moves one line more
/// between the core that receives it and the worker's. Higher: less room for the packet.
pub const UMEM_HEADROOM_BYTES: u32 = 16;

/// Bytes before a received packet: the kernel's (`XDP_PACKET_HEADROOM`) and ours.
pub const XDP_HEADROOM_BYTES: u32 = 256 + UMEM_HEADROOM_BYTES;

/// Ethernet header and at most two 802.1Q/802.1ad tags.
pub const LINK_HEADER_BYTES_MAX: u32 = 14 + 2 * 4;

/// IPv6 extension headers stepped over before UDP. Too low: packets with legitimate options are
/// dropped. Too high: one packet costs many dependent loads.
pub const IPV6_EXTENSION_HEADERS_MAX: usize = 8;

/// Receive queues of one interface that a node serves; bounds the XSKMAP.
pub const QUEUES_MAX: usize = 64;

/// Largest UDP payload of a reply. memcached cuts at 1,400 bytes of UDP payload and clients rely on
/// it; it also fits a 1,500-byte MTU with IPv6, options and two tags.
pub const REPLY_PAYLOAD_BYTES_MAX: usize = 1400;

/// Part of the frames kept back from reception for replies: one in so many. Too low a part: replies
/// fail for want of a frame under a burst. Too high: reception drops sooner.
pub const TRANSMIT_RESERVE_SHARE: u32 = 4;

/// The rx ring has one entry for so many frames. Too long a ring (1): an outage of the worker ends
/// with an empty fill ring, and its successor is deaf until it has caught up. Too short: packets of
/// a short outage are dropped (rate x outage entries are needed).
pub const RX_RING_SHARE: u32 = 2;

const _: () = assert!(
    // 1 / a < 1 - 1 / b, in whole numbers.
    RX_RING_SHARE + TRANSMIT_RESERVE_SHARE < RX_RING_SHARE * TRANSMIT_RESERVE_SHARE,
    "the rx ring must be full before the fill ring is empty"
);
const _: () = assert!(
    XDP_HEADROOM_BYTES + LINK_HEADER_BYTES_MAX + 1500 <= CHUNK_BYTES_SMALL,
    "a 1,500-byte MTU must fit the small chunk"
);
const _: () = assert!(REPLY_PAYLOAD_BYTES_MAX + 8 + 40 <= 1500, "a reply must fit the MTU");
/// TCP connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`. Too low: a crowd
/// of clients is refused while a front is replaced. Too high: they wait for longer than they want.
pub const LISTEN_BACKLOG: i32 = 4096;
