//! What a lab's links carry, against peers nobody here wrote: the kernel and memcached.

use std::sync::Arc;
use std::time::Duration;

use nautilus_tests::captures;
use nautilus_tests::frames::{FrameSocket, without_outer_tag};
use nautilus_tests::lab::{self, Bridge, NetNs, Process, RunId, VethPair};
use nautilus_tests::memcached::{Client, Value};
use nautilus_tests::repository::data_or_skip;
use nautilus_tests::wait::wait_until;
use nix::errno::Errno;

const SOON: Duration = Duration::from_secs(10);

/// Frames of `bad-packets`, and those of them a 1,500-byte link carries.
const FRAMES: (usize, usize) = (1955, 1942);

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_link_carries_every_frame_that_fits_unchanged() {
    let Some(data) = data_or_skip("a_link_carries_every_frame_that_fits_unchanged") else { return };
    let frames = captures::frames(&data.join("bad-packets")).unwrap();
    assert_eq!(frames.len(), FRAMES.0);
    let run = RunId::draw();
    let a = Arc::new(NetNs::create(run, "a").unwrap());
    let b = Arc::new(NetNs::create(run, "b").unwrap());
    // No address and no IPv6: neither kernel says anything by itself.
    for namespace in [&a, &b] {
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    }
    let _pair = VethPair::create((&a, "left"), (&b, "right")).unwrap();
    let sender = a.run(|| FrameSocket::open("left").unwrap());
    let receiver = b.run(|| FrameSocket::open("right").unwrap());
    let mut buffer = vec![0; 65_536];
    let mut carried = 0;
    for (number, frame) in frames.iter().enumerate() {
        match sender.send(frame) {
            Ok(()) => carried += 1,
            Err(Errno::EINVAL) if frame.len() < 14 => continue,
            Err(Errno::EMSGSIZE) if frame.len() > 1514 => continue,
            Err(error) => panic!("frame {number} of {} bytes: {error}", frame.len()),
        }
        let received = receiver.receive(&mut buffer, SOON).unwrap();
        assert_eq!(received, Some(without_outer_tag(frame).as_slice()), "frame {number}");
    }
    assert_eq!(carried, FRAMES.1);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn memcached_answers_over_the_bridge() {
    let program = std::path::Path::new("/usr/bin/memcached");
    if !program.exists() {
        println!("SKIPPED memcached_answers_over_the_bridge: memcached is not installed");
        return;
    }
    let run = RunId::draw();
    let folder = lab::Folder::create(run).unwrap();
    let bridge = Bridge::create(run).unwrap();
    let server = Arc::new(NetNs::create(run, "server").unwrap());
    let client = Arc::new(NetNs::create(run, "client").unwrap());
    let _server_link = bridge.join(&server, "server", lab::node(1)).unwrap();
    let _client_link = bridge.join(&client, "client", lab::CLIENT).unwrap();
    let words = "-u nobody -U 11211 -p 11211 -t 1".split(' ');
    let _memcached =
        Process::start(run, &server, program, words, &folder.join("memcached.log")).unwrap();
    for address in lab::node(1).both() {
        let mut asker = client
            .run(|| Client::connect((address, 11211).into(), Duration::from_millis(500)))
            .unwrap();
        wait_until("memcached answers", SOON, || asker.get("absent").is_ok_and(|v| v.is_none()))
            .unwrap();
        let long = vec![b'x'; 20_000];
        asker.set("short", 7, b"value").unwrap();
        assert_eq!(asker.get("short").unwrap(), Some(Value { flags: 7, bytes: b"value".to_vec() }));
        // A UDP request is one datagram, so the long value goes in by TCP.
        let stored = client.run(|| {
            use std::io::{Read, Write};
            let mut tcp = std::net::TcpStream::connect((address, 11211)).unwrap();
            tcp.write_all(format!("set long 0 0 {}\r\n", long.len()).as_bytes()).unwrap();
            tcp.write_all(&long).unwrap();
            tcp.write_all(b"\r\n").unwrap();
            let mut answer = [0; 8];
            tcp.read_exact(&mut answer).unwrap();
            answer
        });
        assert_eq!(&stored, b"STORED\r\n");
        assert_eq!(asker.get("long").unwrap().unwrap().bytes, long);
        assert!(asker.delete("short").unwrap());
        assert_eq!(asker.get("short").unwrap(), None);
    }
}
