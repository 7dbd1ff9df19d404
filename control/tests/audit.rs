//! The audit trail against its verifier: what was written is found whole, and whatever is done to it
//! afterwards is found.

use std::path::Path;

use nautilus_control::audit::{
    Actor, AuditError, AuditOptions, Auditor, Entry, Outcome, SigningKey, Trail,
};
use nautilus_control::verifier::{
    self, Expected, Files, Format, Window, archive, export, hash_of, keys_in, load, verify,
};

fn options(folder: &Path) -> AuditOptions {
    AuditOptions::of(folder.join("audit"))
}

fn entry(object: &str) -> Entry {
    Entry {
        actor: Actor { kind: "local", name: "uid 7".into(), ..Actor::default() },
        verb: "PUT".into(),
        object: object.into(),
        outcome: Outcome::Done,
        request_id: String::new(),
        reason: String::new(),
    }
}

fn expected(options: &AuditOptions) -> Expected {
    let keys = keys_in(&options.key.with_added_extension("pub")).unwrap();
    Expected { keys, head: None }
}

/// A trail of two files whose last record is a signature, and what is expected of it.
fn small_trail(folder: &Path) -> (Files, Expected) {
    let options = AuditOptions { rotate_bytes: 1200, ..options(folder) };
    let mut trail = Trail::open(options.clone()).unwrap();
    trail.append(&[entry("a"), entry("b")]).unwrap();
    trail.append(&[entry("c"), entry("d")]).unwrap();
    let head = trail.checkpoint().unwrap();
    let files = load(&options.dir).unwrap();
    assert_eq!(files.len(), 2);
    (files, Expected { head: Some((head.sequence, head.hash)), ..expected(&options) })
}

/// Places where a line of a file begins, and the file's end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

#[test]
fn each_flipped_bit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (files, mut expected) = small_trail(folder.path());
    verify(&files, &expected).unwrap();
    // Even without a word from elsewhere.
    expected.head = None;
    verify(&files, &expected).unwrap();
    let mut flipped = files.clone();
    let mut count = 0;
    for (file, (name, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                flipped[file].1[at] ^= 1 << bit;
                assert!(verify(&flipped, &expected).is_err(), "{name} byte {at} bit {bit}");
                flipped[file].1[at] ^= 1 << bit;
                count += 1;
            }
        }
    }
    assert!(count > 20_000, "{count}");
}

#[test]
fn each_cut_is_found_and_what_only_a_known_head_shows_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let (files, with_head) = small_trail(folder.path());
    let alone = Expected { head: None, ..with_head.clone() };
    let mut unseen = Vec::new();
    for (file, (_, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            // The end of one file is gone, and then that of the whole trail.
            let mut one = files.clone();
            one[file].1.truncate(at);
            let mut rest = one.clone();
            rest.truncate(file + usize::from(at > 0));
            for cut in [&one, &rest] {
                assert!(verify(cut, &with_head).is_err(), "file {file} byte {at}");
            }
            if let Ok(report) = verify(&rest, &alone) {
                unseen.push((file, at, report.last));
            }
        }
    }
    // Cut between two records, from the first signature on: such a trail was whole once.
    let mut boundaries = Vec::new();
    let mut sequence = 0;
    for (file, (_, bytes)) in files.iter().enumerate() {
        for at in ends(bytes).into_iter().skip(1) {
            sequence += 1;
            boundaries.push((file, at, sequence));
        }
    }
    // Records 1 and 2 say which trail this is; 3 is the signature of every start. The end of a file is
    // met again as the beginning of the next.
    boundaries.retain(|(file, at, sequence)| *sequence >= 3 && *at < files[*file].1.len());
    let first_end = files[0].1.len();
    let last_of_first = ends(&files[0].1).len() as u64 - 1;
    assert!(verify(&files[..1].to_vec(), &alone).is_ok_and(|report| report.last == last_of_first));
    assert!(verify(&files[..1].to_vec(), &with_head).is_err());
    unseen.retain(|(file, at, _)| ![(0, first_end), (1, 0)].contains(&(*file, *at)));
    assert_eq!(unseen, boundaries);
}

