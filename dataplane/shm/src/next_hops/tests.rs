use std::net::IpAddr;

use super::*;
use crate::shared::zeroed_box;
use crate::sync::{Outcome, kill_after};

fn ip(text: &str) -> Address {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn link(ifindex: u32, parent: u32, vlan: u16) -> LinkEntry {
    LinkEntry {
        ifindex,
        parent,
        vlans: [vlan, 0],
        mac: [2, 0, 0, 0, 0, ifindex as u8],
        mtu_bytes: 1500,
    }
}

fn route(prefix: &str, prefix_bits: u8, gateway: Option<&str>, ifindex: u32, metric: u32) -> Route {
    Route { prefix: ip(prefix), prefix_bits, gateway: gateway.map(ip), ifindex, metric }
}

fn neighbour(address: &str, ifindex: u32, last: u8) -> Neighbour {
    Neighbour { address: ip(address), ifindex, mac: [6, 0, 0, 0, 0, last] }
}

fn mirror() -> Mirror {
    Mirror {
        links: vec![link(7, 7, 0), link(9, 7, 42), link(8, 8, 0)],
        addresses: vec![LocalAddress { address: ip("198.18.0.1"), ifindex: 7, prefix_bits: 120 }],
        routes: vec![
            route("0.0.0.0", 96, Some("198.18.0.254"), 7, 100),
            route("0.0.0.0", 96, Some("198.18.8.254"), 8, 50),
            route("198.18.0.0", 120, None, 7, 0),
            route("198.18.9.0", 120, None, 9, 0),
            route("fd00:6e61::", 64, None, 7, 0),
        ],
        neighbours: vec![
            neighbour("198.18.0.254", 7, 254),
            neighbour("198.18.0.2", 7, 2),
            neighbour("198.18.9.2", 9, 92),
            neighbour("fd00:6e61::2", 7, 62),
            neighbour("198.18.8.254", 8, 84),
        ],
    }
}

fn query(destination: &str, ifindex: u32, vlans: Option<[u16; 2]>) -> Query {
    Query { destination: ip(destination), ifindex, vlans }
}

#[test]
fn longest_prefix_then_metric_then_what_the_query_allows() {
    let table = zeroed_box::<NextHopTable>();
    assert_eq!(table.lookup(&query("198.18.0.2", 0, None)), Err(Unresolved::NoRoute));
    assert_eq!(table.publish(&mut mirror()).total(), 0);
    let mac = |text: &str, ifindex, vlans| {
        table.lookup(&query(text, ifindex, vlans)).map(|hop| (hop.ifindex, hop.mac[5], hop.vlans))
    };
    assert_eq!(mac("198.18.0.2", 0, None), Ok((7, 2, [0, 0])));
    assert_eq!(mac("198.18.9.2", 0, None), Ok((7, 92, [42, 0])));
    assert_eq!(mac("198.18.9.2", 7, Some([42, 0])), Ok((7, 92, [42, 0])));
    assert_eq!(mac("198.18.9.2", 7, Some([0, 0])), Ok((7, 254, [0, 0])), "not by that VLAN");
    assert_eq!(mac("fd00:6e61::2", 7, None), Ok((7, 62, [0, 0])));
    assert_eq!(mac("192.0.2.1", 0, None), Ok((8, 84, [0, 0])), "the lower metric");
    assert_eq!(mac("192.0.2.1", 7, None), Ok((7, 254, [0, 0])), "only by interface 7");
    assert_eq!(mac("fd00:1::1", 0, None), Err(Unresolved::NoRoute));
    assert_eq!(mac("192.0.2.1", 3, None), Err(Unresolved::NoRoute));
    let unknown = Unresolved::NoNeighbour { ifindex: 7, address: ip("198.18.0.3") };
    assert_eq!(mac("198.18.0.3", 0, None), Err(unknown));
    assert_eq!(unknown.to_string(), "neighbour 198.18.0.3 on ifindex 7 is not known");
    let hop = table.lookup(&query("198.18.9.2", 0, None)).unwrap();
    assert_eq!((hop.source_mac[5], hop.mtu_bytes), (9, 1500));
}

#[test]
fn groups_need_no_neighbour() {
    let table = zeroed_box::<NextHopTable>();
    table.publish(&mut mirror());
    let mac = |text: &str| table.lookup(&query(text, 8, None)).unwrap().mac;
    assert_eq!(mac("233.182.12.111"), [0x01, 0x00, 0x5e, 0x36, 0x0c, 0x6f]);
    assert_eq!(mac("ff0e::1:2"), [0x33, 0x33, 0, 1, 0, 2]);
}

#[test]
fn the_mirror_reads_back() {
    let table = zeroed_box::<NextHopTable>();
    let mut published = mirror();
    table.publish(&mut published);
    published.routes.iter_mut().for_each(|route| route.metric = 0);
    assert_eq!(table.mirror(), Ok(published));
}

#[test]
#[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
fn what_does_not_fit_is_said_and_the_rest_still_works() {
    let table = zeroed_box::<NextHopTable>();
    let mut mirror = mirror();
    for index in 0..NEIGHBOURS_MAX as u32 {
        let address = std::net::Ipv4Addr::from(0xc613_0000 + index);
        mirror.neighbours.push(neighbour(&address.to_string(), 7, 1));
    }
    for _ in 0..ROUTES_MAX {
        mirror.routes.push(route("203.0.113.0", 128, None, 7, 0));
    }
    let omitted = table.publish(&mut mirror);
    assert_eq!((omitted.neighbours, omitted.routes, omitted.total()), (5, 5, 10));
    assert_eq!(table.mirror().unwrap().neighbours.len(), NEIGHBOURS_MAX);
    // The five shortest prefixes went; the host routes stay.
    assert_eq!(table.lookup(&query("198.18.0.2", 0, None)), Err(Unresolved::NoRoute));
}

#[test]
#[cfg_attr(miri, ignore = "minutes in an interpreter, and safe code throughout")]
fn a_publisher_killed_anywhere_leaves_one_whole_table() {
    let mut new = mirror();
    new.neighbours[1].mac = [6, 0, 0, 0, 0, 99];
    let asked = query("198.18.0.2", 0, None);
    let mut stores = 0;
    loop {
        let table = zeroed_box::<NextHopTable>();
        table.publish(&mut mirror());
        let outcome = kill_after(stores, || table.publish(&mut new.clone()));
        let mac = table.lookup(&asked).unwrap().mac[5];
        if outcome != Outcome::Killed {
            assert_eq!(mac, 99);
            assert!(stores > 50, "every row is stored: {stores}");
            return;
        }
        assert_eq!(mac, 2, "after {stores} stores");
        table.publish(&mut new.clone());
        assert_eq!(table.lookup(&asked).unwrap().mac[5], 99);
        stores += 1;
    }
}

#[test]
fn a_cached_answer_ends_with_its_version() {
    let table = zeroed_box::<NextHopTable>();
    let mut cache = NextHopCache::new(&table);
    let asked = query("198.18.0.2", 7, Some([0, 0]));
    assert_eq!(cache.lookup(&asked), Err(Unresolved::NoRoute));
    table.publish(&mut mirror());
    for _ in 0..2 {
        assert_eq!(cache.lookup(&asked).unwrap().mac[5], 2);
    }
    assert_eq!(cache.lookup(&query("198.18.0.2", 8, None)).unwrap().mac[5], 84, "another query");
    let mut changed = mirror();
    changed.neighbours[1].mac[5] = 3;
    table.publish(&mut changed);
    assert_eq!(cache.lookup(&asked).unwrap().mac[5], 3);
    changed.neighbours.clear();
    table.publish(&mut changed);
    assert!(matches!(cache.lookup(&asked), Err(Unresolved::NoNeighbour { ifindex: 7, .. })));
}
