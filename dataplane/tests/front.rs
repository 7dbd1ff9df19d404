//! The real front over a veth pair: clients of every kind. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS};
use nautilus_shm::metrics::labels::ConnectionEnd;
use nautilus_shm::metrics::table;

use supervised::{SERVER, Supervised, privileged, wait_until};
use tcp::{Client, inside};

const PORT: u16 = 11_211;

fn server() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), PORT)
}

fn start(front: &str) -> (Supervised, ControlReader) {
    let mut node = Supervised::new(&format!("[cache]\nid = \"q\"\n[front]\n{front}"));
    node.start();
    let region = node.attach().unwrap();
    wait_until("the front serves", Duration::from_secs(10), || {
        std::fs::read_to_string(node.log()).unwrap().contains(" serves\n")
            && node.status().is_some_and(|text| !text.contains("front none"))
    });
    (node, region)
}

fn connect(node: &Supervised) -> Client {
    Client::connect(&node.client_ns, server()).unwrap()
}

fn ended(region: &ControlReader, reason: ConnectionEnd) -> u64 {
    region.metrics(FRONT_PROCESS).counter(table::FRONT_ENDED.of(reason))
}

fn connections(region: &ControlReader) -> u64 {
    region.metrics(FRONT_PROCESS).gauge(table::FRONT_CONNECTIONS)
}

#[test]
fn commands_come_in_any_pieces_and_answers_in_their_order() {
    if !privileged("commands_come_in_any_pieces_and_answers_in_their_order") {
        return;
    }
    let (node, region) = start("");
    let mut client = connect(&node);
    client.ask(b"set a 5 0 3\r\nabc\r\n", b"STORED\r\n");
    client.ask(b"get a\r\n", b"VALUE a 5 3\r\nabc\r\nEND\r\n");
    // Pipelined: reads see the writes in front of them, silent ones included.
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    for number in 0..2000 {
        let silent = if number % 3 == 0 { " noreply" } else { "" };
        let value = "v".repeat(number % 700);
        stream.extend(format!("set k 0 0 {}{silent}\r\n{value}\r\n", value.len()).bytes());
        if silent.is_empty() {
            expected.extend(b"STORED\r\n");
        }
        stream.extend(b"get k nothing k\r\n");
        let item = format!("VALUE k 0 {}\r\n{value}\r\n", value.len());
        expected.extend(format!("{item}{item}END\r\n").bytes());
    }
    let mut writer = client.0.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&stream).unwrap());
    client.expect(&expected);
    writing.join().unwrap();
    // One byte at a time.
    for byte in b"set b 0 0 2\r\nhi\r\nget b\r\ndelete b\r\nget b\r\n" {
        client.send(&[*byte]);
    }
    client.expect(b"STORED\r\nVALUE b 0 2\r\nhi\r\nEND\r\nDELETED\r\nEND\r\n");
    // Values up to the largest, several at once, and one that is too large.
    let value: Vec<u8> = (0..1 << 20).map(|byte| (byte * 31 % 251) as u8).collect();
    let mut set = format!("set large 0 0 {}\r\n", value.len()).into_bytes();
    set.extend(&value);
    set.extend(b"\r\n");
    for _ in 0..3 {
        client.ask(&set, b"STORED\r\n");
    }
    client.send(b"get large large large large\r\n");
    let item = [format!("VALUE large 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    for _ in 0..4 {
        client.expect(&item);
    }
    client.expect(b"END\r\n");
    let mut set = format!("set large 0 0 {}\r\n", value.len() + 1).into_bytes();
    set.extend(&value);
    set.extend(b"!\r\n");
    client.ask(&set, b"SERVER_ERROR object too large for cache\r\n");
    client.ask(b"get large\r\n", b"END\r\n");
    client.ask(b"nonsense\r\n", b"ERROR\r\n");
    client.send(b"get a\r\nquit\r\nget a\r\n");
    assert_eq!(client.rest(), b"VALUE a 5 3\r\nabc\r\nEND\r\n");
    // A half-closed connection is answered to its end.
    let mut client = connect(&node);
    client.send(b"set c 0 0 1\r\nc\r\nget c\r\n");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"STORED\r\nVALUE c 0 1\r\nc\r\nEND\r\n");
    // Junk without a line end.
    let mut client = connect(&node);
    client.send(&[0x80; 4096]);
    assert_eq!(client.rest(), b"");
    wait_until("they are counted", Duration::from_secs(5), || {
        ended(&region, ConnectionEnd::Unbounded) == 1 && connections(&region) == 0
    });
    let metrics = region.metrics(FRONT_PROCESS);
    assert!(metrics.counter(table::FRONT_FORWARDED) > 2000);
    let of_cache = region.cache_metrics(FRONT_PROCESS, 0);
    assert!(of_cache.counter(table::FRONT_HITS) > 4000);
    assert_eq!(metrics.counter(table::FRONT_UNKNOWN), 0);
}

