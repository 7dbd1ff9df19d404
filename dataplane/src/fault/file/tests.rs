use proptest::prelude::*;

use super::*;

const LINE: &str = "[[line]]\nto = \"233.54.12.111:26477\"\n";

fn message(text: &str) -> String {
    FaultFile::parse(text, "f.toml").expect_err(text).to_string()
}

#[test]
fn every_bad_value_names_file_line_and_key() {
    let twice = format!("{LINE}{LINE}");
    let named = "[[line]]\nname = \"A\"\nto = \"10.0.0.1:1\"\n[[line]]\nname = \"A\"\nto = \"10.0.0.1:2\"\n";
    let line = |rest: &str| format!("{LINE}{rest}\n");
    for (text, expected) in [
        ("seed = 1\n".to_owned(), "f.toml:1: line: 0 lines, not 1..=64"),
        ("line = []\n".to_owned(), "f.toml:1: line: 0 lines, not 1..=64"),
        (format!("hold_packets = 0\n{LINE}"), "f.toml:1: hold_packets: 0 is not 1..=65536"),
        (format!("sede = 1\n{LINE}"), "f.toml:1: sede: unknown field `sede`"),
        (line("los_ppm = 1"), "f.toml:3: line[0].los_ppm: unknown field `los_ppm`"),
        (line("loss_ppm = 1000001"), "f.toml:3: line[0].loss_ppm: 1000001 is not 0..=1000000"),
        (line("corrupt_ppm = -1"), "f.toml:3: line[0].corrupt_ppm: invalid value"),
        (line("reorder_distance = 0"), "f.toml:3: line[0].reorder_distance: 0 is not 1..=1000"),
        (line("delay_us = 10000001"), "f.toml:3: line[0].delay_us: 10000001 is not 0..=10000000"),
        (line("jitter_shape = \"normal\""), "f.toml:3: line[0].jitter_shape: unknown variant"),
        (line("corrupt_checksum = 0"), "f.toml:3: line[0].corrupt_checksum: "),
        (line("way = \"up\""), "f.toml:3: line[0].way: unknown variant `up`"),
        (line("name = \"\""), "f.toml:3: line[0].name: is empty"),
        (
            line("begin_after_packets = 5\nend_after_packets = 4"),
            "f.toml:4: line[0].end_after_packets: is less than begin_after_packets",
        ),
        (
            line("[line.burst]\nenter_ppm = 1\nleave_ppm = 0"),
            "f.toml:5: line[0].burst.leave_ppm: 0 is not 1..=1000000",
        ),
        (line("[line.burst]\nenter_ppm = 1"), "f.toml:3: line[0].burst: missing field `leave_ppm`"),
        ("[[line]]\nto = \"233.54.12.111\"\n".to_owned(), "f.toml:2: line[0].to: invalid socket"),
        (
            "[[line]]\nto = \"233.54.12.111:0\"\n".to_owned(),
            "f.toml:2: line[0].to: 0 is not a port",
        ),
        (twice, "f.toml:4: line[1].to: 233.54.12.111:26477 stands twice"),
        (named.to_owned(), "f.toml:5: line[1].name: \"A\" stands twice"),
        ("[line\n".to_owned(), "f.toml:1: "),
    ] {
        let message = message(&text);
        let same = message.replace("line[0].", "line.");
        let wanted = expected.replace("line[0].", "line.");
        assert!(same.starts_with(&wanted), "{text}\n  gave {message}\n  not  {expected}");
    }
    let many: String =
        (1..=65).map(|port| format!("[[line]]\nto = \"10.0.0.1:{port}\"\n")).collect();
    assert!(message(&many).contains("65 lines"), "{}", message(&many));
}

#[test]
fn the_default_file_is_the_default_but_for_its_loss_and_its_name() {
    let file = FaultFile::parse(DEFAULT_TOML, "faults.default.toml").unwrap();
    let mut expected = FaultFile::parse(LINE, "f.toml").unwrap();
    expected.line[0].loss_ppm = 10_000;
    expected.line[0].name = Some("A".into());
    assert_eq!(file, expected);
    assert!(!file.line[0].holds());
    // What stands there as a comment is accepted too.
    let lines = DEFAULT_TOML.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if key.contains(" = ") && !key.contains(": ") => key,
        Some(section) if section.starts_with("[line.") => section,
        _ => line,
    });
    let whole = FaultFile::parse(&lines.collect::<Vec<_>>().join("\n"), "whole").unwrap();
    let line = &whole.line[0];
    assert_eq!((line.seed, line.end_after_packets), (Some(7), Some(1_000_000)));
    assert_eq!(line.burst, Some(Burst { enter_ppm: 100, leave_ppm: 250_000, loss_ppm: PPM }));
}

#[test]
fn seeds_are_of_the_line_and_not_of_its_place() {
    let other = "[[line]]\nto = \"233.54.12.112:26477\"\n";
    let back = "[[line]]\nto = \"233.54.12.111:26477\"\nname = \"back\"\nway = \"back\"\n";
    let seeds = |text: &str| {
        let file = FaultFile::parse(text, "f.toml").unwrap();
        file.line.iter().map(|line| file.rules(line).seed).collect::<Vec<_>>()
    };
    let (one, two) = (seeds(&format!("{LINE}{other}{back}")), seeds(&format!("{other}{LINE}")));
    assert_eq!((one[0], one[1]), (two[1], two[0]));
    assert!(one[0] != one[1] && one[0] != one[2]);
    assert_ne!(seeds(&format!("seed = 2\n{LINE}")), seeds(LINE));
    let same = seeds(&format!("{LINE}seed = 3\n{other}seed = 3\n"));
    assert_eq!(same[0], same[1]);
}

proptest! {
    /// Whatever the text, it is read or refused with a place; nothing panics.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        if let Err(error) = FaultFile::parse(&text, "f.toml") {
            prop_assert!(error.to_string().starts_with("f.toml:"));
        }
    }

    /// The same for the default file with some of it exchanged.
    #[test]
    fn a_damaged_file_is_read_or_refused(
        at in 0..DEFAULT_TOML.len(),
        length in 0usize..40,
        other in "[a-z0-9_=\\[\\]\". \n-]{0,12}",
    ) {
        let end = (at + length).min(DEFAULT_TOML.len());
        let text = [&DEFAULT_TOML[..at], &other, &DEFAULT_TOML[end..]].concat();
        match FaultFile::parse(&text, "f.toml") {
            Ok(file) => {
                prop_assert!((1..=FAULT_LINES_MAX).contains(&file.line.len()));
                for line in &file.line {
                    let rules = file.rules(line);
                    prop_assert!(rules.loss_ppm <= PPM && rules.corrupt_ppm <= PPM);
                    prop_assert!(line.delay_us <= PAUSE_US_MAX);
                }
            }
            Err(error) => prop_assert!(error.to_string().starts_with("f.toml:")),
        }
    }
}
