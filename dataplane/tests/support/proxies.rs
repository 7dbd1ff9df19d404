//! Ways from one network namespace to another, for what a receiver asks of a node elsewhere; some of it is lost.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_dataplane::replay::random::Random;

use super::supervised::Supervised;

/// Where something comes in, and where it goes to: a namespace and an address in it each.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub from: (&'a str, SocketAddr),
    pub to: (&'a str, SocketAddr),
}

/// Takes datagrams there, and answers back to who sent last, until `over`. Of 1,000 each way so many are lost.
pub fn carry_datagrams(way: Way<'_>, lose: u32, over: &AtomicBool) {
    let inner = Supervised::udp(way.from.0, way.from.1);
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let outer = Supervised::udp(way.to.0, any);
    outer.connect(way.to.1).unwrap();
    for socket in [&inner, &outer] {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    let (mut random, mut bytes, mut asker) = (Random::new(9), [0; 2_048], None);
    while !over.load(Ordering::Relaxed) {
        while let Ok((length, from)) = inner.recv_from(&mut bytes) {
            asker = Some(from);
            if random.below(1_000) >= lose {
                let _ = outer.send(&bytes[..length]);
            }
        }
        while let Ok(length) = outer.recv(&mut bytes) {
            if let Some(asker) = asker.filter(|_| random.below(1_000) >= lose) {
                let _ = inner.send_to(&bytes[..length], asker);
            }
        }
    }
}

/// Takes what a group brings to another, until `over`; so many of 1,000 datagrams are lost.
pub fn carry_group(way: Way<'_>, interface: std::net::Ipv4Addr, lose: u32, over: &AtomicBool) {
    let inner = Supervised::udp(way.from.0, way.from.1);
    let std::net::IpAddr::V4(group) = way.from.1.ip() else { unreachable!() };
    Supervised::inside(way.from.0, || inner.join_multicast_v4(&group, &interface).unwrap());
    inner.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let outer = Supervised::udp(way.to.0, SocketAddr::new(interface.into(), 0));
    outer.connect(way.to.1).unwrap();
    let (mut random, mut bytes) = (Random::new(10), [0; 2_048]);
    while !over.load(Ordering::Relaxed) {
        while let Ok(length) = inner.recv(&mut bytes) {
            if random.below(1_000) >= lose {
                let _ = outer.send(&bytes[..length]);
            }
        }
    }
}

/// Takes connections there, until `over`.
pub fn carry_connections(way: Way<'_>, over: &AtomicBool) {
    let listener = Supervised::inside(way.from.0, || TcpListener::bind(way.from.1).unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        while !over.load(Ordering::Relaxed) {
            let Ok((inner, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let outer = Supervised::inside(way.to.0, || {
                TcpStream::connect_timeout(&way.to.1, Duration::from_secs(1))
            });
            let Ok(outer) = outer else { continue };
            let (inner_2, outer_2) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
            scope.spawn(move || carry_bytes(inner, outer, over));
            scope.spawn(move || carry_bytes(outer_2, inner_2, over));
        }
    });
}

fn carry_bytes(mut from: TcpStream, mut to: TcpStream, over: &AtomicBool) {
    from.set_nonblocking(false).unwrap();
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = vec![0; 1 << 16];
    while !over.load(Ordering::Relaxed) {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => {
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
