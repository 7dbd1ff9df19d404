//! Running other programs, with an error that says which one, how it ended and what it printed.

use std::io;
use std::process::{Command, ExitStatus, Output, Stdio};

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started.
    #[error("{command}: {source}")]
    Start {
        /// The command line.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed on stderr.
        stderr: String,
    },
}

/// Bytes of stderr that an error quotes, from its end.
const QUOTED_BYTES_MAX: usize = 2000;

/// Runs `command` to its end without input and returns its stdout.
pub fn run(command: &mut Command) -> Result<String, CommandError> {
    let line = describe(command);
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CommandError::Start { command: line.clone(), source })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let start = stderr.len().saturating_sub(QUOTED_BYTES_MAX);
    let stderr = String::from_utf8_lossy(&stderr[start..]).trim().to_owned();
    Err(CommandError::Failed { command: line, status, stderr })
}

/// Runs `program` with the blank-separated words of `arguments`: `run_words("ip", "link show lo")`.
pub fn run_words(program: &str, arguments: &str) -> Result<String, CommandError> {
    run(Command::new(program).args(arguments.split_whitespace()))
}

/// The command line as an operator would type it.
pub fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_quotes_it() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("why") && text.contains('3'), "{text}");
        let error = run_words("nautilus-no-such-program", "a b").unwrap_err();
        assert!(matches!(error, CommandError::Start { .. }), "{error}");
        assert_eq!(run_words("printf", "%s one").unwrap(), "one");
    }
}
