use proptest::prelude::*;

use super::*;

const RULES: HoldRules = HoldRules {
    delay_ns: 100,
    jitter_ns: 0,
    shape: JitterShape::Uniform,
    distance: 2,
    reorder_hold_ns: 50,
};

fn arrival(line: usize, rx_ns: u64, frame: &[u8]) -> Arrival<'_> {
    Arrival { line, rx_ns, jitter: 0, is_reordered: false, is_duplicated: false, frame }
}

/// What leaves until `now_ns`, as the first bytes of the frames.
fn leaving(hold: &mut Hold, now_ns: u64) -> Vec<u8> {
    let mut left = Vec::new();
    hold.release(now_ns, |_, frame| {
        left.push(frame[0]);
        true
    });
    left
}

#[test]
fn packets_leave_when_they_are_due_and_not_before() {
    let mut hold = Hold::new([RULES, HoldRules { delay_ns: 10, ..RULES }], 8);
    assert_eq!(hold.next_ns(), None);
    hold.accept(&arrival(0, 1_000, &[1]));
    hold.accept(&arrival(1, 1_050, &[2]));
    assert_eq!((hold.next_ns(), hold.waiting()), (Some(1_060), 2));
    assert_eq!(leaving(&mut hold, 1_059), [0_u8; 0]);
    assert_eq!(leaving(&mut hold, 1_060), [2]);
    assert_eq!(leaving(&mut hold, 1_099), [0_u8; 0]);
    assert_eq!(leaving(&mut hold, 1_105), [1]);
    assert_eq!((hold.next_ns(), hold.waiting()), (None, 0));
    let held = hold.held(0);
    assert_eq!((held.left, held.copies, held.least_ns, held.most_ns), (1, 1, 105, 105));
}

#[test]
fn a_reordered_packet_is_overtaken_by_so_many_of_its_line() {
    let mut hold = Hold::new([RULES, RULES], 16);
    hold.accept(&Arrival { is_reordered: true, ..arrival(0, 0, &[1]) });
    hold.accept(&arrival(1, 1, &[9]));
    hold.accept(&arrival(0, 2, &[2]));
    hold.accept(&Arrival { is_reordered: true, ..arrival(0, 3, &[3]) });
    hold.accept(&arrival(0, 4, &[4]));
    hold.accept(&arrival(0, 5, &[5]));
    hold.accept(&arrival(0, 6, &[6]));
    assert_eq!(leaving(&mut hold, 1_000), [9, 2, 4, 1, 5, 3, 6]);
    assert_eq!(hold.held(0).reordered, 2);
}

#[test]
fn one_that_nobody_overtakes_leaves_in_its_own_time_and_does_not_count() {
    let mut hold = Hold::new([RULES], 8);
    hold.accept(&Arrival { is_reordered: true, ..arrival(0, 0, &[1]) });
    assert_eq!(hold.next_ns(), Some(150));
    assert_eq!(leaving(&mut hold, 149), [0_u8; 0]);
    assert_eq!(leaving(&mut hold, 150), [1]);
    assert_eq!(hold.held(0).reordered, 0);
    hold.accept(&Arrival { is_reordered: true, ..arrival(0, 1_000, &[2]) });
    hold.accept(&arrival(0, 1_001, &[3]));
    assert_eq!(leaving(&mut hold, 1_200), [3, 2]);
    assert_eq!(hold.held(0).reordered, 1);
}

#[test]
fn a_full_hold_drops_and_counts_and_a_full_ring_keeps() {
    let mut hold = Hold::new([RULES], 2);
    hold.accept(&Arrival { is_duplicated: true, ..arrival(0, 0, &[1]) });
    hold.accept(&arrival(0, 1, &[2]));
    hold.accept(&arrival(0, 2, &[3]));
    assert_eq!(hold.held(0).full, 1);
    // Room for one copy of the first alone.
    let (mut room, mut left) = (1, Vec::new());
    hold.release(500, |_, frame| {
        room -= 1;
        left.extend((room >= 0).then_some(frame[0]));
        room >= 0
    });
    assert_eq!((left, hold.waiting()), (vec![1], 2));
    assert_eq!(leaving(&mut hold, 500), [1, 2]);
    let held = hold.held(0);
    assert_eq!((held.left, held.copies, hold.waiting()), (2, 3, 0));
}

