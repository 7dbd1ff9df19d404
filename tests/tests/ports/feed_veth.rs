//! Recorded market data over veth, as `nautilus-replay` sends it, against what an independent
//! dissector says is in it.

#[path = "../../../dataplane/tests/support/expected.rs"]
mod expected;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nautilus_dataplane::app::feed::{Feed, FeedSpec};
use nautilus_dataplane::app::{App, CacheApp};
use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::channel::ChannelSpec;
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::feed::record::{BboRecord, Key, LastRecord, Value};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::feed::{Venue, counters::Counters};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Link, Port, PortCounters, Transmit};
use nautilus_dataplane::replay::binary_file::BinaryFile;
use nautilus_dataplane::worker::{Served, Worker, run};
use nautilus_dataplane::xsk::UmemSpec;
use nautilus_ebpf::intf::{Permissions, Service};
use nautilus_ebpf::{Action, VERDICTS, Verdict};
use nautilus_shm::cells::PollPolicy;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::region::Access;
use nautilus_shm::table::{TableReader, TableRegion, TableWriter};
use nautilus_tests::lab::{CLIENT, binary};
use nautilus_tests::repository::data_or_skip;
use nautilus_tests::{captures, command, wait};

use super::rig::{Rig, RigSpec, StopOnDrop, assert_conserved};
use expected::expected_packets;

const NASDAQ: &str = "Nasdaq.Equities.TotalView.Itch.v5.0";
const PSX: &str = "Psx.Equities.TotalView.Itch.v5.0.20230822";
const CME: &str = "Cme.Mdp3.Sbe.v1.12";
const IEX: &str = "Iex.Tops.IexTp.v1.5";

/// Who sent the captured NASDAQ packets, and where to.
const NASDAQ_SOURCE: Ipv4Addr = Ipv4Addr::new(206, 200, 127, 138);
const NASDAQ_SOURCE_PORT: u16 = 49_653;
const GROUP: Ipv4Addr = Ipv4Addr::new(233, 54, 12, 111);
const PORT: u16 = 26_477;

/// The same of the IEX packets.
const IEX_SOURCE: Ipv4Addr = Ipv4Addr::new(23, 226, 155, 131);
const IEX_GROUP: Ipv4Addr = Ipv4Addr::new(233, 215, 21, 3);
const IEX_PORT: u16 = 10_377;

/// Enough for every packet of a replay to wait while the worker gets no core.
const FRAMES: u32 = 16_384;

fn line() -> Endpoint {
    Endpoint::new(GROUP.into(), PORT)
}

/// A rig that listens to a group, on a link where nobody speaks but the replayer.
fn rig(group: Ipv4Addr, port: u16, sources: &[Ipv4Addr]) -> Rig {
    let umem = UmemSpec::new(FRAMES, 2048, false);
    let rig = Rig::with(RigSpec { umem, ..RigSpec::default() });
    rig.client.exec("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1").unwrap();
    rig.steering.serve_address(IpAddr::V4(group)).unwrap();
    rig.steering.set_service(port, Service::listening(3)).unwrap();
    for source in sources {
        list(&rig, *source);
    }
    rig
}

fn list(rig: &Rig, source: Ipv4Addr) {
    rig.steering.set_source(format!("{source}/32").parse().unwrap(), Permissions::READ).unwrap();
}

/// What the replayer says it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    packets: u64,
    messages: u64,
    control: u64,
}

/// Runs the replayer on the client's side.
fn replay(rig: &Rig, arguments: &str, files: &[PathBuf]) -> Sent {
    let text = rig.client.run(|| {
        let mut replayer = Command::new(binary("nautilus-replay"));
        replayer.args(["--raw", "--interface", "eth0", "--no-end", "--heartbeat-ms", "60000"]);
        command::run(replayer.args(arguments.split_whitespace()).args(files)).unwrap()
    });
    let number = |name: &str| {
        let value = text.split_whitespace().find_map(|word| word.strip_prefix(name));
        value.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    Sent { packets: number("packets="), messages: number("messages="), control: number("control=") }
}

/// What the program has counted by action, and what is in `verdict`.
fn verdicts(rig: &Rig, verdict: Verdict) -> ([u64; 3], u64) {
    let tallies = rig.steering.verdicts().unwrap();
    let of = |action: Action| {
        let rows = VERDICTS.iter().filter(|row| row.action == action);
        rows.map(|row| tallies.get(row.verdict).packet_count).sum()
    };
    let actions = [Action::Pass, Action::Drop, Action::Redirect].map(of);
    assert_eq!(actions.iter().sum::<u64>(), tallies.total().packet_count);
    (actions, tallies.get(verdict).packet_count)
}

fn difference(after: [u64; 3], before: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|index| after[index] - before[index])
}

