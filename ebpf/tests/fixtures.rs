//! The table of packets: what goes in, which verdict comes out. `Rig::run` checks for every one of
//! them that exactly this verdict is counted, that the action is the verdict's, that the packet
//! comes out unchanged, and that a stamp stands before it if and only if it was redirected.

mod support;

use nautilus_ebpf::Verdict::{self, *};

use support::frame::{DESTINATION, FRAGMENT, Frame, HOP_BY_HOP, ROUTING, TCP, group_mac};
use support::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, FRAME_BYTES_MAX, GROUP_V4, GROUP_V6, LISTED_V4, LISTED_V6,
    OUR_V4, OUR_V6, PEER_MAC, Rig, UNLISTED_V4, UNLISTED_V6, ip,
};

/// Name, packet, verdict.
type Case = (&'static str, Frame, Verdict);

const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

/// An extension header of 8 bytes; the fourth is a routing header's segments left.
fn extension(kind: u8, segments_left: u8) -> (u8, Vec<u8>) {
    (kind, vec![0, 0, 0, segments_left, 0, 0, 0, 0])
}

/// A fragment header: offset in 8-byte units, more to come.
fn fragment_header(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 1])
}

fn v4() -> Frame {
    Frame::v4(CACHE_PORT)
}

fn v6() -> Frame {
    Frame::v6(CACHE_PORT)
}

