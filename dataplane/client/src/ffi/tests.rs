//! The ABI without a node: what is null, what panics, what the header says.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::process::Command;

use super::*;
use crate::reader::{VERSION_MISS, VERSION_SUSPECT};

#[test]
fn a_panic_becomes_a_status() {
    assert_eq!(guarded(|| panic!("on purpose")), Status::Internal as i32);
    assert_eq!(guarded(|| Status::Miss), 1);
}

#[test]
fn null_is_a_bad_argument_and_never_followed() {
    let bad = Status::BadArgument as i32;
    let mut text = [b'x'; 8];
    // SAFETY: null everywhere but for a buffer of its own length.
    unsafe {
        let null = std::ptr::null_mut::<c_void>();
        let (error, length) = (text.as_mut_ptr().cast(), text.len());
        assert_eq!(nautilus_attach(null.cast(), null.cast(), 0, null.cast(), error, length), bad);
        assert_eq!(nautilus_clone(null.cast(), null.cast()), bad);
        assert_eq!(nautilus_get(null.cast(), null, 0, null, 0, null.cast()), bad);
        assert_eq!(nautilus_get_many(null.cast(), null.cast(), 3), bad);
        assert_eq!(nautilus_wait_for_change(null.cast(), null, 0, 0, 0, null, 0, null.cast()), bad);
        assert_eq!(nautilus_reattach(null.cast(), null.cast(), 0), bad);
        assert_eq!(nautilus_heartbeat_age_ns(null.cast()), u64::MAX);
        nautilus_close(null.cast());
    }
    assert_eq!(&text, b"a null \0", "cut, and ended");
}

/// What a C compiler makes of the header, line by line: `NAME number`.
fn numbers_of_the_header() -> BTreeMap<String, u64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let program = out.path().join("numbers");
    let compiled = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(folder.join("include"))
        .arg(folder.join("tests/c/numbers.c"))
        .arg("-o")
        .arg(&program)
        .status()
        .unwrap();
    assert!(compiled.success(), "the header does not compile");
    let printed = Command::new(&program).output().unwrap().stdout;
    let line = |line: &str| {
        let (name, number) = line.split_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    String::from_utf8(printed).unwrap().lines().map(line).collect()
}

#[test]
fn the_header_has_the_same_numbers() {
    let mut ours: BTreeMap<String, u64> = BTreeMap::new();
    for (name, number) in [
        ("ABI_VERSION", u64::from(ABI_VERSION)),
        ("AUTOMATIC", AUTOMATIC.into()),
        ("VERSION_MISS", VERSION_MISS),
        ("VERSION_SUSPECT", VERSION_SUSPECT),
        ("KEY_BYTES_MAX", crate::KEY_BYTES_MAX as u64),
        ("VALUE_BYTES_MAX", crate::VALUE_BYTES_MAX as u64),
    ] {
        ours.insert(name.into(), number);
    }
    for status in Status::ALL {
        let mut name = String::new();
        for letter in format!("{status:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        ours.insert(name, status as u64);
    }
    macro_rules! layout {
        ($name:literal, $type:ty: $($field:ident)*) => {
            ours.insert($name.into(), size_of::<$type>() as u64);
            $(
                let name = format!("{}.{}", $name, stringify!($field));
                ours.insert(name, offset_of!($type, $field) as u64);
            )*
        };
    }
    layout!("value", CValue: version expiry_ns value_bytes flags channel reserved);
    layout!("read", CRead: key key_bytes out out_bytes value status reserved);
    assert_eq!(numbers_of_the_header(), ours);
    // Nothing of the header is left out by the program: its guard is the one line more.
    let header = include_str!("../../include/nautilus.h");
    let defined = header.lines().filter(|line| line.starts_with("#define NAUTILUS_")).count();
    let printed = ours.keys().filter(|name| name.chars().all(|c| c.is_uppercase() || c == '_'));
    assert_eq!(defined, 1 + printed.count());
}

#[test]
fn every_status_has_its_text() {
    for status in Status::ALL {
        // SAFETY: a string of this library, which ends.
        let text = unsafe { CStr::from_ptr(nautilus_status_text(status as i32)) };
        assert_eq!(text, status.text());
    }
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(nautilus_status_text(99)) };
    assert_eq!(text, c"unknown status");
}
