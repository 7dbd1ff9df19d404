//! The program on a real interface: frames cross a veth pair into a real AF_XDP socket, stamp and
//! all, and the link alone keeps it there.

mod support;

use nautilus_ebpf::intf::{Interface, RX_META_MAGIC};
use nautilus_ebpf::{PassProgram, Steering, SteeringError, Verdict, XdpLink};

use support::frame::Frame;
use support::socket::RingSocket;
use support::veth::Veth;
use support::{CACHE_PORT, OUR_MAC, OUR_V4, Rig, UNLISTED_V4, is_root};

#[test]
#[ignore = "privileged: network namespaces and XDP"]
fn frames_reach_the_socket_with_their_stamp() {
    let Some(rig) = Rig::with("frames_reach_the_socket_with_their_stamp", false) else { return };
    let veth = Veth::new();
    let interface = Interface { mac: OUR_MAC, queue_count: 1, first_socket: 9 };
    rig.steering.set_interface(veth.ours, interface).unwrap();
    let _peer = PassProgram::load().unwrap().attach(veth.peer).unwrap();
    let _link = rig.steering.attach(veth.ours).unwrap();
    let socket = RingSocket::new();
    let mut receiver = socket.receive_from(veth.ours);
    rig.steering.set_socket(9, socket.fd()).unwrap();

    veth.send(&Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).bytes());
    let request = Frame::v4(CACHE_PORT).with(|f| f.payload = b"first".to_vec()).bytes();
    veth.send(&request);
    let (meta, frame) = receiver.next().expect("a listed source reaches the socket");
    assert_eq!(frame, request, "the listed frame, not the unlisted one sent before it");
    assert_eq!(u32::from_ne_bytes(meta[8..12].try_into().unwrap()), RX_META_MAGIC);
    let first_ns = u64::from_ne_bytes(meta[..8].try_into().unwrap());

    let tagged = Frame::v6(CACHE_PORT).with(|f| f.tags = vec![0x8100]).bytes();
    veth.send(&tagged);
    let (meta, frame) = receiver.next().expect("an IPv6 frame too");
    assert_eq!(frame, tagged);
    assert!(u64::from_ne_bytes(meta[..8].try_into().unwrap()) > first_ns);

    let tallies = rig.steering.verdicts().unwrap();
    assert_eq!(tallies.get(Verdict::Redirected).packet_count, 2);
    assert_eq!(tallies.get(Verdict::SourceUnlisted).packet_count, 1);
    drop(receiver);
    drop(socket);
    veth.send(&request);
    assert_eq!(rig.steering.verdicts().unwrap().get(Verdict::NoSocket).packet_count, 1);
}

#[test]
#[ignore = "privileged: network namespaces and XDP"]
fn a_link_alone_keeps_the_program_and_its_maps() {
    let test = "a_link_alone_keeps_the_program_and_its_maps";
    let Some(Rig { steering, .. }) = Rig::with(test, false) else { return };
    let veth = Veth::new();
    let interface = Interface { mac: OUR_MAC, queue_count: 1, first_socket: 0 };
    steering.set_interface(veth.ours, interface).unwrap();
    let link = steering.attach(veth.ours).unwrap();
    assert_eq!(link.ifindex().unwrap(), Some(veth.ours));
    assert!(veth.show().contains("prog/xdp"), "native mode: {}", veth.show());
    let error = steering.attach(veth.ours).unwrap_err();
    assert!(
        matches!(error, SteeringError::Occupied { ifindex } if ifindex == veth.ours),
        "{error}"
    );
    veth.send(&Frame::v4(CACHE_PORT).bytes());

    // What a worker keeps, and what a new supervisor makes of it.
    let kept: std::os::fd::OwnedFd = link.try_clone().unwrap().into();
    drop((steering, link));
    assert!(veth.show().contains("prog/xdp"));
    let link = XdpLink::from_fd(kept).unwrap();
    let heir = Steering::from_link(&link).unwrap();
    assert_eq!(heir.verdicts().unwrap().get(Verdict::NoSocket).packet_count, 1);
    assert!(heir.interfaces().unwrap().contains(&(veth.ours, interface)));
    heir.withdraw_address(support::ip(OUR_V4)).unwrap();
    veth.send(&Frame::v4(CACHE_PORT).bytes());
    assert_eq!(heir.verdicts().unwrap().get(Verdict::OtherAddress).packet_count, 1);

    drop(link);
    assert!(!veth.show().contains("prog/xdp"), "the last link detaches: {}", veth.show());
    let link = heir.attach(veth.ours).unwrap();
    veth.delete();
    assert_eq!(link.ifindex().unwrap(), None, "the interface is gone");
    assert!(XdpLink::from_fd(heir.fds()[0].try_clone_to_owned().unwrap()).is_err());
}

#[test]
#[ignore = "privileged: network namespaces and XDP"]
fn an_interface_that_is_not_there_is_an_error() {
    if !is_root("an_interface_that_is_not_there_is_an_error") {
        return;
    }
    let _veth = Veth::new();
    let error = PassProgram::load().unwrap().attach(4_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
}