fn check(test: &str, cases: Vec<Case>) {
    let Some(rig) = Rig::new(test) else { return };
    for (name, frame, verdict) in cases {
        rig.expect(name, &frame.bytes(), verdict);
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn link_layer() {
    check(
        "link_layer",
        vec![
            ("untagged", v4(), Redirected),
            ("one tag", v4().with(|f| f.tags = vec![Q]), Redirected),
            ("QinQ", v4().with(|f| f.tags = vec![AD, Q]), Redirected),
            ("two 802.1Q tags, IPv6", v6().with(|f| f.tags = vec![Q, Q]), Redirected),
            ("three tags", v4().with(|f| f.tags = vec![AD, Q, Q]), VlanDepth),
            (
                "three tags, unlisted",
                Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).with(|f| f.tags = vec![Q, Q, Q]),
                VlanDepth,
            ),
            (
                "tagged, unlisted",
                Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).with(|f| f.tags = vec![Q]),
                SourceUnlisted,
            ),
            ("a tag of an unknown kind", v4().with(|f| f.tags = vec![0x9100]), NotIp),
            ("a peer's MAC", v4().with(|f| f.to_mac = PEER_MAC), OtherMac),
            ("broadcast MAC", v4().with(|f| f.to_mac = [0xff; 6]), OtherMac),
            (
                "our address in a group's frame",
                v4().with(|f| f.to_mac = group_mac(ip(GROUP_V4))),
                OtherMac,
            ),
            (
                "our address in its own would-be group frame",
                v4().with(|f| f.to_mac = group_mac(ip(OUR_V4))),
                OtherMac,
            ),
            ("one bit off our MAC", v4().with(|f| f.to_mac[5] ^= 0x80), OtherMac),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn destinations() {
    check(
        "destinations",
        vec![
            ("address not served", Frame::new(LISTED_V4, "198.18.0.3", CACHE_PORT), OtherAddress),
            (
                "address not served, unlisted",
                Frame::new(UNLISTED_V4, "198.18.0.3", CACHE_PORT),
                OtherAddress,
            ),
            (
                "IPv6 address not served",
                Frame::new(LISTED_V6, "fd00:6e61::3", CACHE_PORT),
                OtherAddress,
            ),
            (
                "our IPv4 address mapped into IPv6",
                Frame::new(LISTED_V6, "::ffff:198.18.0.1", CACHE_PORT),
                OtherAddress,
            ),
            ("port without a service", Frame::v4(CACHE_PORT + 1), OtherPort),
            ("port without a service, unlisted", Frame::new(UNLISTED_V4, OUR_V4, 53), OtherPort),
            ("echo", Frame::v4(ECHO_PORT), Redirected),
            ("group", Frame::group(FEED_PORT), Redirected),
            ("group at our own MAC", Frame::new(LISTED_V4, GROUP_V4, FEED_PORT), Redirected),
            (
                "group at another group's MAC",
                Frame::group(FEED_PORT).with(|f| f.to_mac[5] ^= 1),
                OtherMac,
            ),
            (
                "group not served",
                Frame::group(FEED_PORT).with(|f| {
                    f.destination = ip("233.54.12.112");
                    f.to_mac = group_mac(f.destination);
                }),
                OtherAddress,
            ),
            (
                "another group behind the same MAC",
                Frame::group(FEED_PORT).with(|f| f.destination = ip("233.182.12.111")),
                OtherAddress,
            ),
            (
                "IPv6 group",
                Frame::new(LISTED_V6, GROUP_V6, FEED_PORT)
                    .with(|f| f.to_mac = group_mac(f.destination)),
                Redirected,
            ),
            (
                "group, unlisted",
                Frame::new(UNLISTED_V4, GROUP_V4, FEED_PORT)
                    .with(|f| f.to_mac = group_mac(f.destination)),
                SourceUnlisted,
            ),
            ("feed port at our unicast address", Frame::v4(FEED_PORT), Redirected),
            ("a unicast service at a group", Frame::group(CACHE_PORT), OtherPort),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn sources() {
    let from = |source| Frame::new(source, OUR_V4, CACHE_PORT);
    let from6 = |source| Frame::new(source, OUR_V6, CACHE_PORT);
    check(
        "sources",
        vec![
            ("by prefix", from(LISTED_V4), Redirected),
            ("exact", from("198.18.9.9"), Redirected),
            ("next to exact", from("198.18.9.8"), SourceUnlisted),
            ("exact denial inside two allowed prefixes", from("198.18.0.66"), SourceUnlisted),
            ("beside that denial", from("198.18.0.67"), Redirected),
            ("denied prefix", from("198.18.8.8"), SourceUnlisted),
            ("last of the prefix", from("198.18.0.255"), Redirected),
            ("first after the prefix", from("198.18.1.0"), SourceUnlisted),
            ("IPv6 by prefix", from6(LISTED_V6), Redirected),
            ("IPv6 exact", from6("fd00:6e61:9::9"), Redirected),
            ("IPv6 unlisted", from6(UNLISTED_V6), SourceUnlisted),
            ("IPv6 denied longer prefix", from6("fd00:6e61:0:bad::1"), SourceUnlisted),
            ("multicast", from("224.0.0.1"), SourceInvalid),
            ("last multicast", from("239.255.255.255"), SourceInvalid),
            ("reserved", from("240.0.0.1"), SourceInvalid),
            ("last before multicast", from("223.255.255.255"), SourceUnlisted),
            ("broadcast", from("255.255.255.255"), SourceInvalid),
            ("zero", from("0.0.0.0"), SourceInvalid),
            ("this network", from("0.1.2.3"), SourceInvalid),
            ("loopback", from("127.0.0.1"), SourceInvalid),
            ("our own address", from(OUR_V4), SourceInvalid),
            ("IPv6 multicast", from6("ff02::1"), SourceInvalid),
            ("IPv6 zero", from6("::"), SourceInvalid),
            ("IPv6 loopback", from6("::1"), SourceInvalid),
            ("our own IPv6 address", from6(OUR_V6), SourceInvalid),
            ("a listed IPv4 address mapped into IPv6", from6("::ffff:198.18.0.2"), SourceInvalid),
            (
                "a listed exact IPv4 address mapped into IPv6",
                from6("::ffff:198.18.9.9"),
                SourceInvalid,
            ),
            ("IPv4-compatible", from6("::198.18.0.2"), SourceUnlisted),
            ("invalid, but no port of ours", Frame::new("127.0.0.1", OUR_V4, 53), OtherPort),
            (
                "from a replying service's port",
                v4().with(|f| f.source_port = ECHO_PORT),
                SourcePort,
            ),
            ("from port 0", v4().with(|f| f.source_port = 0), SourcePort),
            ("unlisted from port 0", from(UNLISTED_V4).with(|f| f.source_port = 0), SourceUnlisted),
            (
                "from a listening service's port",
                v4().with(|f| f.source_port = FEED_PORT),
                Redirected,
            ),
            (
                "feed from its own port",
                Frame::group(FEED_PORT).with(|f| f.source_port = FEED_PORT),
                Redirected,
            ),
            ("feed from port 0", Frame::group(FEED_PORT).with(|f| f.source_port = 0), Redirected),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn fragments_go_to_the_kernel() {
    let unlisted = || Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT);
    check(
        "fragments_go_to_the_kernel",
        vec![
            ("first", v4().with(|f| f.fragment = 0x2000), Fragment),
            ("middle", v4().with(|f| f.fragment = 0x2001), Fragment),
            ("last", v4().with(|f| f.fragment = 0x0001), Fragment),
            ("last possible", v4().with(|f| f.fragment = 0x1fff), Fragment),
            ("first, unlisted", unlisted().with(|f| f.fragment = 0x2000), Fragment),
            (
                "first, tagged",
                v4().with(|f| {
                    f.fragment = 0x2000;
                    f.tags = vec![Q];
                }),
                Fragment,
            ),
            ("don't fragment is none", v4().with(|f| f.fragment = 0x4000), Redirected),
            ("the reserved bit is none", v4().with(|f| f.fragment = 0x8000), Redirected),
            (
                "of somebody else's",
                Frame::new(LISTED_V4, "198.18.0.3", CACHE_PORT).with(|f| f.fragment = 1),
                OtherAddress,
            ),
            ("IPv6 first", v6().with(|f| f.extensions = vec![fragment_header(0, true)]), Fragment),
            ("IPv6 middle", v6().with(|f| f.extensions = vec![fragment_header(9, true)]), Fragment),
            ("IPv6 last", v6().with(|f| f.extensions = vec![fragment_header(9, false)]), Fragment),
            (
                "IPv6 atomic",
                v6().with(|f| f.extensions = vec![fragment_header(0, false)]),
                Fragment,
            ),
            (
                "IPv6 atomic after options",
                v6().with(|f| {
                    f.extensions = vec![extension(HOP_BY_HOP, 0), fragment_header(0, false)]
                }),
                Fragment,
            ),
            (
                "IPv6 atomic after four headers",
                v6().with(|f| {
                    f.extensions = vec![extension(DESTINATION, 0); 4];
                    f.extensions.push(fragment_header(0, false));
                }),
                Fragment,
            ),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn options_and_extension_headers() {
    let chain = |extensions: Vec<(u8, Vec<u8>)>| v6().with(|f| f.extensions = extensions);
    let long = |kind: u8| (kind, [vec![0, 255, 0, 0], vec![0; 2044]].concat());
    check(
        "options_and_extension_headers",
        vec![
            ("one option word", v4().with(|f| f.options = vec![1; 4]), Redirected),
            ("the longest options", v4().with(|f| f.options = vec![1; 40]), Redirected),
            (
                "options, unlisted",
                Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).with(|f| f.options = vec![1; 40]),
                SourceUnlisted,
            ),
            ("hop-by-hop", chain(vec![extension(HOP_BY_HOP, 0)]), Redirected),
            ("destination options", chain(vec![extension(DESTINATION, 9)]), Redirected),
            ("used-up routing header", chain(vec![extension(ROUTING, 0)]), Redirected),
            (
                "routing header with a segment left",
                chain(vec![extension(ROUTING, 1)]),
                ExtensionHeaders,
            ),
            (
                "four headers",
                chain(vec![
                    extension(HOP_BY_HOP, 0),
                    extension(DESTINATION, 0),
                    extension(ROUTING, 0),
                    extension(DESTINATION, 0),
                ]),
                Redirected,
            ),
            (
                "four headers, unlisted",
                Frame::new(UNLISTED_V6, OUR_V6, CACHE_PORT)
                    .with(|f| f.extensions = vec![extension(DESTINATION, 0); 4]),
                SourceUnlisted,
            ),
            ("five headers", chain(vec![extension(DESTINATION, 0); 5]), ExtensionHeaders),
            (
                "hop-by-hop in second place",
                chain(vec![extension(DESTINATION, 0), extension(HOP_BY_HOP, 0)]),
                ExtensionHeaders,
            ),
            (
                "a header that ends after the frame",
                chain(vec![(DESTINATION, vec![0, 200, 0, 0, 0, 0, 0, 0])]),
                TransportTruncated,
            ),
            (
                "a chain that starts after the frame",
                chain(vec![
                    (DESTINATION, vec![DESTINATION, 200, 0, 0, 0, 0, 0, 0]),
                    extension(DESTINATION, 0),
                ]),
                ExtensionHeaders,
            ),
            (
                "the longest header that fits",
                chain(vec![(DESTINATION, [vec![0, 180, 0, 0], vec![0; 1444]].concat())]),
                Redirected,
            ),
            ("a header of 2,048 bytes", chain(vec![long(DESTINATION)]), TooLong),
            ("ICMPv6", v6().with(|f| f.protocol = 58), OtherProtocol),
            ("no next header", v6().with(|f| f.protocol = 59), OtherProtocol),
            ("authentication header", chain(vec![(51, vec![0; 24])]), OtherProtocol),
            ("UDP-Lite", v4().with(|f| f.protocol = 136), OtherProtocol),
            ("ICMP", v4().with(|f| f.protocol = 1), OtherProtocol),
            ("IGMP to our group", Frame::group(FEED_PORT).with(|f| f.protocol = 2), OtherProtocol),
            ("IP in IP", v4().with(|f| f.protocol = 4), OtherProtocol),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn tcp_obeys_the_same_list() {
    let tcp = |source| Frame::new(source, OUR_V4, CACHE_PORT).with(|f| f.protocol = TCP);
    check(
        "tcp_obeys_the_same_list",
        vec![
            ("listed", tcp(LISTED_V4), TcpListed),
            ("unlisted", tcp(UNLISTED_V4), TcpSourceUnlisted),
            ("loopback", tcp("127.0.0.1"), SourceInvalid),
            (
                "unlisted, tagged twice",
                tcp(UNLISTED_V4).with(|f| f.tags = vec![AD, Q]),
                TcpSourceUnlisted,
            ),
            (
                "unlisted, options",
                tcp(UNLISTED_V4).with(|f| f.options = vec![1; 8]),
                TcpSourceUnlisted,
            ),
            ("unlisted, other port", tcp(UNLISTED_V4).with(|f| f.port = 22), OtherPort),
            ("fragment", tcp(UNLISTED_V4).with(|f| f.fragment = 0x2000), Fragment),
            ("IPv6 listed", v6().with(|f| f.protocol = TCP), TcpListed),
            (
                "IPv6 unlisted",
                Frame::new(UNLISTED_V6, OUR_V6, CACHE_PORT).with(|f| f.protocol = TCP),
                TcpSourceUnlisted,
            ),
            (
                "from a replying service's port",
                tcp(LISTED_V4).with(|f| f.source_port = ECHO_PORT),
                TcpListed,
            ),
            (
                "a length that lies is the kernel's",
                tcp(LISTED_V4).with(|f| f.ip_length = Some(9999)),
                TcpListed,
            ),
        ],
    );
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn lengths_that_lie() {
    // 20 of IPv4, 8 of UDP, 17 of payload.
    let ip_length = |length| v4().with(|f| f.ip_length = Some(length));
    let udp_length = |length| v4().with(|f| f.udp_length = Some(length));
    check(
        "lengths_that_lie",
        vec![
            ("the truth", ip_length(45), Redirected),
            ("IP beyond the frame by one", ip_length(46), IpLength),
            ("IP at most", ip_length(65535), IpLength),
            ("IP zero", ip_length(0), IpLength),
            ("IP shorter than its header", ip_length(19), IpLength),
            ("IP without transport", ip_length(20), IpLength),
            ("IP one short of UDP", ip_length(27), IpLength),
            ("IP ends inside UDP's length", ip_length(44), UdpLength),
            ("UDP zero", udp_length(0), UdpLength),
            ("UDP seven", udp_length(7), UdpLength),
            ("UDP empty", udp_length(8), Redirected),
            ("UDP shorter than IP says", udp_length(24), Redirected),
            ("UDP beyond IP by one", udp_length(26), UdpLength),
            ("UDP at most", udp_length(65535), UdpLength),
            (
                "lies from the unlisted are still unlisted",
                Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).with(|f| f.ip_length = Some(0)),
                SourceUnlisted,
            ),
            (
                "lies to other ports are the kernel's",
                Frame::v4(53).with(|f| f.udp_length = Some(0)),
                OtherPort,
            ),
            ("IPv6 beyond the frame", v6().with(|f| f.ip_length = Some(26)), IpLength),
            ("IPv6 zero, a jumbogram", v6().with(|f| f.ip_length = Some(0)), IpLength),
            (
                "IPv6 covers only its extensions",
                v6().with(|f| {
                    f.extensions = vec![extension(DESTINATION, 0)];
                    f.ip_length = Some(8);
                }),
                IpLength,
            ),
            ("IPv6 UDP zero", v6().with(|f| f.udp_length = Some(0)), UdpLength),
            (
                "as long as a chunk",
                v4().with(|f| f.payload = vec![7; FRAME_BYTES_MAX as usize - 42]),
                Redirected,
            ),
            (
                "jumbo by one",
                v4().with(|f| f.payload = vec![7; FRAME_BYTES_MAX as usize - 41]),
                TooLong,
            ),
            ("jumbo", v4().with(|f| f.payload = vec![7; 3300]), TooLong),
            (
                "jumbo, unlisted",
                Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).with(|f| f.payload = vec![7; 3300]),
                SourceUnlisted,
            ),
        ],
    );
}

/// Padding after the IP packet is legal; a header that says it is not IP of this version is not.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn headers_bent_by_hand() {
    let Some(rig) = Rig::new("headers_bent_by_hand") else { return };
    let bent = |frame: Frame, at: usize, byte: u8| {
        let mut bytes = frame.bytes();
        bytes[at] = byte;
        bytes
    };
    rig.expect("padded", &[v4().bytes(), vec![0; 30]].concat(), Redirected);
    rig.expect("IPv6 padded", &[v6().bytes(), vec![0; 30]].concat(), Redirected);
    rig.expect("version 6 in an IPv4 frame", &bent(v4(), 14, 0x65), IpMalformed);
    rig.expect("version 4 in an IPv6 frame", &bent(v6(), 14, 0x45), IpMalformed);
    rig.expect("header of four words", &bent(v4(), 14, 0x44), IpMalformed);
    rig.expect("header of no words", &bent(v4(), 14, 0x40), IpMalformed);
    rig.expect("header beyond the frame", &bent(v4(), 14, 0x4f), IpMalformed);
    let mut arp = vec![0xff; 6];
    arp.extend(PEER_MAC);
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    rig.expect("ARP", &arp, NotIp);
    rig.expect("802.3 length", &bent(v4(), 12, 0x05), NotIp);
}
