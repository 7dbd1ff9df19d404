//! A steering program outlives the process that loaded it: everything can be had again from its
//! descriptors, or from a link alone.

mod support;

use std::os::fd::{AsFd, OwnedFd};

use nautilus_ebpf::intf::{Interface, Permissions, Service};
use nautilus_ebpf::{Rights, STEERING_FD_NAMES, Steering, SteeringError, Verdict};

use support::frame::Frame;
use support::{CACHE_PORT, ECHO_PORT, OUR_V4, Rig, SOURCES, UNLISTED_V4};

fn duplicates(steering: &Steering) -> Vec<OwnedFd> {
    steering.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn descriptors_are_enough() {
    let Some(mut rig) = Rig::new("descriptors_are_enough") else { return };
    rig.expect("before", &Frame::v4(CACHE_PORT).bytes(), Verdict::Redirected);

    let heir = Steering::from_fds(duplicates(&rig.steering).try_into().unwrap()).unwrap();
    rig.steering = heir;
    let tallies = rig.steering.verdicts().unwrap();
    assert_eq!(tallies.get(Verdict::Redirected).packet_count, 1);
    assert_eq!(tallies.total().packet_count, 1);
    let request = Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).bytes();
    rig.expect("still denied", &request, Verdict::SourceUnlisted);
    rig.steering.set_source(UNLISTED_V4.parse().unwrap(), Permissions::READ).unwrap();
    rig.expect("listed by the heir", &request, Verdict::Redirected);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn descriptors_in_the_wrong_place_are_refused() {
    let Some(rig) = Rig::new("descriptors_in_the_wrong_place_are_refused") else { return };
    for (a, b) in [(0, 1), (2, 5), (1, 6), (4, 7)] {
        let mut fds = duplicates(&rig.steering);
        fds.swap(a, b);
        let error = Steering::from_fds(fds.try_into().unwrap()).unwrap_err();
        let SteeringError::WrongDescriptor { name, .. } = error else { panic!("{error:?}") };
        assert_eq!(name, STEERING_FD_NAMES[a]);
    }
    let mut fds = duplicates(&rig.steering);
    fds[3] = std::fs::File::open("/dev/null").unwrap().as_fd().try_clone_to_owned().unwrap();
    assert!(Steering::from_fds(fds.try_into().unwrap()).is_err());
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn lists_read_back_and_are_replaced() {
    let Some(rig) = Rig::new("lists_read_back_and_are_replaced") else { return };
    let mut listed: Vec<String> =
        rig.steering.sources().unwrap().iter().map(|(prefix, _)| prefix.to_string()).collect();
    let mut expected: Vec<String> = SOURCES
        .iter()
        .map(|(prefix, _)| prefix.parse::<nautilus_ebpf::SourcePrefix>().unwrap().to_string())
        .collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);

    let only = ("0.0.0.0/0".parse().unwrap(), Rights::from(Permissions::ALL));
    rig.steering.replace_sources(&[only]).unwrap();
    assert_eq!(rig.steering.sources().unwrap(), [only]);
    rig.expect("all of IPv4", &Frame::v4(CACHE_PORT).bytes(), Verdict::Redirected);
    rig.expect("none of IPv6", &Frame::v6(CACHE_PORT).bytes(), Verdict::SourceUnlisted);

    let only = ("::/0".parse().unwrap(), Rights::from(Permissions::ALL));
    rig.steering.replace_sources(&[only]).unwrap();
    rig.expect("none of IPv4", &Frame::v4(CACHE_PORT).bytes(), Verdict::SourceUnlisted);
    rig.expect("all of IPv6", &Frame::v6(CACHE_PORT).bytes(), Verdict::Redirected);

    rig.steering.replace_services(&[]).unwrap();
    rig.expect("no service", &Frame::v4(ECHO_PORT).bytes(), Verdict::OtherPort);
    rig.steering.replace_served_addresses(&[]).unwrap();
    rig.expect("no address", &Frame::v4(ECHO_PORT).bytes(), Verdict::OtherAddress);
    assert!(rig.steering.remove_interface(support::IFINDEX).unwrap());
    rig.expect("no interface", &Frame::v4(ECHO_PORT).bytes(), Verdict::UnknownInterface);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn without_a_socket_the_kernel_gets_the_packet() {
    let test = "without_a_socket_the_kernel_gets_the_packet";
    let Some(rig) = Rig::with(test, false) else { return };
    rig.expect("no socket", &Frame::v4(CACHE_PORT).bytes(), Verdict::NoSocket);
    let request = Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).bytes();
    rig.expect("no socket, unlisted", &request, Verdict::SourceUnlisted);
    rig.steering.remove_socket(5).unwrap();

    let Some(rig) = Rig::new(test) else { return };
    let mut interface = rig.steering.interfaces().unwrap()[0].1;
    interface.queue_count = 0;
    rig.steering.set_interface(support::IFINDEX, interface).unwrap();
    rig.expect("queue without a place", &Frame::v4(CACHE_PORT).bytes(), Verdict::NoSocket);
    interface.queue_count = 1;
    rig.steering.set_interface(support::IFINDEX, interface).unwrap();
    rig.expect("back", &Frame::v4(CACHE_PORT).bytes(), Verdict::Redirected);
    rig.steering.remove_socket(5).unwrap();
    rig.expect("socket gone", &Frame::v4(CACHE_PORT).bytes(), Verdict::NoSocket);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn entries_no_packet_could_match_are_refused() {
    let Some(rig) = Rig::new("entries_no_packet_could_match_are_refused") else { return };
    for address in ["0.0.0.0", "::", "127.0.0.1", "::1", "255.255.255.255"] {
        assert!(rig.steering.serve_address(support::ip(address)).is_err(), "{address}");
    }
    let interface = rig.steering.interfaces().unwrap()[0].1;
    let broken = [
        Interface { first_socket: 64, ..interface },
        Interface { queue_count: 60, ..interface },
        Interface { mac: [0; 6], ..interface },
        Interface { mac: [1, 0, 0x5e, 0, 0, 1], ..interface },
    ];
    for interface in broken {
        assert!(rig.steering.set_interface(2, interface).is_err(), "{interface:?}");
    }
    assert!(rig.steering.set_service(0, Service::replying(1)).is_err());
}
