//! What an independent scanner finds of the listener.

#[path = "support/site.rs"]
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;

use nautilus_control::roles::Role;
use site::{DAY, Site, json};

/// The scanner, from a virtual environment in the target folder; made there if it is not.
fn scanner() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_BIN_EXE_nautilus-control")).ancestors().nth(2).unwrap();
    let venv = target.join("sslyze-6.3.1");
    let program = venv.join("bin/sslyze");
    if program.exists() {
        return Ok(program);
    }
    let python =
        if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let pip = venv.join("bin/pip");
    let steps: [(&Path, &[&str]); 2] = [
        (Path::new(python), &["-m", "venv", venv.to_str().unwrap()]),
        (&pip, &["install", "--quiet", "--timeout", "10", "--retries", "1", "sslyze==6.3.1"]),
    ];
    for (step, arguments) in steps {
        let output = Command::new("timeout").arg("300").arg(step).args(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", step.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(program)
}

#[test]
fn sslyze_finds_tls_1_3_alone() {
    let program = match scanner() {
        Ok(program) => program,
        Err(reason) => {
            eprintln!("SKIPPED sslyze: cannot be installed: {reason}");
            return;
        }
    };
    let site = Site::start("");
    let certificate = site.certificate(Role::Viewer, "scanner", DAY);
    // Without a certificate: its library for the oldest versions reads no such key, and versions are
    // agreed on before certificates are looked at.
    let output = Command::new(&program)
        .args(["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"])
        .args(["--mozilla_config", "disable", "--json_out", "-"])
        .arg(&site.address)
        .output()
        .unwrap();
    let scan = json(&output.stdout);
    let result = &scan["server_scan_results"][0];
    assert_eq!(result["scan_status"], "COMPLETED", "{result}");
    let found = &result["scan_result"];
    let accepted = |version: &str| {
        let suites = &found[version]["result"]["accepted_cipher_suites"];
        suites.as_array().unwrap_or_else(|| panic!("{version}: {}", found[version])).len()
    };
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"] {
        assert_eq!(accepted(&format!("{version}_cipher_suites")), 0, "{version}");
    }
    assert_eq!(accepted("tls_1_3_cipher_suites"), 3);
    assert!(site.ask(Some(&certificate), "GET", "/livez").is_ok(), "and it still answers");
}