#[test]
fn each_reorder_drop_and_removed_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (files, expected) = small_trail(folder.path());
    let alone = Expected { head: None, ..expected.clone() };
    let lines: Vec<(usize, Vec<u8>)> = files
        .iter()
        .enumerate()
        .flat_map(|(file, (_, bytes))| {
            bytes.split_inclusive(|byte| *byte == b'\n').map(move |line| (file, line.to_vec()))
        })
        .collect();
    let together = |lines: &[(usize, Vec<u8>)]| -> Files {
        let mut made: Files = files.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
        lines.iter().for_each(|(file, line)| made[*file].1.extend_from_slice(line));
        made
    };
    assert_eq!(together(&lines), files);
    for first in 0..lines.len() {
        for second in first + 1..lines.len() {
            let mut swapped = lines.clone();
            (swapped[first].1, swapped[second].1) =
                (lines[second].1.clone(), lines[first].1.clone());
            assert!(verify(&together(&swapped), &alone).is_err(), "{first} <-> {second}");
        }
        let mut fewer = lines.clone();
        fewer.remove(first);
        assert!(verify(&together(&fewer), &expected).is_err(), "{first} dropped");
        let mut more = lines.clone();
        more.insert(first, lines[first].clone());
        assert!(verify(&together(&more), &expected).is_err(), "{first} doubled");
    }
    for file in 0..files.len() {
        let mut fewer = files.clone();
        fewer.remove(file);
        assert!(verify(&fewer, &expected).is_err(), "file {file} removed");
    }
    let exchanged =
        vec![(files[0].0.clone(), files[1].1.clone()), (files[1].0.clone(), files[0].1.clone())];
    assert!(verify(&exchanged, &expected).is_err());
}

#[test]
fn a_trail_made_up_with_another_key_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (_, ours) = small_trail(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (made_up, _) = small_trail(elsewhere.path());
    let fault = verify(&made_up, &Expected { head: None, ..ours }).unwrap_err();
    assert!(fault.what.contains("key that is not among those given"), "{fault}");
}

/// The trail as somebody makes it who may write here and has no key: one text exchanged, and all hashes
/// behind it made anew.
fn forged(files: &Files, from: &str, to: &str) -> Files {
    let hash_of = |previous: &[u8; 32], json: &str| -> [u8; 32] {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(previous);
        context.update(json.as_bytes());
        context.finish().as_ref().try_into().unwrap()
    };
    let (mut was, mut is) = ([0; 32], [0; 32]);
    let mut made = Files::new();
    for (name, bytes) in files {
        let mut text = String::new();
        for line in std::str::from_utf8(bytes).unwrap().lines() {
            let json = line[65..].replace(from, to);
            let json = json.replace(&verifier::hash_text(&was), &verifier::hash_text(&is));
            was = verifier::hash_of(&line[..64]).unwrap();
            is = hash_of(&is, &json);
            text += &format!("{} {json}\n", verifier::hash_text(&is));
        }
        made.push((name.clone(), text.into_bytes()));
    }
    made
}

#[test]
fn right_hashes_without_the_key_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (files, expected) = small_trail(folder.path());
    let alone = Expected { head: None, ..expected };
    assert_eq!(forged(&files, "there is no such text", ""), files);
    let fault =
        verify(&forged(&files, "\"object\":\"a\"", "\"object\":\"z\""), &alone).unwrap_err();
    assert!(fault.what.contains("the signature of record"), "{fault}");
    assert!(fault.after >= 5, "{fault}: the hashes held up to there");
}

