//! The AF_XDP port over veth behind the steering program, against the kernel's own UDP stack.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::net::{Endpoint, LinkAddress, RxChecksum, build, ethernet, parse};
use nautilus_dataplane::port::{Burst, Port};
use nautilus_dataplane::worker::{Served, Worker, run};
use nautilus_dataplane::xsk::{Mapped, UmemSpec, XskError};
use nautilus_shm::cells::PollPolicy;
use nautilus_tests::lab::{CLIENT, node};
use nautilus_tests::wire::Wire;

use super::conformance::{self, Client, pattern};
use super::rig::{ECHO_PORT, FRAMES, Rig, RigSpec, StopOnDrop, assert_conserved};

#[test]
#[ignore = "privileged: makes network namespaces"]
fn the_xdp_port_conforms() {
    let rig = Rig::new();
    let mut port = rig.port();
    for (ours, theirs) in node(1).both().into_iter().zip(CLIENT.both()) {
        conformance::run(&mut port, &mut rig.kernel_client(ours, theirs));
        assert_conserved(&port);
    }
    assert_eq!(port.counters().unstamped_count, 0, "the program stamps every packet");
    let tally = rig.steering.verdicts().unwrap().get(nautilus_ebpf::Verdict::Redirected);
    assert_eq!(tally.packet_count, port.counters().received_count);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_reply_keeps_the_tags_of_its_request() {
    let rig = Rig::with(RigSpec { client_passes: false, ..RigSpec::default() });
    let port = rig.port();
    let stop = AtomicBool::new(false);
    let mut wire = rig.client.run(|| Wire::open("eth0").unwrap());
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let apps = (Some(Served { ports: vec![ECHO_PORT], app: Echo::default() }), ());
            let mut worker = Worker::new(port, apps, (), PollPolicy::Adaptive);
            run(&mut worker, stop);
            assert_conserved(&worker.port);
        });
        let _stop = StopOnDrop(stop);
        let service = ethernet::SERVICE_TAG_BIT;
        for (number, vlans) in [[0, 0], [5, 0], [100, 200], [100 | service, 200], [9 | service, 0]]
            .into_iter()
            .enumerate()
        {
            for (ours, theirs) in node(1).both().into_iter().zip(CLIENT.both()) {
                let (from, to) = (Endpoint::new(theirs, 999), Endpoint::new(ours, ECHO_PORT));
                let payload = pattern(number, 33);
                let link = LinkAddress {
                    destination: rig.next_hop.hop.source_mac,
                    source: rig.next_hop.hop.mac,
                    vlans,
                };
                let mut frame = vec![0; build::header_bytes(vlans, to.is_v4())];
                frame.extend_from_slice(&payload);
                build::headers(&mut frame, &link, &from, &to);
                assert!(wire.push(|buffer| {
                    buffer[..frame.len()].copy_from_slice(&frame);
                    frame.len()
                }));
                let mut reply = None;
                let end = Instant::now() + Duration::from_secs(2);
                while reply.is_none() {
                    assert!(Instant::now() < end, "no reply to {vlans:?} from {from:?}");
                    wire.flush().unwrap();
                    wire.receive(|frame| {
                        // What the node's kernel says on its own account is not from the service.
                        let parsed = parse::parse(frame, RxChecksum::Verify).ok();
                        let ours = parsed.filter(|parsed| parsed.source == to);
                        reply = ours.map(|parsed| (parsed, frame.to_vec())).or(reply.take());
                    });
                }
                let reply = reply.unwrap();
                assert_eq!((reply.0.destination, reply.0.vlans), (from, vlans));
                assert_eq!(reply.1[reply.0.payload_offset.into()..], payload);
            }
        }
    });
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_dead_workers_socket_goes_on_without_rebinding() {
    let rig = Rig::new();
    let (ours, theirs) = (node(1).v4().into(), CLIENT.v4().into());
    let mut client = rig.kernel_client(ours, theirs);
    let mut lost = 0;
    for round in 0..50 {
        let mut port = rig.port();
        // Nobody else may take it over while this one lives.
        let second = Mapped::map(rig.binding.fds.try_clone().unwrap()).unwrap();
        assert!(matches!(second.take_over(), Err(XskError::Owned { .. })));

        for number in 0..10 {
            client.send(&pattern(round * 100 + number, 200));
        }
        // Dies with part of what arrived in hand, as SIGKILL would leave it.
        let held = port.receive();
        lost += held;
        assert_eq!(port.frame_counts().held as usize, held);
        for index in 0..held {
            assert_eq!(port.split().0.get(index).payload, pattern(round * 100 + index, 200));
        }
        drop(port);
        // Sent while no worker runs: waits for the next one.
        client.send(&pattern(round, 300));
        let mut heir = rig.port();
        assert_eq!(heir.frame_counts().held, 0);
        assert_conserved(&heir);
        let waiting = heir.receive();
        assert_eq!(held + waiting, 11);
        let last = heir.split().0.get(waiting - 1).payload.to_vec();
        assert_eq!(last, pattern(round, 300));
        heir.release();
        heir.flush();
        assert_conserved(&heir);
    }
    assert!(lost > 0);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn an_overflowed_rx_ring_loses_packets_and_no_frame() {
    // The rx ring is smaller than the fill ring: it overflows while nobody reads.
    let entries = [FRAMES, 64, FRAMES, FRAMES];
    let umem = UmemSpec { entries, ..UmemSpec::new(FRAMES, 2048, false) };
    let rig = Rig::with(RigSpec { umem, ..RigSpec::default() });
    let mut client = rig.kernel_client(node(1).v4().into(), CLIENT.v4().into());
    for _ in 0..5 {
        for number in 0..500 {
            client.send(&pattern(number, 100));
        }
        let mut port = rig.port();
        let mut received = 0;
        loop {
            let count = port.receive();
            if count == 0 {
                break;
            }
            for index in 0..count {
                assert_eq!(port.split().0.get(index).payload, pattern(received + index, 100));
            }
            received += count;
            port.release();
            port.flush();
            assert_conserved(&port);
        }
        assert_eq!(received, 64);
        let statistics = port.sockets().next().unwrap().statistics().unwrap();
        assert!(statistics.rx_ring_full_count > 0, "{statistics:?}");
        // All that was lost is still with the kernel, and comes back as packets do.
        client.send(b"after");
        assert_eq!(port.receive(), 1);
        assert_eq!(port.split().0.get(0).payload, b"after");
        port.release();
        port.flush();
        assert_conserved(&port);
    }
}

/// Polling alone enters the kernel not once; preferred busy polling exactly once a poll. Each TX
/// batch costs one `sendto` in both.
#[test]
#[ignore = "privileged: makes network namespaces"]
fn preferred_busy_polling_costs_one_recvfrom_a_poll() {
    /// Polls beside those that bring the burst.
    const IDLE_POLLS: u64 = 1_000;
    for budget in [None, Some(64)] {
        let rig = Rig::with(RigSpec { busy_poll_budget: budget, ..RigSpec::default() });
        let mut client = rig.kernel_client(node(1).v4().into(), CLIENT.v4().into());
        let socket = rig.socket();
        assert_eq!(socket.prefers_busy_poll(), budget.is_some());
        let mut port = rig.port_over(socket, rig.next_hop);
        let before = port.counters().clone();
        let mut polls = 0;
        let mut answered = 0;
        for number in 0..20 {
            client.send(&pattern(number, 64));
        }
        while answered < 20 || polls < IDLE_POLLS {
            let count = port.receive();
            polls += 1;
            let (burst, tx) = port.split();
            for index in 0..count {
                let datagram = burst.get(index);
                let write = |buffer: &mut [u8]| {
                    buffer[..64].copy_from_slice(datagram.payload);
                    64
                };
                nautilus_dataplane::port::Transmit::send(tx, &datagram.reply_path(), write)
                    .unwrap();
            }
            port.release();
            port.flush();
            answered += count;
            assert!(polls < 1_000_000, "{answered} of 20 arrived");
        }
        for number in 0..20 {
            assert_eq!(client.receive(), Some(pattern(number, 64)));
        }
        let after = port.counters();
        let expected = if budget.is_some() { polls } else { 0 };
        assert_eq!(after.rx_wakeup_count - before.rx_wakeup_count, expected, "{budget:?}");
        assert_eq!(after.tx_wakeup_count - before.tx_wakeup_count, 1, "{budget:?}");
        assert_eq!(after.send_error_count, 0);
        assert_conserved(&port);
    }
}
