use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::catalogue::Catalogue;

const S: u64 = 1_000_000_000;

fn ns(utc: &str) -> u64 {
    utc.parse::<Timestamp>().unwrap().as_nanosecond().try_into().unwrap()
}

fn built_in(venue: &str) -> &'static Calendar {
    Catalogue::built_in().calendars().get(venue).unwrap_or_else(|| panic!("{venue}"))
}

/// What a file of sections makes of the calendars in the program.
fn with(text: &str) -> Result<Calendars, String> {
    let own = Catalogue::built_in().clone().with(Path::new("own.toml"), text);
    own.map(|catalogue| catalogue.calendars().clone()).map_err(|error| error.to_string())
}

/// Phase and its end.
fn at(calendar: &Calendar, utc_: &str) -> (Phase, String) {
    let span = calendar.at(ns(utc_));
    (span.phase, span.until_ns.map_or_else(|| "never".into(), utc))
}

fn assert_at(calendar: &Calendar, instant: &str, phase: Phase, until: &str) {
    assert_eq!(at(calendar, instant), (phase, until.to_owned()), "{instant}");
}

use Phase::{Break, Closed, Open, Unknown};

#[test]
fn every_venue_of_the_catalogue_has_a_calendar_or_is_known_to_have_none() {
    let regions = Catalogue::built_in().regions().iter();
    let venues: BTreeSet<&str> =
        regions.flat_map(|region| region.venues.iter().map(String::as_str)).collect();
    let known: BTreeSet<&str> = Catalogue::built_in().calendars().venues().collect();
    let without: Vec<&str> = venues.difference(&known).copied().collect();
    let expected = ["aqxe", "bate", "chij", "chix", "ifeu", "sbij", "xhkf", "xose", "xsfe", "xsim"];
    assert_eq!(without, expected);
    assert_eq!(known.difference(&venues).count(), 0, "{known:?}");
}

#[test]
fn summer_time_moves_the_hours() {
    let xnys = built_in("xnys");
    // The Friday before the clock goes forward, and the Monday after.
    assert_at(xnys, "2025-03-07T14:29:59.999999999Z", Closed, "2025-03-07T14:30:00Z");
    assert_at(xnys, "2025-03-07T14:30:00Z", Open, "2025-03-07T21:00:00Z");
    assert_at(xnys, "2025-03-07T21:00:00Z", Closed, "2025-03-10T13:30:00Z");
    assert_at(xnys, "2025-03-10T13:30:00Z", Open, "2025-03-10T20:00:00Z");
    // And back, a week after Europe.
    assert_at(xnys, "2025-10-31T20:00:00Z", Closed, "2025-11-03T14:30:00Z");
    let xlon = built_in("xlon");
    assert_at(xlon, "2025-10-24T07:00:00Z", Open, "2025-10-24T15:30:00Z");
    assert_at(xlon, "2025-10-24T15:30:00Z", Closed, "2025-10-27T08:00:00Z");
    // South of the equator it is the other way round.
    assert_at(built_in("xasx"), "2025-04-07T00:00:00Z", Open, "2025-04-07T06:00:00Z");
    assert_at(built_in("xasx"), "2025-04-04T00:00:00Z", Open, "2025-04-04T05:00:00Z");
}

#[test]
fn half_days_and_moved_closes_are_known() {
    let xnys = built_in("xnys");
    assert_at(xnys, "2025-11-28T17:59:59.999999999Z", Open, "2025-11-28T18:00:00Z");
    assert_at(xnys, "2025-11-28T18:00:00Z", Closed, "2025-12-01T14:30:00Z");
    // A holiday before it.
    assert_at(xnys, "2025-11-26T21:00:00Z", Closed, "2025-11-28T14:30:00Z");
    let xlon = built_in("xlon");
    assert_at(xlon, "2025-12-24T12:00:00Z", Open, "2025-12-24T12:30:00Z");
    assert_at(xlon, "2025-12-24T12:30:00Z", Closed, "2025-12-29T08:00:00Z");
    let xtks = built_in("xtks");
    assert_at(xtks, "2024-11-01T05:59:59Z", Open, "2024-11-01T06:00:00Z");
    assert_at(xtks, "2024-11-01T06:00:00Z", Closed, "2024-11-05T00:00:00Z");
    assert_at(xtks, "2024-11-05T06:29:59Z", Open, "2024-11-05T06:30:00Z");
    // A half day ends where its break would begin.
    assert_at(built_in("xhkg"), "2025-12-24T03:00:00Z", Open, "2025-12-24T04:00:00Z");
    assert_at(built_in("xhkg"), "2025-12-24T04:30:00Z", Closed, "2025-12-29T01:30:00Z");
}

