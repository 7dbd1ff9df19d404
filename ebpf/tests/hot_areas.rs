//! Where several workers show hot keys, each in slots of its own: the program finds a key in whatever area it
//! is shown, and nothing that another area holds stands in its way.

mod support;

use nautilus_ebpf::Verdict::{HotHit, Redirected};
use nautilus_ebpf::intf::{HOT_AREAS_MAX, HOT_PATH, HOT_SLOTS};
use nautilus_ebpf::{HotArea, HotHits, HotValue};

use support::frame::Frame;
use support::hot::{HOT_CACHE, HOT_EPOCH, HOT_GENERATION, HOT_KEYS, get, read_answer, value};
use support::{CACHE_PORT, HOT_SERVICE, Rig};

/// None with a printed `SKIPPED` line without the right to load programs, or without a hot path. The slots
/// are empty.
fn rig(test: &str) -> Option<Rig> {
    if !HOT_PATH {
        println!("SKIPPED {test}: this build answers nothing from the hot set");
        return None;
    }
    let mut rig = Rig::new(test)?;
    (0..HOT_SLOTS).for_each(|slot| rig.slots.empty(slot));
    Some(rig)
}

fn areas(workers: u32) -> Vec<HotArea> {
    (0..workers).map(|number| HotArea::new(number, workers).unwrap()).collect()
}

fn serve(rig: &Rig, workers: u32) {
    rig.steering.set_service(CACHE_PORT, HOT_SERVICE.of_workers(workers)).unwrap();
}

fn requests(key: &[u8]) -> [Vec<u8>; 3] {
    let tagged = Frame::v4(CACHE_PORT).with(|f| f.tags = vec![0x8100]);
    [Frame::v4(CACHE_PORT), tagged, Frame::v6(CACHE_PORT)].map(|frame| get(frame, 9, key).bytes())
}

/// What is in the key's slots of the other areas: nothing, or what is not this key's value.
fn rivals<'a>(key: &'a [u8], other: &'a [u8]) -> [Option<HotValue<'a>>; 5] {
    let own = value(key, b"never shown");
    [
        None,
        Some(value(other, b"another key's")),
        Some(HotValue { cache: HOT_CACHE + 1, ..own }),
        Some(HotValue { generation: HOT_GENERATION + 1, ..own }),
        Some(HotValue { key: &other[1..], ..own }),
    ]
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_key_is_found_in_every_area() {
    let Some(mut rig) = rig("a_key_is_found_in_every_area") else { return };
    let hits = HotHits::map(rig.steering.hot_fds()[2]).unwrap();
    let mut answered = 0;
    for workers in 1..=HOT_AREAS_MAX {
        serve(&rig, workers);
        let areas = areas(workers);
        for key in HOT_KEYS.map(str::as_bytes) {
            let other = [b"!".as_slice(), &key[..key.len() - 1], b"!"].concat();
            let other = &other[..other.len().min(32)];
            let requests = requests(key);
            for rival in rivals(key, other) {
                for (number, area) in areas.iter().enumerate() {
                    for (place, area) in areas.iter().enumerate().filter(|(at, _)| *at != number) {
                        let slot = area.slot_of(HOT_CACHE, key).unwrap();
                        match &rival {
                            // Not everywhere: an empty slot does not end the search either.
                            Some(rival) if place % 3 != 2 => {
                                rig.slots.publish(slot, rival).unwrap()
                            }
                            _ => rig.slots.empty(slot),
                        }
                    }
                    let name = format!("area {number} of {workers}, {rival:?}");
                    let slot = area.slot_of(HOT_CACHE, key).unwrap();
                    rig.slots.empty(slot);
                    rig.expect(&name, &requests[0], Redirected);
                    let reply = format!("of worker {number}");
                    rig.slots.publish(slot, &value(key, reply.as_bytes())).unwrap();
                    let before = hits.of(slot);
                    for request in &requests {
                        let (verdict, outcome) = rig.run(&name, request);
                        assert_eq!(verdict, HotHit, "{name}");
                        assert_eq!(read_answer(&name, request, &outcome.packet), reply.as_bytes());
                        answered += 1;
                    }
                    assert_eq!(hits.of(slot), before + 3, "{name}");
                    // Found, but of no use: no other area is asked for it.
                    rig.slots
                        .publish(slot, &HotValue { epoch: HOT_EPOCH + 1, ..value(key, b"x") })
                        .unwrap();
                    rig.expect(&name, &requests[0], Redirected);
                }
            }
            (0..HOT_SLOTS).for_each(|slot| rig.slots.empty(slot));
        }
    }
    assert_eq!((0..HOT_SLOTS).map(|slot| hits.of(slot)).sum::<u64>(), answered);
}

/// Only the slots of a key are looked into, one an area.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_key_in_another_slot_is_not_found() {
    let Some(mut rig) = rig("a_key_in_another_slot_is_not_found") else { return };
    let key = b"hot:key";
    let [request, ..] = requests(key);
    for workers in [1, 2, 4, 8] {
        serve(&rig, workers);
        let areas = areas(workers);
        let own: Vec<u32> =
            areas.iter().map(|area| area.slot_of(HOT_CACHE, key).unwrap()).collect();
        for slot in (0..HOT_SLOTS).filter(|slot| slot % 7 == 0 || own.contains(slot)) {
            rig.slots.publish(slot, &value(key, b"here")).unwrap();
            let expected = if own.contains(&slot) { HotHit } else { Redirected };
            rig.expect(&format!("slot {slot}, {workers} areas"), &request, expected);
            rig.slots.empty(slot);
        }
    }
}
