//! `nautilus explain`: asking the supervisor where a frame would go, or a supervisor program that runs for
//! this question alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nautilus_shm::attach::{Code, ExplainRequest};
use serde::{Deserialize, Serialize};

use crate::attach::{self, ReachError};

/// How long a supervisor may take to load the program for the first question.
const LOADING_MAX: Duration = Duration::from_secs(5);

/// What the supervisor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The program's verdict, as in the label `reason` of `nautilus_xdp_packets_total`.
    pub verdict: String,
    /// `pass`, `drop`, `tx` or `redirect`.
    pub action: String,
    /// What the verdict says of the frame.
    pub reason: String,
    /// Where it arrived.
    pub interface: String,
    /// On which queue.
    pub queue: u32,
    /// Its length.
    pub frame_bytes: u32,
    /// The text that XDP answered, escaped; for a hot hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What else has to be known.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What the program looked at, in its order.
    #[serde(rename(deserialize = "step", serialize = "steps"))]
    pub steps: Vec<Step>,
}

/// One thing it looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub name: String,
    /// What was found.
    pub found: String,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No supervisor.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The supervisor is too old for the question.
    #[error("the supervisor does not know this question; it is of an older release")]
    Old,
    /// It answered with a reason.
    #[error("{0}")]
    Told(String),
    /// The program beside us cannot be run.
    #[error("cannot run {}: {source}", path.display())]
    Program {
        /// `nautilus-supervisor`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not an answer of this version.
    #[error("unreadable answer: {0}")]
    Answer(String),
}

impl Explanation {
    /// Asks the supervisor of a running node.
    pub fn of_node(run_dir: &Path, request: &ExplainRequest) -> Result<Self, ExplainError> {
        let end = Instant::now() + LOADING_MAX;
        loop {
            match attach::explain(run_dir, request) {
                Ok(text) => return Self::parse(&text),
                // The first question makes the supervisor load the program.
                Err(ReachError::Refused { code: Code::NotReady, .. }) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(ReachError::Refused { code: Code::BadRequest, .. }) => {
                    return Err(ExplainError::Old);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has a supervisor program load and fill the steering program as a node file says; needs root.
    pub fn of_config(
        program: &Path,
        config: &Path,
        request: &ExplainRequest,
    ) -> Result<Self, ExplainError> {
        let failed = |source| ExplainError::Program { path: program.into(), source };
        let mut child = Command::new(program)
            .arg("--explain")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that refuses its node file does not read.
            let _ = stdin.write_all(&request.encode());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(ExplainError::Told(said.trim().to_owned()));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Result<Self, ExplainError> {
        let answer = |error: toml::de::Error| ExplainError::Answer(error.message().into());
        let table: toml::Table = toml::from_str(text).map_err(answer)?;
        if let Some(error) = table.get("error").and_then(toml::Value::as_str) {
            return Err(ExplainError::Told(error.to_owned()));
        }
        table.try_into().map_err(answer)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let Self { interface, queue, frame_bytes, .. } = self;
        let mut text = format!("{frame_bytes} bytes on {interface} queue {queue}\n");
        for Step { name, found } in &self.steps {
            text += &format!("  {name:<10} {found}\n");
        }
        text += &format!("{} ({}): {}\n", self.verdict, self.action, self.reason);
        if let Some(answer) = &self.answer {
            text += &format!("answer: {answer}\n");
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        // From another process: nothing that moves a terminal's cursor.
        text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_shown() {
        let text = "verdict = \"redirected\"\naction = \"redirect\"\nreason = \"handed over\"\n\
                    interface = \"eth0\"\nqueue = 1\nframe_bytes = 57\nnotes = [\"n\\u001b[2J\"]\n\
                    [[step]]\nname = \"link\"\nfound = \"no tag\"\n";
        let told = Explanation::parse(text).unwrap();
        assert_eq!(told.steps.len(), 1);
        assert_eq!(
            told.to_text(),
            "57 bytes on eth0 queue 1\n  link       no tag\nredirected (redirect): handed over\n\
             note: n[2J\n"
        );
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["steps"][0]["name"], "link");
        let error = Explanation::parse("error = \"no\"\n").unwrap_err();
        assert_eq!(error.to_string(), "no");
        assert!(matches!(Explanation::parse("verdict = 1"), Err(ExplainError::Answer(_))));
    }
}