#[test]
fn a_signature_is_good_for_the_record_that_it_was_made_over() {
    let folder = tempfile::tempdir().unwrap();
    let (files, expected) = small_trail(folder.path());
    let alone = Expected { head: None, ..expected.clone() };
    let mut made = forged(&files, "\"object\":\"a\"", "\"object\":\"z\"");
    // The signatures as they were, over heads as they were.
    for (file, (_, bytes)) in made.iter_mut().enumerate() {
        let (mut text, mut was) = (String::new(), [0; 32]);
        let before = std::str::from_utf8(&files[file].1).unwrap();
        for (old, line) in before.lines().zip(std::str::from_utf8(bytes).unwrap().lines()) {
            let is_signature = old.contains("\"kind\":\"checkpoint\"");
            let json = if is_signature { &old[65..] } else { &line[65..] };
            if text.is_empty() {
                let previous = json.split("\"previous\":\"").nth(1).unwrap();
                was = hash_of(&previous[..64]).unwrap();
            }
            let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
            context.update(&was);
            context.update(json.as_bytes());
            was = context.finish().as_ref().try_into().unwrap();
            text += &format!("{} {json}\n", verifier::hash_text(&was));
        }
        *bytes = text.into_bytes();
    }
    let fault = verify(&made, &alone).unwrap_err();
    assert!(fault.what.contains("a signature over another record"), "{fault}");
    // Nor is a head one by its number alone.
    let (number, _) = expected.head.unwrap();
    let other = Expected { head: Some((number, [7; 32])), ..expected };
    assert!(verify(&files, &other).unwrap_err().what.contains("its end was cut"));
}

#[test]
fn a_torn_write_is_cut_recorded_and_written_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = small_trail(folder.path());
    let options = options(folder.path());
    let (name, bytes) = files.last().unwrap();
    let whole = ends(bytes);
    for at in 0..bytes.len() {
        std::fs::remove_dir_all(&options.dir).unwrap();
        std::fs::create_dir(&options.dir).unwrap();
        std::fs::write(options.dir.join(&files[0].0), &files[0].1).unwrap();
        std::fs::write(options.dir.join(name), &bytes[..at]).unwrap();
        let mut trail = Trail::open(options.clone()).unwrap();
        trail.append(&[entry("after")]).unwrap();
        let report = verify(&load(&options.dir).unwrap(), &expected(&options)).unwrap();
        let repaired = report.notes.iter().any(|note| note.contains("a torn write was cut"));
        assert_eq!(repaired, !whole.contains(&at), "{at}: {:?}", report.notes);
    }
}

#[test]
fn what_is_no_crash_is_not_written_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = small_trail(folder.path());
    let options = options(folder.path());
    let (name, bytes) = files.last().unwrap();
    let path = options.dir.join(name);
    // The last is no digit of a hash, so that its line is none any more.
    for (at, bit) in [(70, 1), (bytes.len() / 2, 1), (10, 64)] {
        let mut altered = bytes.clone();
        altered[at] ^= bit;
        std::fs::write(&path, &altered).unwrap();
        let error = Trail::open(options.clone()).err().unwrap();
        assert!(matches!(error, AuditError::Altered { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), altered);
    }
}

#[test]
fn only_what_was_exported_goes_and_that_it_went_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let options = AuditOptions { rotate_bytes: 1000, keep_files: 4, ..options(folder.path()) };
    let mut trail = Trail::open(options.clone()).unwrap();
    let expected = expected(&options);
    for _ in 0..12 {
        trail.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
    }
    let before = load(&options.dir).unwrap();
    assert!(before.len() > 5, "nothing was exported, so nothing went: {}", before.len());
    // A receipt of something else lets nothing go.
    let receipt = options.dir.join(format!("{}.exported", before[0].0));
    std::fs::write(&receipt, verifier::hash_text(&[7; 32])).unwrap();
    for _ in 0..3 {
        trail.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
    }
    std::fs::remove_file(&receipt).unwrap();
    let before = load(&options.dir).unwrap();
    assert_eq!(verify(&before, &expected).unwrap().first, 1);
    let store = tempfile::tempdir().unwrap();
    let copied = archive(&before, &expected, &options.dir, store.path()).unwrap();
    assert_eq!(copied.len(), before.len() - 1);
    while load(&options.dir).unwrap().last() == before.last() {
        trail.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
    }
    let after = load(&options.dir).unwrap();
    assert_eq!(after.len(), options.keep_files, "not one more goes");
    let report = verify(&after, &expected).unwrap();
    assert!(report.first > 1 && after.len() < before.len(), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("were exported and removed")));
    // What went and what stayed are one trail still.
    let mut joined = load(store.path()).unwrap();
    joined.retain(|(name, _)| !after.iter().any(|(other, _)| other == name));
    joined.extend(after.clone());
    assert_eq!(verify(&joined, &expected).unwrap().first, 1);
    // One more that goes without a record.
    assert!(verify(&after[1..].to_vec(), &expected).is_err());
}