#[test]
fn in_a_hurry_everything_leaves_in_its_order() {
    let mut hold = Hold::new([RULES, HoldRules { delay_ns: 5, ..RULES }], 8);
    hold.accept(&Arrival { is_reordered: true, ..arrival(0, 0, &[1]) });
    hold.accept(&arrival(0, 1, &[2]));
    hold.accept(&arrival(1, 2, &[3]));
    hold.hurry();
    assert_eq!(hold.next_ns(), Some(0));
    assert_eq!(leaving(&mut hold, 3), [3, 2, 1]);
}

#[test]
fn a_drawn_delay_has_the_shape_it_is_said_to_have() {
    let mean = |shape| {
        let rules = HoldRules { delay_ns: 0, jitter_ns: 1_000, shape, ..RULES };
        let drawn = (0..10_000u64)
            .map(|n| nautilus_ebpf::fault::mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let delays: Vec<u64> = drawn.map(|drawn| rules.delay_ns(drawn)).collect();
        (delays.iter().sum::<u64>() / 10_000, *delays.iter().max().unwrap())
    };
    let (uniform, longest) = mean(JitterShape::Uniform);
    assert!((480..520).contains(&uniform) && longest < 1_000, "{uniform} {longest}");
    let (exponential, longest) = mean(JitterShape::Exponential);
    assert!((950..1_050).contains(&exponential) && longest > 5_000, "{exponential} {longest}");
    let most = HoldRules { jitter_ns: 1_000, shape: JitterShape::Exponential, ..RULES };
    assert!(most.delay_ns(0) < 100 + 37_000 && most.delay_ns(u64::MAX) == 100);
}

proptest! {
    /// Whatever comes: everything leaves once or twice as it was told, never before its time, and without
    /// reordering in the order it came.
    #[test]
    fn nothing_is_lost_early_or_out_of_turn(
        packets in proptest::collection::vec((0usize..3, 0u64..60, any::<u64>(), 0u8..8), 1..80),
        reorders in any::<bool>(),
    ) {
        let line = |jitter_ns| HoldRules { jitter_ns, ..RULES };
        let mut hold = Hold::new([line(0), line(30), line(500)], 1_000);
        let (mut now, mut left) = (0, Vec::new());
        let mut twice = 0;
        for (place, (line, pause, jitter, kind)) in packets.iter().enumerate() {
            now += pause;
            let frame = (place as u64).to_ne_bytes();
            let (is_reordered, is_duplicated) = (reorders && kind & 1 > 0, *kind == 6);
            twice += u64::from(is_duplicated);
            hold.accept(&Arrival {
                is_reordered, is_duplicated, jitter: *jitter, ..arrival(*line, now, &frame)
            });
            hold.release(now, |line, frame| {
                left.push((line, u64::from_ne_bytes(frame.try_into().unwrap()), now));
                true
            });
        }
        hold.release(now + 10_000, |line, frame| {
            left.push((line, u64::from_ne_bytes(frame.try_into().unwrap()), now + 10_000));
            true
        });
        prop_assert_eq!((left.len() as u64, hold.waiting()), (packets.len() as u64 + twice, 0));
        let came: Vec<u64> = packets.iter().scan(0, |now, packet| { *now += packet.1; Some(*now) }).collect();
        for (_, place, at) in &left {
            prop_assert!(*at >= came[*place as usize] + RULES.delay_ns);
        }
        if !reorders {
            for number in 0..3 {
                let places: Vec<u64> =
                    left.iter().filter(|one| one.0 == number).map(|one| one.1).collect();
                prop_assert!(places.is_sorted());
            }
        }
        let distinct: std::collections::HashSet<u64> = left.iter().map(|one| one.1).collect();
        prop_assert_eq!(distinct.len(), packets.len());
    }
}