#[test]
fn lunch_is_a_phase_of_its_own_and_part_of_the_session() {
    let xtks = built_in("xtks");
    assert_at(xtks, "2025-11-28T02:00:00Z", Open, "2025-11-28T02:30:00Z");
    assert_at(xtks, "2025-11-28T02:30:00Z", Break, "2025-11-28T03:30:00Z");
    assert_at(xtks, "2025-11-28T03:30:00Z", Open, "2025-11-28T06:30:00Z");
    for instant in ["2025-11-28T00:00:00Z", "2025-11-28T02:30:00Z", "2025-11-28T06:29:59Z"] {
        let session = xtks.session_at(ns(instant));
        let expected = Span { phase: Open, until_ns: Some(ns("2025-11-28T06:30:00Z")) };
        assert_eq!(session, expected, "{instant}");
    }
    assert_eq!(xtks.session_at(ns("2025-11-28T06:30:00Z")).phase, Closed);
}

#[test]
fn a_session_may_open_the_evening_before_and_touch_the_next() {
    let xcme = built_in("xcme");
    // Sunday evening to Friday: every close is the next session's open.
    assert_at(xcme, "2025-11-16T22:59:59Z", Closed, "2025-11-16T23:00:00Z");
    assert_at(xcme, "2025-11-16T23:00:00Z", Open, "2025-11-21T23:00:00Z");
    assert_at(xcme, "2025-11-19T23:00:00Z", Open, "2025-11-21T23:00:00Z");
    // Early close, and open again the same evening.
    assert_at(xcme, "2025-11-27T17:59:59Z", Open, "2025-11-27T18:00:00Z");
    assert_at(xcme, "2025-11-27T18:00:00Z", Closed, "2025-11-27T23:00:00Z");
    // What opens on the last evening belongs to a day that is not covered.
    let (_, end_ns) = xcme.known_ns();
    assert_eq!(utc(end_ns), "2027-11-29T23:00:00Z");
    assert_eq!(xcme.at(end_ns - 1).phase, Open);
}

#[test]
fn outside_of_what_is_covered_nothing_is_known() {
    let xnys = built_in("xnys");
    assert_at(xnys, "1970-01-01T00:00:00Z", Unknown, "2024-01-01T05:00:00Z");
    assert_at(xnys, "2024-01-01T04:59:59.999999999Z", Unknown, "2024-01-01T05:00:00Z");
    assert_at(xnys, "2024-01-01T05:00:00Z", Closed, "2024-01-02T14:30:00Z");
    assert_at(xnys, "2027-11-29T21:00:00Z", Closed, "2027-11-30T05:00:00Z");
    assert_at(xnys, "2027-11-30T05:00:00Z", Unknown, "never");
    assert_eq!(xnys.at(u64::MAX), Span { phase: Unknown, until_ns: None });
    assert_at(built_in("xses"), "2026-12-31T16:00:00Z", Unknown, "never");
}

const ALWAYS: &str = "[[calendar]]\nvenues = [\"xlab\"]\ntime_zone = \"UTC\"\nfirst = \"2024-01-01\"\n\
    last = \"2026-12-31\"\nhours = [{ open = \"00:00\", close = \"24:00\" }]\n\
    weekdays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\n";

