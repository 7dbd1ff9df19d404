//! Frames to be mutated.

use super::feed::{FROM, NEXT, SESSION, mold, on_v4, on_v6};
use super::frame::{DESTINATION, FRAGMENT, Frame, HOP_BY_HOP, ROUTING, TCP};
use super::hot::{HOT_KEYS, get};
use super::mutate::readdress;
use super::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, GROUP_V6, LISTED_V4, LISTED_V6, OUR_V4, UNLISTED_V4,
    captures, data,
};

/// Sound shapes at the front of the corpus.
pub const SHAPES: usize = 26;

/// Frames to start from: every shape the fixtures have, and the captures readdressed to us.
pub fn corpus() -> Vec<Vec<u8>> {
    let chain = |kinds: &[u8]| {
        let extensions = kinds.iter().map(|kind| (*kind, vec![0; 8])).collect();
        Frame::v6(CACHE_PORT).with(|f| f.extensions = extensions)
    };
    let mut corpus: Vec<Vec<u8>> = [
        Frame::v4(CACHE_PORT),
        Frame::v4(ECHO_PORT).with(|f| f.tags = vec![0x8100]),
        Frame::v4(CACHE_PORT).with(|f| f.options = vec![1; 12]),
        Frame::v4(CACHE_PORT).with(|f| f.protocol = TCP),
        Frame::v4(CACHE_PORT).with(|f| f.source_port = ECHO_PORT),
        Frame::v4(CACHE_PORT).with(|f| f.payload = vec![0; 1760]),
        Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT),
        Frame::new("198.18.9.9", OUR_V4, CACHE_PORT),
        Frame::group(FEED_PORT),
        Frame::v6(CACHE_PORT),
        Frame::v6(ECHO_PORT).with(|f| f.tags = vec![0x88a8, 0x8100]),
        Frame::new(LISTED_V6, GROUP_V6, FEED_PORT),
        chain(&[HOP_BY_HOP, DESTINATION]),
        chain(&[DESTINATION; 4]),
        chain(&[ROUTING, FRAGMENT]),
        get(Frame::v4(CACHE_PORT), 1, b"h"),
        get(Frame::v4(CACHE_PORT), 2, HOT_KEYS[3].as_bytes()).with(|f| f.tags = vec![0x8100]),
        get(Frame::v6(CACHE_PORT), 3, b"md:nasdaq:AAPL:bbo"),
        get(Frame::v6(CACHE_PORT), 4, b"hot:key").with(|f| f.tags = vec![0x8100]),
        get(Frame::v4(CACHE_PORT), 5, b"cold:key"),
        get(Frame::v4(CACHE_PORT), 6, b"hot:key").with(|f| f.options = vec![1; 4]),
        get(Frame::v6(CACHE_PORT), 7, b"h").with(|f| f.tags = vec![0x88a8]),
        on_v4(mold(SESSION, FROM, 9)),
        on_v4(mold(SESSION, NEXT - 200, 200)).with(|f| f.tags = vec![0x88a8, 0x8100]),
        on_v6(mold(SESSION, NEXT - 1, 1)),
        on_v6(mold(SESSION, NEXT - 1, 2)).with(|f| f.tags = vec![0x8100]),
    ]
    .iter()
    .map(Frame::bytes)
    .collect();
    assert_eq!(corpus.len(), SHAPES);
    for folder in ["bad-packets", "marketdata/omi-pcap"] {
        let Some(folder) = data("mutations of captures", folder) else { continue };
        for (index, frame) in captures::frames(&folder).iter().enumerate() {
            let port = [CACHE_PORT, ECHO_PORT, FEED_PORT][index % 3];
            if let Some(frame) = readdress(&frame.bytes, port, (LISTED_V4, LISTED_V6)) {
                corpus.push(frame);
            }
        }
    }
    corpus
}
