//! What an independent scanner finds of the listener.

#[path = "support/python.rs"]
mod python;
#[path = "support/site.rs"]
mod site;

use std::process::Command;

use nautilus_control::roles::Role;
use site::{DAY, Site, json};

#[test]
fn sslyze_finds_tls_1_3_alone() {
    let program = match python::program("sslyze", "6.3.1", "sslyze") {
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
