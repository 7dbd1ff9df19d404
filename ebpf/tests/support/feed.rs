//! MoldUDP64 packets of a feed, and what its owner says it has applied.

use nautilus_ebpf::FeedLineAt;

use super::frame::{Frame, group_mac};
use super::{FEED_PORT, GROUP_V4, GROUP_V6, LISTED_V6, ip};

/// The feed's slot; `GROUP_V4` is its line 0, `GROUP_V6` its line 2.
pub const FEED: u32 = 5;
/// What the rig's owner has applied.
pub const SESSION: [u8; 10] = *b"000000MON1";
pub const FROM: u64 = 100;
pub const NEXT: u64 = 1_000;

pub fn lines() -> [FeedLineAt; 2] {
    [(GROUP_V4, 0), (GROUP_V6, 2)].map(|(group, line)| FeedLineAt {
        group: ip(group),
        port: FEED_PORT,
        feed: FEED,
        line,
    })
}

/// A packet of one-byte messages; heartbeat and end of session have none.
pub fn mold(session: [u8; 10], sequence: u64, message_count: u16) -> Vec<u8> {
    let mut payload = session.to_vec();
    payload.extend(sequence.to_be_bytes());
    payload.extend(message_count.to_be_bytes());
    let messages = if message_count == 0xffff { 0 } else { message_count.min(450) };
    payload.extend((0..messages).flat_map(|message| [0, 1, message as u8]));
    payload
}

/// The same with right checksums on the line of the family.
pub fn on_v4(payload: Vec<u8>) -> Frame {
    Frame::group(FEED_PORT).with(|f| (f.payload, f.checksums) = (payload, true))
}

pub fn on_v6(payload: Vec<u8>) -> Frame {
    Frame::new(LISTED_V6, GROUP_V6, FEED_PORT).with(|f| {
        f.to_mac = group_mac(f.destination);
        (f.payload, f.checksums) = (payload, true);
    })
}
