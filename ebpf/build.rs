//! Compiles the XDP programs into skeletons, and generates the verdict table from `intf.h`.
//!
//! Sources are named relative to this folder and the build directory is mapped away, so that the
//! objects do not depend on where the checkout is.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-env-changed=CLANG");
    println!("cargo:rerun-if-changed=build.rs");
    // Programs and headers alike.
    println!("cargo:rerun-if-changed=src");
    for program in ["steer", "pass", "fault"] {
        compile(program, &out);
    }
    let header = fs::read_to_string("src/intf.h").expect("src/intf.h is part of the package");
    fs::write(out.join("verdicts.rs"), verdicts(&header)).expect("OUT_DIR is writable");
}

/// `src/NAME.bpf.c` to `OUT_DIR/NAME.skel.rs`, by clang from `$CLANG` or the path.
fn compile(program: &str, out: &Path) {
    let mut arguments: Vec<OsString> =
        ["-mcpu=v3", "-Wall", "-Wextra", "-Werror"].map(OsString::from).into();
    let folder = env::current_dir().expect("cargo runs a build script in its package");
    arguments.push(format!("-ffile-prefix-map={}=.", folder.display()).into());
    // Debian and its kin keep <asm/types.h> here; with -target bpf clang does not look.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = PathBuf::from(format!("/usr/include/{architecture}-linux-gnu"));
    if multiarch.is_dir() {
        arguments.push("-idirafter".into());
        arguments.push(multiarch.into());
    }
    // The hot path relies on loads that stay in order, which only this processor promises to BPF.
    if architecture == "x86_64" {
        arguments.push("-DHOT_PATH".into());
    }
    let mut builder = SkeletonBuilder::new();
    builder.source(format!("src/{program}.bpf.c")).clang_args(arguments);
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    if let Err(error) = builder.build_and_generate(out.join(format!("{program}.skel.rs"))) {
        panic!(
            "cannot compile src/{program}.bpf.c (Debian: apt install clang libelf-dev): {error:?}"
        );
    }
}

/// The four `*_VERDICTS(X)` lists of the header as a Rust enum and table, in the header's order.
fn verdicts(header: &str) -> String {
    let mut rows: Vec<(String, &str, String)> = Vec::new();
    let mut action = None;
    for line in header.lines() {
        let text = line.trim().trim_end_matches('\\').trim();
        match text {
            "#define PASS_VERDICTS(X)" => action = Some("Pass"),
            "#define DROP_VERDICTS(X)" => action = Some("Drop"),
            "#define TX_VERDICTS(X)" => action = Some("Tx"),
            "#define REDIRECT_VERDICTS(X)" => action = Some("Redirect"),
            _ => {
                let Some(row) = text.strip_prefix("X(") else { continue };
                let (name, help) = row
                    .strip_suffix("\")")
                    .and_then(|row| row.split_once(", \""))
                    .unwrap_or_else(|| panic!("intf.h: not X(name, \"help\"): {text}"));
                let action = action.unwrap_or_else(|| panic!("intf.h: outside a list: {text}"));
                rows.push((name.to_owned(), action, help.to_owned()));
            }
        }
    }
    let mut enumerators = String::new();
    let mut table = String::new();
    for (index, (name, action, help)) in rows.iter().enumerate() {
        let variant = camel_case(name);
        let _ = writeln!(enumerators, "    /// {action}: {help}.\n    {variant} = {index},");
        let _ = writeln!(
            table,
            "    VerdictInfo {{ verdict: Verdict::{variant}, name: {name:?}, action: Action::{action}, help: {help:?} }},"
        );
    }
    format!(
        "/// Why the steering program did what it did with a packet; each packet has exactly one.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u32)]\n\
         pub enum Verdict {{\n{enumerators}}}\n\n\
         /// How many verdicts there are; the length of the `verdicts` map.\n\
         pub const VERDICT_COUNT: usize = {};\n\n\
         /// Every verdict in index order.\n\
         pub const VERDICTS: [VerdictInfo; VERDICT_COUNT] = [\n{table}];\n",
        rows.len()
    )
}

fn camel_case(snake: &str) -> String {
    snake
        .split('_')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}