/// An application, and how many datagrams it was given.
struct Counted<'a, A> {
    app: A,
    count: &'a AtomicU64,
}

impl<A: App> App for Counted<'_, A> {
    fn handle(&mut self, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        self.app.handle(now_ns, burst, tx);
        self.count.fetch_add(burst.len() as u64, Ordering::Relaxed);
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.app.housekeeping(now_ns, tx);
    }
}

/// Runs a worker with this application while `client` sends, until it has been given as many
/// datagrams as `client` says.
fn serve<A: App + Send>(
    rig: &Rig,
    port: u16,
    app: A,
    client: impl FnOnce() -> u64,
) -> (A, PortCounters) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let xdp = rig.port();
    std::thread::scope(|scope| {
        let (stop, count) = (&stop, &count);
        let worker = scope.spawn(move || {
            let apps = (Some(Served { ports: vec![port], app: Counted { app, count } }), ());
            let mut worker = Worker::new(xdp, apps, (), PollPolicy::Adaptive);
            run(&mut worker, stop);
            assert_conserved(&worker.port);
            assert_eq!(worker.port.frame_counts().held, 0);
            assert_eq!(worker.totals().no_application_count, 0);
            let counters = worker.port.counters().clone();
            (worker.apps.0.unwrap().app.app, counters)
        });
        let guard = StopOnDrop(stop);
        let expected = client();
        wait::wait_until("every datagram was handled", Duration::from_secs(20), || {
            count.load(Ordering::Relaxed) >= expected
        })
        .unwrap();
        // One too many would come now.
        std::thread::sleep(Duration::from_millis(50));
        drop(guard);
        let (app, counters) = worker.join().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), expected);
        assert_eq!((counters.received_count, counters.unstamped_count), (expected, 0));
        assert_eq!(counters.discarded_count.iter().sum::<u64>(), 0);
        (app, counters)
    })
}

/// Keeps what it is given.
#[derive(Default)]
struct Recorder {
    datagrams: Vec<(Endpoint, Endpoint, Link, Vec<u8>)>,
}

impl App for Recorder {
    fn handle(&mut self, _now_ns: u64, burst: &impl Burst, _tx: &mut impl Transmit) {
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            let payload = datagram.payload.to_vec();
            self.datagrams.push((datagram.source, datagram.destination, datagram.link, payload));
        }
    }

    fn housekeeping(&mut self, _now_ns: u64, _tx: &mut impl Transmit) {}
}

/// Feeds into the cache's own table, as the node's worker has it.
struct FeedOnCache {
    feed: Feed,
    cache: CacheApp<TableRegion>,
}

impl FeedOnCache {
    fn new(line: Endpoint) -> Self {
        let channel = ChannelSpec {
            venue: Venue::new("nasdaq").unwrap(),
            protocol: Default::default(),
            channel: 1,
            start: Start::Session,
            silence_limit_ns: 600_000_000_000,
            depth: 0,
            hold_limit_ns: 5_000_000,
            books: BOOKS,
        };
        let table = TableWriter::create(TableRegion::create(8, false).unwrap(), 1, 7).unwrap();
        let mut cache = CacheApp::new(table, 0);
        let mut feed = Feed::new(&[FeedSpec { lines: vec![line], channel, recovery: None }]);
        feed.begin(&mut cache);
        Self { feed, cache }
    }

    fn counters(&self) -> Counters {
        *self.feed.channels().next().unwrap().counters()
    }
}

impl App for FeedOnCache {
    fn handle(&mut self, _now_ns: u64, burst: &impl Burst, _tx: &mut impl Transmit) {
        self.feed.handle(burst, &mut self.cache);
    }

