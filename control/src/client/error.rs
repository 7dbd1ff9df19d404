//! Why a control was not asked, or gave no answer.

use std::path::PathBuf;

/// What stands between a question and its answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Where to connect, or with what, cannot be used as it was said.
    #[error("{0}")]
    Usage(String),
    /// A file of the client could not be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing was asked: nobody is there, or it is not who it should be.
    #[error("{target}: {reason}")]
    Unreachable {
        /// Who was to be asked.
        target: String,
        /// Why.
        reason: String,
    },
    /// It was asked, changes nothing, and gave no answer that can be read.
    #[error("{target}: {reason}")]
    NoAnswer {
        /// Who was asked.
        target: String,
        /// What came instead.
        reason: String,
    },
    /// It was asked to change something, and whether it did is not known.
    #[error("{target}: {reason}; whether it was done is not known: look before asking again")]
    OutcomeUnknown {
        /// Who was asked.
        target: String,
        /// What came instead.
        reason: String,
    },
}
