//! A source that floods a real node takes what its limit gives it, and nothing of what others have. Needs
//! root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table;

use supervised::{CLIENT, ECHO_PORT, SERVER, Supervised, ip, privileged, wait_until};

const FLOODER: &str = "198.18.0.66";
const PER_S: u64 = 2_000;
const BURST: u64 = 500;

fn packets(region: &ControlReader, verdict: XdpVerdict) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(verdict))
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_flood_from_one_source_takes_nothing_from_another() {
    if !privileged("a_flood_from_one_source_takes_nothing_from_another") {
        return;
    }
    let mut node = Supervised::new(&format!(
        "[[access.limit]]\nprefix = \"{FLOODER}/32\"\npackets_per_s = {PER_S}\npacket_burst = {BURST}\n"
    ));
    ip(&format!("-n {} addr add {FLOODER}/24 dev c0", node.client_ns));
    node.start();
    node.await_echo();
    let region = node.attach().unwrap();
    let redirected_before = packets(&region, XdpVerdict::Redirected);
    let (client, flooder) = (node.client(), {
        let bind = format!("{FLOODER}:0").parse().unwrap();
        let socket = Supervised::udp(&node.client_ns, bind);
        socket.connect((SERVER, ECHO_PORT)).unwrap();
        socket
    });
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let (sent, asked) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                sent += u64::from(flooder.send(b"flood").is_ok());
                // The link's own queue is 256 packets long, and what it drops nobody counts here.
                if sent.is_multiple_of(32) {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
            sent
        });
        let mut asked = 0_u64;
        while started.elapsed() < Duration::from_secs(2) {
            asked += 1;
            let request = asked.to_be_bytes();
            assert_eq!(client.send(&request).unwrap(), 8);
            let mut answer = [0; 16];
            let length = client.recv(&mut answer).unwrap_or_else(|error| {
                over.store(true, Ordering::Relaxed);
                panic!("no answer to request {asked} of {CLIENT}: {error}")
            });
            assert_eq!(answer[..length], request);
        }
        over.store(true, Ordering::Relaxed);
        (flood.join().unwrap(), asked)
    });
    let granted_max = BURST + PER_S * started.elapsed().as_millis() as u64 / 1_000 + 1;
    let mut last = 0;
    wait_until("every packet is counted", Duration::from_secs(5), || {
        // The supervisor copies the counters ten times a second.
        std::thread::sleep(Duration::from_millis(300));
        let passed = packets(&region, XdpVerdict::Redirected) - redirected_before;
        let counted = passed + packets(&region, XdpVerdict::PacketLimit);
        std::mem::replace(&mut last, counted) == counted
    });
    let limited = packets(&region, XdpVerdict::PacketLimit);
    let granted = packets(&region, XdpVerdict::Redirected) - redirected_before - asked;
    println!("{sent} sent by the flood, {granted} let through, {limited} not; {asked} answered");
    assert!(granted <= granted_max, "{granted} of at most {granted_max}");
    assert!(granted >= granted_max * 9 / 10, "{granted} of {granted_max}: too few");
    assert!(limited > granted && asked > 100);
    assert_eq!(packets(&region, XdpVerdict::ByteLimit), 0);
    node.stop();
}
