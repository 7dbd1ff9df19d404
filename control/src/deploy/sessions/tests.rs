use std::path::Path;

use jiff::Timestamp;

use super::*;

const MARGIN_S: u64 = 900;

/// The program's regions, and one for each of these lists of venues: `own_0`, `own_1`, ...
fn catalogue(more: &[&[&str]]) -> Catalogue {
    let mut text = String::new();
    for (index, venues) in more.iter().enumerate() {
        text += &format!(
            "[[region]]\nid = \"own_{index}\"\nname = \"X\"\nkind = \"colocation\"\nprovider = \"p\"\n\
             latitude_deg = 1\nlongitude_deg = 2\naccuracy_km = 9\ntime_zone = \"UTC\"\nvenues = {venues:?}\n"
        );
    }
    Catalogue::built_in().clone().with(Path::new("own.toml"), &text).unwrap()
}

fn at(catalogue: &Catalogue, region: &str, utc: &str, margin_s: u64) -> (SessionState, String) {
    let now_ns = utc.parse::<Timestamp>().unwrap().as_nanosecond().try_into().unwrap();
    let RegionSession { state, reason } = sessions(catalogue, now_ns, margin_s)[region].clone();
    (state, reason)
}

use SessionState::{Closed, Open, Unknown};

#[test]
fn a_margin_lies_on_both_sides_of_a_session() {
    let of = |utc| at(Catalogue::built_in(), "nyse_mahwah", utc, MARGIN_S);
    for (utc, state, reason) in [
        ("2026-11-30T14:14:59.999999999Z", Closed, "is closed until 2026-11-30T14:30:00Z"),
        ("2026-11-30T14:15:00Z", Closed, "is closed until 2026-11-30T14:30:00Z"),
        ("2026-11-30T14:15:00.000000001Z", Open, "opens at 2026-11-30T14:30:00Z"),
        ("2026-11-30T14:29:59.999999999Z", Open, "opens at 2026-11-30T14:30:00Z"),
        ("2026-11-30T14:30:00Z", Open, "is open until 2026-11-30T21:00:00Z"),
        ("2026-11-30T20:59:59.999999999Z", Open, "is open until 2026-11-30T21:00:00Z"),
        ("2026-11-30T21:00:00Z", Open, "closed at 2026-11-30T21:00:00Z"),
        ("2026-11-30T21:14:59.999999999Z", Open, "closed at 2026-11-30T21:00:00Z"),
        ("2026-11-30T21:15:00Z", Closed, "is closed until 2026-12-01T14:30:00Z"),
    ] {
        let (found, said) = of(utc);
        assert_eq!((found, &said[5..]), (state, reason), "{utc}: {said}");
    }
    for (utc, state) in [
        ("2026-11-30T14:29:59.999999999Z", Closed),
        ("2026-11-30T14:30:00Z", Open),
        ("2026-11-30T20:59:59.999999999Z", Open),
        ("2026-11-30T21:00:00Z", Closed),
    ] {
        assert_eq!(at(Catalogue::built_in(), "nyse_mahwah", utc, 0).0, state, "{utc}");
    }
}

#[test]
fn one_open_venue_opens_a_region_and_one_unknown_clouds_it() {
    let catalogue = catalogue(&[
        &["xnys", "chij", "xlon"],
        &["chij", "sbij"],
        &["xnys", "xlon"],
        &["xses", "xnys"],
    ]);
    let of = |region, utc| at(&catalogue, region, utc, MARGIN_S);
    // Both are open: the one that is longer in the way is named.
    let both = "2026-11-30T15:00:00Z";
    let until = "xnys is open until 2026-11-30T21:00:00Z".to_owned();
    assert_eq!(of("own_0", both), (Open, until.clone()));
    assert_eq!(of("own_2", both), (Open, until));
    // One is open now, the other will be: the one that is.
    let soon = of("own_2", "2026-11-30T14:20:00Z");
    assert_eq!(soon, (Open, "xlon is open until 2026-11-30T16:30:00Z".into()));
    // One closed, one unknown.
    let night = "2026-11-30T03:00:00Z";
    assert_eq!(of("own_0", night), (Unknown, "chij has no calendar".into()));
    let none = "chij has no calendar, sbij has no calendar";
    assert_eq!(of("own_1", night), (Unknown, none.into()));
    assert_eq!(of("own_2", night), (Closed, "xlon is closed until 2026-11-30T08:00:00Z".into()));
    // A calendar that ends, and ends within the margin.
    let ended = "xses has a calendar from 2023-12-31T16:00:00Z to 2026-12-31T16:00:00Z alone";
    assert_eq!(of("own_3", "2027-01-02T00:00:00Z"), (Unknown, ended.into()));
    assert_eq!(of("own_3", "2026-12-31T15:50:00Z").0, Open, "xnys is");
    let alone = at(&catalogue, "sgx_singapore", "2026-12-31T15:50:00Z", MARGIN_S).1;
    assert!(alone.contains(ended), "{alone}");
}

#[test]
fn lunch_is_no_time_for_a_deployment() {
    let catalogue = catalogue(&[&["xtks"]]);
    let (state, reason) = at(&catalogue, "own_0", "2026-11-30T03:00:00Z", MARGIN_S);
    assert_eq!(state, Open);
    assert_eq!(reason, "xtks is in its break, and open until 2026-11-30T06:30:00Z");
}

#[test]
fn a_region_without_venues_has_no_session() {
    let cloud = at(Catalogue::built_in(), "aws_us_east_1", "2026-11-30T15:00:00Z", MARGIN_S);
    assert_eq!(cloud, (Closed, "it has no venues".into()));
}