    fn housekeeping(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.cache.housekeeping(now_ns, tx);
        self.feed.housekeeping(now_ns, &mut self.cache);
    }
}

const BOOKS: BookLimits = BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 5 };

/// The captures of one folder with their packet and message counts, as `expected.csv` lists them.
fn listed(root: &Path, folder: &str) -> Vec<(PathBuf, u64, u64)> {
    let text = std::fs::read_to_string(root.join("expected.csv")).unwrap();
    let rows = text.lines().filter(|row| row.starts_with(folder));
    rows.map(|row| {
        let fields: Vec<&str> = row.split(',').collect();
        let (packets, messages) = (fields[1].parse().unwrap(), fields[2].parse().unwrap_or(0));
        (root.join(fields[0]), packets, messages)
    })
    .collect()
}

/// The captures under `pcap` arguments, and the packets and messages in all of them.
fn arguments(listed: &[(PathBuf, u64, u64)]) -> (Vec<PathBuf>, u64, u64) {
    let files = listed.iter().map(|(file, ..)| file.clone());
    let files = std::iter::once(PathBuf::from("--pcap")).chain(files).collect();
    let sum = |of: fn(&(PathBuf, u64, u64)) -> u64| listed.iter().map(of).sum();
    (files, sum(|row| row.1), sum(|row| row.2))
}

