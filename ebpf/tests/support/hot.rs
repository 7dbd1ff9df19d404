//! The hot set in tests: what is published, requests for it, and answers read by etherparse.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nautilus_ebpf::{HotSlots, HotValue, slot_of};

use super::checksum;
use super::frame::Frame;

/// The cache behind `CACHE_PORT`.
pub const HOT_CACHE: u16 = 3;
pub const HOT_GENERATION: u32 = 71;
pub const HOT_EPOCH: u32 = 5;

/// Keys every rig starts with.
pub const HOT_KEYS: [&str; 4] =
    ["h", "hot:key", "md:nasdaq:AAPL:bbo", "a-key-of-the-longest-length-32-b"];

/// What a rig answers to one of them: the reply of a value as long as the key twice.
pub fn text(key: &[u8]) -> Vec<u8> {
    let value = [key, key].concat();
    let head = [b"VALUE ", key, format!(" 0 {}\r\n", value.len()).as_bytes()].concat();
    [&head, &value[..], b"\r\nEND\r\n"].concat()
}

/// A client's value without an end, written before any flush the rig has not counted.
pub fn value<'a>(key: &'a [u8], reply_text: &'a [u8]) -> HotValue<'a> {
    HotValue {
        cache: HOT_CACHE,
        generation: HOT_GENERATION,
        epoch: HOT_EPOCH,
        channel: 0,
        expiry_ns: 0,
        key,
        reply_text,
        reply_sum: checksum::sum(&[reply_text]).to_be(),
        meta: None,
    }
}

/// Publishes in the key's slot of the rig's cache.
pub fn publish(slots: &mut HotSlots, value: &HotValue<'_>) -> u32 {
    let slot = slot_of(HOT_CACHE, value.key).expect("a test's key fits");
    slots.publish(slot, value).expect("a test's value fits");
    slot
}

/// A frame made into a sound request: frame header with this id, then `get KEY\r\n`.
pub fn get(mut frame: Frame, id: u16, key: &[u8]) -> Frame {
    let [high, low] = id.to_be_bytes();
    frame.payload = [&[high, low, 0, 0, 0, 1, 0, 0][..], b"get ", key, b"\r\n"].concat();
    frame.checksums = true;
    frame
}

/// Checks everything about an answer that follows from its request, and returns its text.
pub fn read_answer(name: &str, request: &[u8], answer: &[u8]) -> Vec<u8> {
    let parse = |frame| {
        SlicedPacket::from_ethernet(frame)
            .unwrap_or_else(|error| panic!("{name}: {error}: {frame:02x?}"))
    };
    let (to, from) = (parse(answer), parse(request));
    assert_eq!(answer[..6], request[6..12], "{name}: destination MAC");
    assert_eq!(answer[6..12], request[..6], "{name}: source MAC");
    let tags = |packet: &SlicedPacket<'_>| {
        packet.vlan_ids().into_iter().map(etherparse::VlanId::value).collect::<Vec<_>>()
    };
    assert_eq!(tags(&to), tags(&from), "{name}: tags");
    let (addresses, ip_end) = match (&to.net, &from.net) {
        (Some(NetSlice::Ipv4(to)), Some(NetSlice::Ipv4(from))) => {
            let (to, from) = (to.header(), from.header());
            assert_eq!(to.source_addr(), from.destination_addr(), "{name}");
            assert_eq!(to.destination_addr(), from.source_addr(), "{name}");
            assert_eq!(to.ttl(), 64, "{name}");
            assert!(to.dont_fragment() && !to.is_fragmenting_payload(), "{name}");
            assert_eq!((to.ihl(), to.dcp().value(), to.identification()), (5, 0, 0), "{name}");
            let header = to.to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "{name}: IPv4 sum");
            ([to.source(), to.destination()].concat(), usize::from(to.total_len()))
        }
        (Some(NetSlice::Ipv6(to)), Some(NetSlice::Ipv6(from))) => {
            let (to, from) = (to.header(), from.header());
            assert_eq!(to.source_addr(), from.destination_addr(), "{name}");
            assert_eq!(to.destination_addr(), from.source_addr(), "{name}");
            assert_eq!((to.hop_limit(), to.next_header().0), (64, 17), "{name}");
            assert_eq!((to.traffic_class(), to.flow_label().value()), (0, 0), "{name}");
            let addresses = [to.source(), to.destination()].concat();
            (addresses, 40 + usize::from(to.payload_length()))
        }
        families => panic!("{name}: {families:?}"),
    };
    let (Some(TransportSlice::Udp(to)), Some(TransportSlice::Udp(from))) =
        (to.transport, from.transport)
    else {
        panic!("{name}: not UDP for UDP")
    };
    assert_eq!(to.source_port(), from.destination_port(), "{name}");
    assert_eq!(to.destination_port(), from.source_port(), "{name}");
    let link_bytes = answer.len() - ip_end;
    assert!([14, 18].contains(&link_bytes), "{name}: the frame ends with its packet");
    assert_ne!(to.checksum(), 0, "{name}: a UDP checksum of 0 says there is none");
    assert_eq!(checksum::udp_sum(&addresses, to.slice()), 0xffff, "{name}: UDP sum");
    assert_eq!(to.slice().len(), usize::from(to.length()), "{name}");
    let (header, text) = to.payload().split_at(8);
    assert_eq!(header[..2], from.payload()[..2], "{name}: the request's id");
    assert_eq!(header[2..], [0, 0, 0, 1, 0, 0], "{name}: first of one datagram");
    text.to_vec()
}
