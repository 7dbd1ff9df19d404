use std::path::Path;

use nautilus_shm::capture_ring::CaptureProducer;

use super::super::files::FileLimits;
use super::*;
use crate::net::{Endpoint, RxChecksum, parse::parse};
use crate::port::{Datagram, Link};
use crate::replay::pcapng::PcapngReader;

const QUEUE: Source = Source { kind: SourceKind::Frame, interface: 0, number: 3 };

fn region() -> &'static CaptureRegion {
    Box::leak(Box::new(CaptureRegion::create(c"nautilus-capture", 1, 1).unwrap()))
}

fn writer(region: &'static CaptureRegion, directory: &Path, files: usize) -> Writer<'static> {
    let limits = FileLimits {
        directory: directory.into(),
        node: "n".into(),
        file_bytes: FILE_BYTES_MIN,
        files,
    };
    let (node, interfaces) = ("n".into(), vec!["eth0".into()]);
    let facts = NodeFacts { node, interfaces, expected: vec![(0, QUEUE)] };
    Writer::new(region, facts, Files::new(limits))
}

fn push(
    producer: &mut CaptureProducer<'_>,
    source: Source,
    stamp_ns: u64,
    parts: &[&[u8]],
) -> bool {
    let place = producer.place(source.identity()).unwrap();
    producer.push(place, stamp_ns, parts)
}

/// What the files of a folder hold, oldest first: number, time after the offset, drops before it, bytes.
fn read(directory: &Path) -> Vec<(u64, u64, u64, Vec<u8>)> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let mut reader = PcapngReader::open(&path).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            let (identity, time_ns) = (record.identity.unwrap(), record.time_ns);
            let (dropped, data) = (record.dropped, record.data.to_vec());
            let [comment] = reader.comments() else { panic!("{:?}", reader.comments()) };
            let (_, offset) = comment.split_once("realtime_offset_ns=").unwrap();
            found.push((identity, time_ns - offset.parse::<u64>().unwrap(), dropped, data));
        }
        assert_eq!(reader.cut_bytes(), 0, "{}", path.display());
    }
    found
}

#[test]
fn records_become_packets_with_their_exact_stamps_and_what_is_missing_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let region = region();
    let mut producer = region.ring(0).producer();
    let mut writer = writer(region, folder.path(), 4);
    let frame = vec![7; 1500];
    let mut seen = 0;
    while push(&mut producer, QUEUE, 1000 + seen, &[&frame]) {
        seen += 1;
    }
    assert!(!push(&mut producer, QUEUE, 1, &[&frame]), "the ring is full");
    // Two were dropped; what comes next says so.
    writer.turn().unwrap();
    writer.turn().unwrap();
    assert!(push(&mut producer, QUEUE, 5, &[b"after"]));
    writer.finish().unwrap();
    while writer.turn().unwrap() {}
    writer.finish().unwrap();
    let found = read(folder.path());
    assert_eq!(found.len() as u64, seen + 1);
    for (place, found) in found[..seen as usize].iter().enumerate() {
        assert_eq!(*found, (place as u64, 1000 + place as u64, 0, frame.clone()));
    }
    assert_eq!(*found.last().unwrap(), (seen + 2, 5, 2, b"after".to_vec()));
    let counts = region.ring(0).counts().next().unwrap();
    assert_eq!((counts.captured, counts.dropped), (seen + 1, 2));
    assert_eq!(writer.written().records, seen + 1);
}

#[test]
fn files_are_rotated_and_their_bound_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let region = region();
    let mut producer = region.ring(0).producer();
    let mut writer = writer(region, folder.path(), 3);
    let frame = vec![7; 1400];
    for stamp_ns in 0..6000 {
        assert!(push(&mut producer, QUEUE, stamp_ns, &[&frame]));
        if stamp_ns % 100 == 99 {
            writer.turn().unwrap();
            let files: Vec<u64> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .collect();
            assert!(files.len() <= 3 && files.iter().all(|bytes| *bytes <= FILE_BYTES_MIN));
        }
    }
    writer.finish().unwrap();
    assert!(writer.written().files > 6);
    let found = read(folder.path());
    let last = found.last().unwrap().0;
    assert_eq!(last, 5999);
    // The newest, without a gap at the seams.
    assert!(found.len() > 1300 && found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
}

#[test]
fn a_datagram_without_a_frame_gets_one_and_sources_appear_when_they_send() {
    let folder = tempfile::tempdir().unwrap();
    let region = region();
    let mut producer = region.ring(0).producer();
    let mut writer = writer(region, folder.path(), 3);
    let source = Source { kind: SourceKind::Datagram, interface: 0, number: 0 };
    let datagram = Datagram {
        source: Endpoint::v4([198, 18, 0, 2], 4000),
        destination: Endpoint::v4([233, 54, 12, 111], 26_477),
        link: Link { interface: 0, vlans: [0; 2] },
        rx_ns: 9,
        permissions: None,
        payload: b"payload",
    };
    push(&mut producer, QUEUE, 8, &[b"a frame"]);
    push(&mut producer, source, 9, &[&parcel::header(&datagram), datagram.payload]);
    // Neither a source nor a datagram.
    let place = producer.place(0xee00_0000).unwrap();
    producer.push(place, 10, &[b"what?"]);
    push(&mut producer, source, 11, &[b"short"]);
    writer.turn().unwrap();
    writer.finish().unwrap();
    let found = read(folder.path());
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [0, 1, 3]);
    let parsed = parse(&found[1].3, RxChecksum::Verify).unwrap();
    assert_eq!((parsed.source, parsed.destination), (datagram.source, datagram.destination));
    assert!(found[1].3.ends_with(b"payload") && found[2].3.is_empty());
    assert_eq!(writer.written().damaged, 1);
}

#[test]
fn what_cannot_be_written_waits_and_is_written_once() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("later");
    let region = region();
    let mut producer = region.ring(0).producer();
    let mut writer = writer(region, &folder, 3);
    for stamp_ns in 0..10 {
        push(&mut producer, QUEUE, stamp_ns, &[b"frame"]);
        assert!(writer.turn().is_err());
    }
    std::fs::create_dir(&folder).unwrap();
    assert!(writer.turn().unwrap());
    // The folder goes away under the open file: the next one is made when it is back.
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(writer.finish().is_err());
    push(&mut producer, QUEUE, 10, &[b"frame"]);
    assert!(writer.turn().is_err());
    std::fs::create_dir(&folder).unwrap();
    assert!(writer.turn().unwrap());
    writer.finish().unwrap();
    assert_eq!(read(&folder).iter().map(|found| found.0).collect::<Vec<_>>(), [10]);
}

#[test]
fn the_next_writer_goes_on_with_what_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let region = region();
    let mut producer = region.ring(0).producer();
    let mut first = writer(region, folder.path(), 9);
    push(&mut producer, QUEUE, 0, &[b"zero"]);
    first.turn().unwrap();
    push(&mut producer, QUEUE, 1, &[b"one"]);
    // Killed between reading and writing.
    first.fill().unwrap();
    drop(first);
    let mut second = writer(region, folder.path(), 9);
    assert_eq!(second.files.salvage().unwrap(), 1);
    second.turn().unwrap();
    second.finish().unwrap();
    let found = read(folder.path());
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [0, 1]);
}