/// Every field of every message received is the expected one, file by file.
fn assert_decoded(
    root: &Path,
    folder: &str,
    listed: &[(PathBuf, u64, u64)],
    recorder: &Recorder,
    mut packet_is: impl FnMut(&Packet<'_>, &expected::ExpectedPacket, &str),
) {
    let mut received = recorder.datagrams.iter();
    for (file, packets, messages) in listed {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let text = root.join(format!("expected-decode/{folder}_{name}.txt"));
        let expected = expected_packets(&text);
        assert_eq!(expected.len() as u64, *packets, "{name}");
        let mut decoded = 0;
        for expected in &expected {
            let (.., payload) = received.next().expect("a further datagram");
            let packet = Packet::parse(payload).unwrap();
            packet.check().unwrap();
            packet_is(&packet, expected, name);
            decoded += expected.assert_messages(&packet, name);
        }
        assert_eq!(decoded, *messages, "{name}");
    }
    assert!(received.next().is_none());
}

fn market_data(test: &str) -> Option<PathBuf> {
    Some(data_or_skip(test)?.join("marketdata"))
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn nasdaq_captures_arrive_unchanged_and_every_field_is_as_expected() {
    let test = "nasdaq_captures_arrive_unchanged_and_every_field_is_as_expected";
    let Some(data) = market_data(test) else { return };
    let root = data.join("omi-pcap");
    let listed = listed(&root, NASDAQ);
    let (files, packets, messages) = arguments(&listed);
    assert_eq!((listed.len(), packets, messages), (8, 9, 46));
    let rig = rig(GROUP, PORT, &[]);
    let as_is = "--as-is --pace max";

    // Nobody is on the list: the same packets get no further than the program.
    let before = verdicts(&rig, Verdict::SourceUnlisted);
    serve(&rig, PORT, Recorder::default(), || {
        assert_eq!(replay(&rig, as_is, &files).packets, packets);
        0
    });
    let after = verdicts(&rig, Verdict::SourceUnlisted);
    assert_eq!(difference(after.0, before.0), [0, packets, 0]);
    assert_eq!(after.1 - before.1, packets);

    list(&rig, NASDAQ_SOURCE);
    let before = verdicts(&rig, Verdict::Redirected);
    let (recorder, _) = serve(&rig, PORT, Recorder::default(), || {
        assert_eq!(replay(&rig, as_is, &files).packets, packets);
        packets
    });
    let after = verdicts(&rig, Verdict::Redirected);
    assert_eq!(difference(after.0, before.0), [0, 0, packets]);
    assert_eq!(after.1 - before.1, packets);

    let sent = captures::frames(&root.join(NASDAQ)).unwrap();
    assert_eq!(sent.len(), recorder.datagrams.len());
    let bytes: usize = sent.iter().map(Vec::len).sum();
    let tally = rig.steering.verdicts().unwrap().get(Verdict::Redirected);
    assert_eq!(tally.byte_count, bytes as u64, "frames have the length they were captured with");
    for (frame, (source, destination, link, payload)) in sent.iter().zip(&recorder.datagrams) {
        assert_eq!(*source, Endpoint::new(NASDAQ_SOURCE.into(), NASDAQ_SOURCE_PORT));
        assert_eq!(*destination, line());
        assert_eq!(link.vlans, [141, 0]);
        let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else { panic!("UDP") };
        assert_eq!(udp.payload(), payload);
    }
    assert_decoded(&root, NASDAQ, &listed, &recorder, |packet, expected, name| {
        expected.assert_header(packet, name);
    });
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn psx_captures_with_our_addresses_keep_every_field() {
    /// Number of the first message.
    const FIRST: u64 = 1_001;
    let Some(data) = market_data("psx_captures_with_our_addresses_keep_every_field") else {
        return;
    };
    let root = data.join("omi-pcap");
    let listed = listed(&root, PSX);
    let (files, packets, messages) = arguments(&listed);
    assert_eq!((listed.len(), packets, messages), (11, 51, 51));
    let rig = rig(GROUP, PORT, &[]);
    let source = CLIENT.v4();
    let before = verdicts(&rig, Verdict::Redirected);
    let (recorder, _) = serve(&rig, PORT, Recorder::default(), || {
        let arguments = format!(
            "--group {GROUP} --port {PORT} --source {source} --session PSX2023 \
             --sequence-start {FIRST} --vlan keep --pace max"
        );
        let sent = replay(&rig, &arguments, &files);
        assert_eq!(sent, Sent { packets, messages, control: 0 });
        packets
    });
    let after = verdicts(&rig, Verdict::Redirected);
    assert_eq!(difference(after.0, before.0), [0, 0, packets]);
    assert_eq!(after.1 - before.1, packets);
    for (from, to, ..) in &recorder.datagrams {
        assert_eq!((from.ip(), *to), (IpAddr::V4(source), line()));
    }
    let mut sequence = FIRST;
    assert_decoded(&root, PSX, &listed, &recorder, |packet, expected, name| {
        assert_eq!(packet.session.0, *b"   PSX2023", "{name}");
        assert_eq!(packet.sequence, sequence, "{name}");
        assert_eq!(usize::from(packet.message_count()), expected.messages.len(), "{name}");
        sequence += u64::from(packet.message_count());
    });
    assert_eq!(sequence, FIRST + messages);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn the_binary_file_replays_whole_into_book_and_cache() {
    let Some(data) = market_data("the_binary_file_replays_whole_into_book_and_cache") else {
        return;
    };
    let file = data.join("itch-binaryfile/ex20101224.TEST_ITCH_50");
    let rig = rig(GROUP, PORT, &[]);
    let (mut app, counters) = serve(&rig, PORT, FeedOnCache::new(line()), || {
        let arguments = format!("--source {} --pace 20000/s --session WHOLE", CLIENT.v4());
        let sent = replay(&rig, &arguments, &["--itch".into(), file.clone()]);
        assert_eq!((sent.messages, sent.control), (12_012, 0));
        sent.packets
    });
    let counts = app.counters();
    assert_eq!((counts.packets, counts.messages), (counters.received_count, 12_012));
    assert_eq!((counts.sessions, counts.gaps, counts.duplicate_messages), (1, 0, 0));
    assert_eq!(counts.malformed_packets() + counts.malformed_messages, 0);
    assert_eq!(counts.unknown_messages + counts.no_room + counts.publish_failures, 0);
    assert_eq!((app.feed.unknown_line(), counts.suspects), (0, 0));

    // The same messages, straight from the file.
    let mut books = Books::new(BOOKS);
    let (mut messages, mut locates) = (BinaryFile::open(&file).unwrap(), BTreeSet::new());
    let mut last_of = std::collections::BTreeMap::new();
    let (mut sequence, mut unknown) = (0, 0);
    while let Some(bytes) = messages.next_message().unwrap() {
        sequence += 1;
        let message = Message::decode(bytes).unwrap();
        let (effect, problem) = books.apply(&message);
        unknown += u64::from(problem.is_some());
        if effect.trade {
            last_of.insert(effect.locate, sequence);
        }
        locates.insert(effect.locate);
    }
    assert_eq!((sequence, counts.unknown_orders), (12_012, unknown));
    let channel = app.feed.channels().next().unwrap();
    assert_eq!(channel.books().order_count(), books.order_count());
    assert_eq!(channel.books().level_count(), books.level_count());

    // A reader of the cache finds what the books hold.
    let now_ns = monotonic_ns();
    app.feed.housekeeping(now_ns, &mut app.cache);
    let region = app.cache.table().memory();
    region.beat(now_ns).unwrap();
    let read_only = TableRegion::attach(region.reopen_read_only().unwrap(), Access::ReadOnly);
    let reader = TableReader::attach(read_only.unwrap()).unwrap();
    let venue = Venue::new("nasdaq").unwrap();
    let channel = app.feed.channels().next().unwrap();
    let mut records = 0;
    for locate in locates {
        let bbo = books.bbo(locate);
        assert_eq!(channel.books().bbo(locate), bbo);
        let Some(symbol) = books.symbol(locate) else { continue };
        let mut read = |value| {
            let key = Key::new(&venue, symbol, value).unwrap();
            let mut out = [0; 128];
            let hit = reader.get(key.as_bytes(), now_ns, &mut out).ok()?;
            assert_eq!(hit.channel, 1);
            records += 1;
            Some(out[..hit.value_bytes].to_vec())
        };
        let record = BboRecord::decode(&read(Value::Bbo).expect("a best bid/offer")).unwrap();
        assert_eq!((record.bbo, record.origin.session.0), (bbo, *b"     WHOLE"));
        assert!(record.origin.capture_ns != 0 && record.origin.source_sequence <= sequence);
        let trade = read(Value::Last).map(|bytes| LastRecord::decode(&bytes).unwrap());
        assert_eq!(
            trade.map(|record| record.origin.source_sequence),
            last_of.get(&locate).copied()
        );
        let prices = |trade: nautilus_dataplane::feed::book::LastTrade| {
            (trade.price, trade.shares, trade.match_number, trade.exchange_ns)
        };
        let published = trade.and_then(|record| record.trade).map(prices);
        assert_eq!(published, books.last_trade(locate).map(prices));
    }
    assert!(records >= 6, "{records} records of three symbols");
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn captures_of_other_venues_pass_and_are_never_decoded() {
    let Some(data) = market_data("captures_of_other_venues_pass_and_are_never_decoded") else {
        return;
    };
    let root = data.join("omi-pcap");
    let mut both = listed(&root, CME);
    both.extend(listed(&root, IEX));
    let (files, packets, messages) = arguments(&both);
    assert_eq!((packets, messages), (16, 0));
    let senders = [IEX_SOURCE, Ipv4Addr::new(10, 10, 10, 1), Ipv4Addr::new(192, 168, 0, 1)];
    let quiet = rig(GROUP, PORT, &senders);
    let before = verdicts(&quiet, Verdict::Redirected);
    let (app, _) = serve(&quiet, PORT, FeedOnCache::new(line()), || {
        assert_eq!(replay(&quiet, "--as-is --pace max", &files).packets, packets);
        0
    });
    let after = verdicts(&quiet, Verdict::Redirected);
    assert_eq!(difference(after.0, before.0), [packets, 0, 0]);
    assert_eq!(app.counters(), Counters::default());
    drop(quiet);

    // A line that somebody gave the group of another protocol: counted, dropped whole.
    let (files, packets, _) = arguments(&listed(&root, IEX));
    let rig = rig(IEX_GROUP, IEX_PORT, &senders);
    let line = Endpoint::new(IEX_GROUP.into(), IEX_PORT);
    let (app, _) = serve(&rig, IEX_PORT, FeedOnCache::new(line), || {
        assert_eq!(replay(&rig, "--as-is --pace max", &files).packets, packets);
        packets
    });
    let expected = Counters { packets, other_protocols: packets, ..Counters::default() };
    assert_eq!(app.counters(), expected);
}