/// Names the folder of the trail to the process of the test below.
const TRAIL: &str = "NAUTILUS_TEST_TRAIL";

#[test]
#[ignore = "is started by the test below"]
fn a_writer_without_room_for_the_record_of_what_goes() {
    let Ok(folder) = std::env::var(TRAIL) else { return };
    let options = AuditOptions {
        rotate_bytes: 1000,
        keep_files: 1,
        checkpoint_records: 1,
        ..options(Path::new(&folder))
    };
    let mut trail = Trail::open(options.clone()).unwrap();
    let full = load(&options.dir).unwrap().len();
    while load(&options.dir).unwrap().len() < full + 3 {
        trail.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
    }
    while std::fs::metadata(options.dir.join(&load(&options.dir).unwrap().last().unwrap().0))
        .is_ok_and(|file| file.len() <= options.rotate_bytes)
    {
        trail.append(&[entry("a"), entry("b"), entry("c")]).unwrap();
    }
    let files = load(&options.dir).unwrap();
    archive(&files, &expected(&options), &options.dir, Path::new(&folder)).unwrap();
    // Of the next file the first record has room, and the one about the file that goes has not.
    let first = files[0].1.iter().position(|byte| *byte == b'\n').unwrap() as u64 + 1;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_FSIZE,
        first + 99,
        first + 99,
    )
    .unwrap();
    let error = trail.append(&[entry("d")]).unwrap_err();
    println!("WROTE {error}");
}

#[test]
fn no_file_goes_before_that_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["a_writer_without_room_for_the_record_of_what_goes", "--exact", "--ignored"])
        .arg("--nocapture")
        .env(TRAIL, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("File too large"), "{said}");
    let options = options(folder.path());
    let files = load(&options.dir).unwrap();
    assert_eq!(verify(&files, &expected(&options)).unwrap().first, 1, "all are there still");
}

#[test]
fn many_share_a_flush_and_each_finds_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let auditor = Auditor::open(options.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let auditor = auditor.clone();
            scope.spawn(move || {
                for number in 0..20 {
                    let object = format!("/{thread}/{number}");
                    let head = auditor.record_blocking(entry(&object)).unwrap();
                    assert!(head.sequence > 3);
                }
            });
        }
    });
    assert!(matches!(Trail::open(options.clone()), Err(AuditError::Busy(_))));
    drop(auditor);
    let files = load(&options.dir).unwrap();
    let report = verify(&files, &expected(&options)).unwrap();
    assert_eq!(report.signed, report.last, "the end is signed");
    let mut out = Vec::new();
    let all = Window::default();
    let count = export(&files, &expected(&options), &all, Format::Json, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(count, report.last);
    for thread in 0..16 {
        assert_eq!(text.matches(&format!("\"object\":\"/{thread}/")).count(), 20);
    }
}