#[test]
fn what_the_kernel_gets_over_udp_is_answered() {
    if !privileged("what_the_kernel_gets_over_udp_is_answered") {
        return;
    }
    let (node, region) = start("");
    let socket = inside(&node.server_ns, || UdpSocket::bind((SERVER, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect(server()).unwrap();
    let ask = |text: &[u8]| {
        socket.send(&[&[0, 7, 0, 0, 0, 1, 0, 0], text].concat()).unwrap();
    };
    let mut heard = [0; 2048];
    let mut next = || {
        let bytes = socket.recv(&mut heard).unwrap();
        heard[..bytes].to_vec()
    };
    ask(b"set u 0 0 2\r\nhi\r\nget u\r\nversion\r\n");
    let header = [0, 7, 0, 0, 0, 1, 0, 0];
    assert_eq!(next(), [&header[..], b"STORED\r\n"].concat());
    assert_eq!(next(), [&header[..], b"VALUE u 0 2\r\nhi\r\nEND\r\n"].concat());
    assert!(next()[8..].starts_with(b"VERSION "));
    let mut client = connect(&node);
    client.send(b"set large 0 0 20000\r\n");
    client.ask(&[&[b'v'; 20_000][..], b"\r\n"].concat(), b"STORED\r\n");
    ask(b"get large\r\n");
    let mut text = Vec::new();
    for sequence in 0..15 {
        let datagram = next();
        assert_eq!(datagram[..8], [0, 7, 0, sequence, 0, 15, 0, 0]);
        text.extend(&datagram[8..]);
    }
    assert!(text.starts_with(b"VALUE large 0 20000\r\nvvv") && text.ends_with(b"v\r\nEND\r\n"));
    // Not listed.
    let other = inside(&node.server_ns, || UdpSocket::bind("127.0.0.1:0").unwrap());
    other.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    other.send_to(b"\0\x07\0\0\0\x01\0\0version\r\n", ("127.0.0.1", PORT)).unwrap();
    assert!(other.recv(&mut [0; 64]).is_err());
    wait_until("it is counted", Duration::from_secs(5), || {
        region.metrics(FRONT_PROCESS).counter(table::FRONT_DROPPED_DATAGRAMS) == 1
    });
}

#[test]
fn limits_are_kept_and_said() {
    if !privileged("limits_are_kept_and_said") {
        return;
    }
    let (node, region) = start("max_connections = 3\nidle_timeout_s = 1\nmax_buffer_mb = 4\n");
    let mut clients: Vec<Client> = (0..3).map(|_| connect(&node)).collect();
    for client in &mut clients {
        client.ask(b"get a\r\n", b"END\r\n");
    }
    let mut fourth = connect(&node);
    assert_eq!(fourth.rest(), b"ERROR Too many open connections\r\n");
    assert_eq!(ended(&region, ConnectionEnd::Limit), 0, "published with the next tick");
    // Silent connections end, also in the middle of a command; one that speaks does not.
    clients[1].send(b"set a 0 0 10\r\n123");
    let begin = Instant::now();
    let mut speaking = clients.remove(0);
    while begin.elapsed() < Duration::from_millis(1500) {
        speaking.ask(b"get a\r\n", b"END\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    for mut client in clients {
        assert_eq!(client.rest(), b"");
    }
    wait_until("idle ones are counted", Duration::from_secs(5), || {
        ended(&region, ConnectionEnd::Idle) == 2 && ended(&region, ConnectionEnd::Limit) == 1
    });
    // A client that asks and takes nothing.
    let value = vec![b'v'; 1 << 20];
    speaking.send(b"set large 0 0 1048576\r\n");
    speaking.ask(&[&value[..], b"\r\n"].concat(), b"STORED\r\n");
    let mut slow = connect(&node);
    slow.send(b"get large\r\n".repeat(200).as_slice());
    wait_until("the slow one is ended", Duration::from_secs(20), || {
        speaking.ask(b"get a\r\n", b"END\r\n");
        ended(&region, ConnectionEnd::Slow) + ended(&region, ConnectionEnd::Unbounded) == 1
    });
    assert!(slow.rest().len() < 200 << 20);
    // More half commands than there is memory for.
    drop(slow);
    let mut greedy: Vec<Client> = (0..2).map(|_| connect(&node)).collect();
    for client in &mut greedy {
        client.send(b"get ");
        for _ in 0..16 {
            let _ = client.0.write_all(&[b'k'; 65_000]);
        }
    }
    speaking.ask(b"get a\r\n", b"END\r\n");
    // Not listed.
    let mut unlisted =
        Client::connect(&node.server_ns, SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
    assert_eq!(unlisted.rest(), b"");
    wait_until("the stranger is counted", Duration::from_secs(5), || {
        ended(&region, ConnectionEnd::Source) == 1
    });
}

/// Resident KiB of the front.
fn resident_kib(node: &Supervised) -> u64 {
    let status = node.status().unwrap();
    let line = status.lines().find(|line| line.starts_with("front ")).unwrap();
    let pid = line.split(' ').nth(1).unwrap();
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    if !privileged("ten_thousand_idle_connections_cost_little") {
        return;
    }
    let wanted = 10_000;
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    nix::sys::resource::setrlimit(limit, hard, hard).unwrap();
    let count = wanted.min(hard.saturating_sub(500) as usize);
    let (node, region) = start("");
    let mut first = connect(&node);
    first.ask(b"set a 0 0 1\r\n1\r\n", b"STORED\r\n");
    let before_kib = resident_kib(&node);
    let begin = Instant::now();
    let idle = inside(&node.client_ns, move || {
        (0..count).map(|_| std::net::TcpStream::connect(server()).unwrap()).collect::<Vec<_>>()
    });
    wait_until("all are accepted", Duration::from_secs(30), || {
        connections(&region) == count as u64 + 1
    });
    let took = begin.elapsed();
    let more_kib = resident_kib(&node) - before_kib;
    let mut slowest = Duration::ZERO;
    for _ in 0..1000 {
        let begin = Instant::now();
        first.ask(b"get a\r\n", b"VALUE a 0 1\r\n1\r\nEND\r\n");
        slowest = slowest.max(begin.elapsed());
    }
    println!(
        "{count} idle connections in {took:?}, {more_kib} KiB, slowest of 1,000 gets {slowest:?}"
    );
    assert!(more_kib < count as u64, "more than 1 KiB a connection: {more_kib} KiB");
    // Every one of them still works.
    let mut every = idle.iter().step_by(97);
    assert!(every.all(|mut stream| {
        stream.write_all(b"get a\r\n").unwrap();
        let mut answer = [0; 21];
        stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"VALUE a 0 1\r\n1\r\nEND\r\n")
    }));
    drop(idle);
    wait_until("all are gone", Duration::from_secs(30), || connections(&region) == 1);
}