#[test]
fn a_sites_file_adds_and_replaces() {
    let own = with(ALWAYS).unwrap();
    let xlab = own.get("xlab").unwrap();
    assert_at(xlab, "2024-01-01T00:00:00Z", Open, "2027-01-01T00:00:00Z");
    assert_at(own.get("xnys").unwrap(), "2025-11-28T15:00:00Z", Open, "2025-11-28T18:00:00Z");

    // All of another's, and a holiday, a session, a late open and a half day more.
    let text = "[[calendar]]\nvenues = [\"xnys\", \"ifeu\"]\nlike = \"xnys\"\n\
        holidays = [\"2026-12-01\"]\nsessions = [\"2026-11-26\", \"2026-12-05\"]\n\
        opens.\"11:00\" = [\"2026-12-05\"]\ncloses.\"14:00\" = [\"2026-12-02\", \"2026-12-05\"]\n";
    let own = with(text).unwrap();
    for venue in ["xnys", "ifeu"] {
        let calendar = own.get(venue).unwrap();
        assert_at(calendar, "2026-11-30T21:00:00Z", Closed, "2026-12-02T14:30:00Z");
        assert_at(calendar, "2026-12-02T14:30:00Z", Open, "2026-12-02T19:00:00Z");
        assert_at(calendar, "2026-12-04T21:00:00Z", Closed, "2026-12-05T16:00:00Z");
        assert_at(calendar, "2026-12-05T16:00:00Z", Open, "2026-12-05T19:00:00Z");
        assert_at(calendar, "2026-11-26T15:00:00Z", Open, "2026-11-26T21:00:00Z");
    }
    // Others that shared it keep theirs.
    let expected = at(built_in("xnas"), "2026-12-01T15:00:00Z");
    assert_eq!(at(own.get("xnas").unwrap(), "2026-12-01T15:00:00Z"), expected);
    // Like one of the same file; fewer days than it.
    let text = format!(
        "{ALWAYS}[[calendar]]\nvenues = [\"xlac\"]\nlike = \"xlab\"\nfirst = \"2025-06-01\"\nweekdays = []\n"
    );
    let own = with(&text).unwrap();
    assert_at(own.get("xlac").unwrap(), "2025-06-01T00:00:00Z", Closed, "2027-01-01T00:00:00Z");
}

#[test]
fn the_example_of_the_readme_is_read() {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```toml\n").filter_map(|rest| rest.split("```").next());
    let own = with(blocks.find(|block| block.contains("[[calendar]]")).unwrap()).unwrap();
    let ifeu = own.get("ifeu").unwrap();
    assert_at(ifeu, "2026-12-24T23:00:00Z", Closed, "2026-12-28T01:00:00Z");
    assert_at(ifeu, "2026-06-01T11:00:00Z", Break, "2026-06-01T11:30:00Z");
    assert_at(own.get("xase").unwrap(), "2026-12-05T16:00:00Z", Open, "2026-12-05T18:00:00Z");
}

