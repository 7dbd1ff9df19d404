//! How the command ends, and what it says then.

use std::process::ExitCode;

use hyper::body::Bytes;

use super::output::{print, say};
use crate::client::{Answer, ClientError};

/// Exit codes of every verb that asks a control, changes a node or reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or it was so already.
    Done = 0,
    /// It was asked and said no, or what was begun did not come about.
    SaidNo = 1,
    /// Bad usage, or a file that is not what it should be.
    Usage = 2,
    /// Nobody was there, or not who should be.
    Unreachable = 3,
    /// What does it is not there in this version.
    NotAvailable = 4,
    /// It was asked, and whether it was done is not known.
    OutcomeUnknown = 5,
}

impl Exit {
    /// The code for a status that is no success. `changes`: whether something was to be changed.
    fn of(answer: &Answer, changes: bool) -> Self {
        match answer.status.as_u16() {
            501 => Self::NotAvailable,
            504 => Self::OutcomeUnknown,
            _ if answer.problem() == "outcome-unknown" => Self::OutcomeUnknown,
            // Refused before anything was done: not now, or no room.
            503 | 507 => Self::SaidNo,
            500..=599 if changes => Self::OutcomeUnknown,
            _ => Self::SaidNo,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what it was to do.
#[derive(Debug)]
pub struct Failure {
    /// How to end.
    pub exit: Exit,
    /// For people.
    pub text: String,
    /// For scripts that asked for it: the answer as it came.
    pub document: Option<Bytes>,
}

impl Failure {
    /// Ends so, with these words.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), document: None }
    }

    /// Bad usage.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// A control that refused.
    pub fn refused(answer: &Answer, changes: bool, json: bool) -> Self {
        let document = (json && answer.document().is_ok()).then(|| answer.body.clone());
        Self { exit: Exit::of(answer, changes), text: answer.explain(), document }
    }

    /// Says it.
    pub fn tell(&self) -> Exit {
        if let Some(document) = &self.document {
            print(document);
        }
        say(&self.text);
        self.exit
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Usage(_) | ClientError::File { .. } => Exit::Usage,
            ClientError::Unreachable { .. } | ClientError::NoAnswer { .. } => Exit::Unreachable,
            ClientError::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn every_status_has_its_code() {
        let unknown = r#"{"type":"urn:nautilus:problem:outcome-unknown"}"#;
        for (status, body, changes, expected) in [
            (400, "", true, Exit::SaidNo),
            (404, "", false, Exit::SaidNo),
            (409, "", true, Exit::SaidNo),
            (500, "", false, Exit::SaidNo),
            (500, "", true, Exit::OutcomeUnknown),
            (500, unknown, false, Exit::OutcomeUnknown),
            (501, "", true, Exit::NotAvailable),
            (503, "", true, Exit::SaidNo),
            (504, "", false, Exit::OutcomeUnknown),
            (507, "", true, Exit::SaidNo),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from(body) };
            assert_eq!(Exit::of(&answer, changes), expected, "{status} {body} {changes}");
        }
    }
}