#[test]
fn exports_choose_by_time_and_hold_no_formula() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let mut trail = Trail::open(options.clone()).unwrap();
    trail.append(&[entry("=cmd|' /C calc'!A0"), entry("say \"hello\",\nworld")]).unwrap();
    let (files, expected) = (load(&options.dir).unwrap(), expected(&options));
    let rows = |since, until| {
        let mut out = Vec::new();
        let window = Window::new(since, until).unwrap();
        export(&files, &expected, &window, Format::Csv, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = rows(Some("1999"), None);
    assert!(text.contains(",\"'=cmd|' /C calc'!A0\","), "{text}");
    assert!(text.contains(",\"say \"\"hello\"\",\nworld\","), "{text}");
    assert_eq!(rows(Some("9999-01-01T00:00:00Z"), None).lines().count(), 1);
    assert_eq!(rows(None, Some("1999-12-31")).lines().count(), 1);
    // What begins with the time itself, the first is inside and the second is not.
    let time = text.lines().nth(1).unwrap().split("\",\"").nth(1).unwrap();
    let (from, before) = (rows(Some(time), None), rows(None, Some(time)));
    assert!(from.contains(time) && !before.contains(time), "{from}\n{before}");
    for wrong in ["yesterday", "2026-1-1", "20", "2026-11-29 10:00"] {
        assert!(Window::new(Some(wrong), None).is_err(), "{wrong}");
    }
}

#[test]
fn a_new_key_begins_a_new_file_and_both_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let old = options(folder.path());
    Trail::open(old.clone()).unwrap().append(&[entry("a")]).unwrap();
    let new = AuditOptions { key: folder.path().join("second.key"), ..old.clone() };
    let public = SigningKey::load_or_make(&new.key).unwrap().public().to_owned();
    Trail::open(new.clone()).unwrap().append(&[entry("b")]).unwrap();
    let files = load(&old.dir).unwrap();
    assert_eq!(files.len(), 2);
    assert!(verify(&files, &expected(&old)).is_err() && verify(&files, &expected(&new)).is_err());
    let keys = [expected(&old).keys, vec![hash_of(&public).unwrap()]].concat();
    verify(&files, &Expected { keys, head: None }).unwrap();
}

#[test]
fn the_verifier_has_no_line_of_the_writer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = vec![root.join("bin/nautilus-audit.rs")];
    let folder = std::fs::read_dir(root.join("verifier")).unwrap();
    sources.extend(folder.map(|entry| entry.unwrap().path()));
    assert!(sources.len() > 4);
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        for path_of_writer in ["crate::", "audit::", "control::audit"] {
            assert!(!text.contains(path_of_writer), "{} in {}", path_of_writer, path.display());
        }
    }
}

#[test]
fn the_command_says_what_it_found_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = small_trail(folder.path());
    let options = options(folder.path());
    let public = options.key.with_added_extension("pub");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_nautilus-audit"))
            .args(arguments)
            .arg(&options.dir)
            .arg("--key")
            .arg(&public)
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.into_owned())
    };
    let (code, text) = run(&["verify"]);
    assert_eq!(code, Some(0), "{text}");
    let head = text.lines().find_map(|line| line.strip_prefix("head    ")).unwrap().to_owned();
    assert_eq!(run(&["verify", "--expect-head", &head]).0, Some(0));
    assert_eq!(run(&["verify", "--expect-head", "x"]).0, Some(2));
    let (code, text) = run(&["export", "--format", "csv"]);
    assert!(code == Some(0) && text.starts_with("sequence,time,kind,actor,"), "{text}");
    let (name, bytes) = files.last().unwrap();
    let boundary = ends(bytes)[ends(bytes).len() - 2];
    std::fs::write(options.dir.join(name), &bytes[..boundary]).unwrap();
    assert_eq!(run(&["verify"]).0, Some(0), "cut at a record: nothing here shows it");
    let (code, text) = run(&["verify", "--expect-head", &head]);
    assert!(code == Some(1) && text.contains("its end was cut"), "{text}");
    std::fs::remove_file(options.dir.join(&files[0].0)).unwrap();
    assert_eq!(run(&["verify"]).0, Some(1));
    assert!(verifier::load(Path::new("/nonexistent")).is_err());
}