#[test]
fn what_is_wrong_with_a_section_is_said_by_path() {
    let changed = |from: &str, to: &str| {
        assert!(ALWAYS.contains(from), "{from}");
        ALWAYS.replace(from, to)
    };
    let more = |line: &str| format!("{ALWAYS}{line}\n");
    for (text, message) in [
        (more("colour = 1"), "colour"),
        (changed("open =", "opens ="), "opens"),
        (changed("\"xlab\"", ""), "calendar[0].venues: a calendar needs a venue"),
        (changed("xlab", "XLAB"), "calendar[0].venues[0]: \"XLAB\" is no market identifier"),
        (format!("{ALWAYS}{ALWAYS}"), "calendar[1].venues[0]: xlab has a calendar in this file"),
        (more("like = \"nope\""), "calendar[0].like: nope has no calendar"),
        (changed("\"UTC\"", "\"Mars/Base\""), "calendar[0].time_zone: \"Mars/Base\" is no IANA"),
        (changed("time_zone = \"UTC\"\n", ""), "calendar[0].time_zone: it is missing"),
        (changed("first = \"2024-01-01\"\n", ""), "calendar[0].first: it is missing"),
        (changed("2024-01-01", "2024-02-30"), "calendar[0].first: \"2024-02-30\" is no day"),
        (changed("2024-01-01", "1970-01-01"), "calendar[0].first: 1970-01-01 is not in 1971-"),
        (changed("2026-12-31", "2023-12-31"), "calendar[0].last: 2023-12-31 is before 2024-01-01"),
        (changed("\"sun\"", "\"Sun\""), "calendar[0].weekdays[6]: \"Sun\" is none of mon"),
        (
            changed("hours = [{ open = \"00:00\", close = \"24:00\" }]\n", ""),
            "calendar[0].hours: it is",
        ),
        (changed("00:00", "0:00"), "calendar[0].hours[0].open: \"0:00\" is no time"),
        (changed("24:00", "24:01"), "calendar[0].hours[0].close: \"24:01\" is no time"),
        (
            changed("24:00", "00:00"),
            "calendar[0].hours[0].close: from 00:00 to 00:00 is no session",
        ),
        (
            changed("close =", "day_before = true, close ="),
            "hours[0].close: from 00:00 to 24:00 is no",
        ),
        (
            changed("}]", "}, { open = \"01:00\", close = \"02:00\" }]"),
            "calendar[0].hours[1].from: it is missing",
        ),
        (
            changed("}]", "}, { from = \"2024-01-01\", open = \"01:00\", close = \"02:00\" }]"),
            "calendar[0].hours[1].from: 2024-01-01 is not after the one before",
        ),
        (
            changed("{ open", "{ from = \"2024-01-02\", open"),
            "calendar[0].hours[0].from: nothing is said of 2024-01-01 to then",
        ),
        (
            changed("\"24:00\" }", "\"24:00\", break = [\"13:00\", \"12:00\"] }"),
            "calendar[0].hours[0].break: it is not within",
        ),
        (more("holidays = [\"2027-01-01\"]"), "calendar[0].holidays[0]: 2027-01-01 is not in 2024"),
        (
            more("holidays = [\"2025-01-01\"]\nsessions = [\"2025-01-01\"]"),
            "calendar[0].sessions[0]: 2025-01-01 is a holiday too",
        ),
        (
            more("holidays = [\"2025-01-01\"]\ncloses.\"13:00\" = [\"2025-01-01\"]"),
            "calendar[0].closes.\"13:00\"[0]: 2025-01-01 is no session",
        ),
        (
            more("closes.\"1300\" = [\"2025-01-01\"]"),
            "calendar[0].closes.\"1300\": \"1300\" is no time",
        ),
        (
            more("closes.\"13:00\" = [\"2025-01-01\"]\ncloses.\"14:00\" = [\"2025-01-01\"]"),
            "calendar[0].closes.\"14:00\"[0]: 2025-01-01 stands at another time too",
        ),
        (
            more("closes.\"13:00\" = [\"2025-01-01\"]\nopens.\"13:00\" = [\"2025-01-01\"]"),
            "2025-01-01 would close before it opens",
        ),
        (
            "[[calendar]]\nvenues = [\"xnys\"]\nlike = \"xnys\"\n\
             hours = [{ open = \"14:00\", close = \"20:00\" }]\n"
                .into(),
            "calendar[0].hours: 2024-07-03 would close before it opens",
        ),
    ] {
        let error = with(&text).unwrap_err();
        assert!(error.contains(message) && error.starts_with("own.toml"), "{text}: {error}");
    }
}

#[test]
fn every_session_is_that_of_another_source() {
    let Some(data) = std::env::var_os("NAUTILUS_DATA").map(PathBuf::from) else {
        println!("skipped: NAUTILUS_DATA is not set");
        return;
    };
    let Ok(files) = std::fs::read_dir(data.join("calendars")) else {
        println!("skipped: there is no {}", data.join("calendars").display());
        return;
    };
    let files = files.map(|file| file.unwrap().path());
    let files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "csv")).collect();
    assert!(!files.is_empty(), "no calendar in {}", data.display());
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let venue = name.split('_').next().unwrap().to_lowercase();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut edges: Vec<(u64, Phase)> = Vec::new();
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let phases = [Open, Break, Open, Closed].into_iter().zip(&cells[1..]);
            for (phase, cell) in phases.filter(|(_, cell)| !cell.is_empty()) {
                // A session that opens as another closes.
                edges.retain(|(at_ns, _)| *at_ns != ns(cell));
                edges.push((ns(cell), phase));
            }
        }
        let calendar = built_in(&venue);
        for (index, pair) in edges.windows(2).enumerate() {
            let [(from_ns, phase), (until_ns, next)] = [pair[0], pair[1]];
            if phase == next {
                continue;
            }
            let at = |at_ns| calendar.at(at_ns);
            // From the last time that it became what it is.
            let begun = edges[..index].iter().rposition(|(_, before)| *before != phase);
            let from_ns = begun.map_or(from_ns, |place| edges[place + 1].0);
            let expected = Span { phase, until_ns: Some(until_ns) };
            let minutes = (0..10).map(|minute| until_ns - minute * 60 * S);
            let instants = minutes.filter(|at_ns| *at_ns > from_ns).map(|at_ns| at_ns - 1);
            for at_ns in instants.chain([from_ns, (from_ns + until_ns) / 2]) {
                assert_eq!(at(at_ns), expected, "{venue} {}", utc(at_ns));
            }
            for minute in 0..10 {
                let at_ns = until_ns + minute * 60 * S;
                assert_eq!(at(at_ns).phase, next, "{venue} {}", utc(at_ns));
            }
        }
        println!("{venue}: {} sessions", text.lines().count() - 1);
    }
}

