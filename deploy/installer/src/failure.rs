//! How an installation can end other than well, and the exit codes of that.

use std::process::ExitCode;

/// Exit code: this was refused, and nothing was changed.
pub const EXIT_REFUSED: u8 = 10;
/// Exit code: it failed, and all is as it was before.
pub const EXIT_UNDONE: u8 = 11;
/// Exit code: it failed, and putting everything back failed, too: somebody must look after the node.
pub const EXIT_BROKEN: u8 = 12;
/// Exit code: another installer is at work on this node; nothing was changed.
pub const EXIT_BUSY: u8 = 13;
/// Exit code: it is done, but something was left lying about, which the next run removes.
pub const EXIT_UNTIDY: u8 = 14;
/// Exit code of `doctor` and `install --check`: the node is not as it was installed.
pub const EXIT_DRIFT: u8 = 20;
/// Exit code of `doctor` and `install --check`: nothing is installed.
pub const EXIT_ABSENT: u8 = 21;

/// Why an installation, or taking it back, did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Decided before anything was changed.
    #[error("{0:#}; nothing was changed")]
    Refused(anyhow::Error),
    /// A step failed, and all earlier ones were taken back.
    #[error("{0:#}; everything was put back")]
    Undone(anyhow::Error),
    /// A step failed, and so did taking earlier ones back.
    #[error("{cause:#}; AND putting everything back failed: {undo:#}. {advice}")]
    Broken {
        /// What failed first.
        cause: anyhow::Error,
        /// What failed while going back.
        undo: anyhow::Error,
        /// What a person can do.
        advice: String,
    },
    /// All is done but for what is only in the way.
    #[error("done, but something was left behind, which the next run removes: {0:#}")]
    Untidy(anyhow::Error),
    /// The lock is held by somebody else.
    #[error("another coracle installer is at work on this node; nothing was changed")]
    Busy,
    /// The process was killed, as far as whoever watches is concerned. Only tests end so.
    #[error("killed")]
    Killed,
}

impl Failure {
    /// The exit code that tells of it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => EXIT_REFUSED,
            Self::Undone(_) => EXIT_UNDONE,
            Self::Broken { .. } | Self::Killed => EXIT_BROKEN,
            Self::Untidy(_) => EXIT_UNTIDY,
            Self::Busy => EXIT_BUSY,
        })
    }
}

/// Whatever goes wrong while nothing has been changed yet is a refusal.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(error)
    }
}
