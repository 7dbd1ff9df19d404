//! Programs of the Python package index, each in a virtual environment of its own below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of a package of this version; installed if it is not there. An error says why it cannot be.
pub fn program(package: &str, version: &str, name: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_BIN_EXE_nautilus-control")).ancestors().nth(2).unwrap();
    let environment = target.join(format!("{package}-{version}"));
    let program = environment.join("bin").join(name);
    if program.exists() {
        return Ok(program);
    }
    let python =
        if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let (pip, wanted) = (environment.join("bin/pip"), format!("{package}=={version}"));
    let steps: [(&Path, &[&str]); 2] = [
        (Path::new(python), &["-m", "venv", environment.to_str().unwrap()]),
        (&pip, &["install", "--quiet", "--timeout", "10", "--retries", "1", &wanted]),
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