/// Sections with all that a calendar may have, more of it than any venue.
fn any_calendar() -> impl Strategy<Value = String> {
    let zones = prop::sample::select(vec!["America/New_York", "Australia/Sydney", "UTC"]);
    let clock = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let days = prop::collection::btree_set(1_u32..28, 0..6);
    (zones, any::<bool>(), 1_u32..600, 1_u32..600, any::<bool>(), days.clone(), days).prop_map(
        move |(zone, is_before, open, length, has_break, holidays, special)| {
            // The evening before to the day's close, at most a day of it.
            let (open, close) = match is_before {
                true => (1440 - open, length.min(1440 - open)),
                false => (open, open + length),
            };
            let recess = match has_break && !is_before && length > 2 {
                true => format!(", break = [\"{}\", \"{}\"]", clock(open + 1), clock(close - 1)),
                false => String::new(),
            };
            let quoted = |days: &BTreeSet<u32>| {
                let days = days.iter().map(|day| format!("\"2025-03-{day:02}\""));
                days.collect::<Vec<_>>().join(", ")
            };
            let extra: BTreeSet<u32> = special.difference(&holidays).copied().collect();
            format!(
                "[[calendar]]\nvenues = [\"xlab\"]\ntime_zone = \"{zone}\"\nfirst = \"2025-02-20\"\n\
                 last = \"2025-04-10\"\nhours = [{{ open = \"{}\", day_before = {is_before}, \
                 close = \"{}\"{recess} }}]\nholidays = [{}]\nsessions = [{}]\n",
                clock(open),
                clock(close),
                quoted(&holidays),
                quoted(&extra),
            )
        },
    )
}

fn assert_agrees(calendar: &Calendar, at_ns: u64) {
    for look in [Calendar::at, Calendar::session_at] {
        let now = look(calendar, at_ns);
        let Some(until_ns) = now.until_ns else {
            assert_eq!(now.phase, Unknown);
            assert!(at_ns >= calendar.known_ns().1);
            continue;
        };
        assert!(until_ns > at_ns, "{} {now:?}", utc(at_ns));
        assert_eq!(look(calendar, until_ns - 1), now, "{}", utc(at_ns));
        assert_eq!(look(calendar, at_ns + (until_ns - at_ns) / 2), now, "{}", utc(at_ns));
        assert_ne!(look(calendar, until_ns).phase, now.phase, "{}", utc(at_ns));
    }
}

proptest! {
    #[test]
    fn phase_and_end_agree_everywhere(
        venue in prop::sample::select(Catalogue::built_in().calendars().venues().collect::<Vec<_>>()),
        at_ns in ns("2023-12-25T00:00:00Z")..ns("2027-12-05T00:00:00Z"),
    ) {
        assert_agrees(built_in(venue), at_ns);
    }

    #[test]
    fn and_in_whatever_a_site_writes(
        text in any_calendar(),
        at_ns in ns("2025-02-19T00:00:00Z")..ns("2025-04-13T00:00:00Z"),
    ) {
        let own = with(&text).unwrap();
        assert_agrees(own.get("xlab").unwrap(), at_ns);
    }
}
