//! What came of a compilation ahead, for the node daemon: one line of JSON and an exit code.

use std::time::Duration;

use coracle_oci::ImageError;
use coracle_oci::image::LayerFault;
use serde::{Deserialize, Serialize};

use super::{WarmError, Warmed};
use crate::task::TaskError;

/// Exit code where there is nothing to compile.
const NOTHING: u8 = 3;
/// Exit code where the image's files are not on the node yet.
const NOT_UNPACKED: u8 = 4;

/// The last and only line on standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Report {
    /// The code is in the cache now.
    Compiled {
        /// How long it took.
        seconds: f64,
        /// Size of the code.
        bytes: u64,
    },
    /// It was there.
    Cached {
        /// Size of the code.
        bytes: u64,
    },
    /// Containers of the image run no WebAssembly.
    Nothing {
        /// What is there instead.
        why: String,
    },
    /// It has no wasm layer, and its files cannot be looked into yet.
    NotUnpacked {
        /// The same in words.
        why: String,
    },
    /// containerd has no image of this name.
    Gone {
        /// The same in words.
        why: String,
    },
    /// There is a module, or may be one, and its code is not in the cache.
    Failed {
        /// Why not.
        why: String,
    },
}

impl Report {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Compiled { .. } | Self::Cached { .. } => 0,
            Self::Nothing { .. } => NOTHING,
            Self::NotUnpacked { .. } => NOT_UNPACKED,
            Self::Gone { .. } | Self::Failed { .. } => super::command::FAILED,
        }
    }
}

impl From<Result<Warmed, WarmError>> for Report {
    fn from(result: Result<Warmed, WarmError>) -> Self {
        match result {
            Ok(Warmed { size: bytes, compiled: Some(time) }) => {
                Self::Compiled { seconds: Duration::as_secs_f64(&time), bytes }
            }
            Ok(Warmed { size: bytes, compiled: None }) => Self::Cached { bytes },
            Err(error) => {
                let why = error.to_string();
                match error {
                    WarmError::NoImage(_) => Self::Gone { why },
                    WarmError::NotUnpacked(fault) if has_no_wasm(&fault) => {
                        Self::NotUnpacked { why }
                    }
                    WarmError::Task(TaskError::Image(ImageError::NothingUsable {
                        image, ..
                    }))
                    | WarmError::Image(ImageError::Config(image))
                        if has_no_wasm(&image) =>
                    {
                        Self::Nothing { why }
                    }
                    _ => Self::Failed { why },
                }
            }
        }
    }
}

/// Whether the layers hold no module, rather than one that cannot be used.
fn has_no_wasm(fault: &LayerFault) -> bool {
    matches!(fault, LayerFault::NoImage | LayerFault::NoWasm { .. } | LayerFault::Document { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_oci::image::EntryFault;

    fn no_wasm() -> Box<LayerFault> {
        Box::new(LayerFault::NoWasm { image: "i".into(), platforms: vec![], layers: vec![] })
    }

    fn several() -> Box<LayerFault> {
        Box::new(LayerFault::Several { image: "i".into(), count: 2, name: "/".into() })
    }

    fn nothing(image: Box<LayerFault>) -> WarmError {
        TaskError::from(ImageError::NothingUsable { entry: EntryFault::Absent, image }).into()
    }

    #[test]
    fn an_image_without_wasm_is_told_from_one_with_a_fault() {
        let report = |error| Report::from(Err::<Warmed, _>(error));
        assert!(matches!(report(nothing(no_wasm())), Report::Nothing { .. }));
        assert!(matches!(report(nothing(several())), Report::Failed { .. }));
        let config = |fault| WarmError::Image(ImageError::Config(fault));
        assert!(matches!(report(config(no_wasm())), Report::Nothing { .. }));
        assert!(matches!(report(config(several())), Report::Failed { .. }));
        assert!(matches!(report(WarmError::NotUnpacked(no_wasm())), Report::NotUnpacked { .. }));
        assert!(matches!(report(WarmError::NotRoot), Report::Failed { .. }));
    }

    #[test]
    fn each_outcome_has_its_line_and_code() {
        let compiled = Warmed { size: 9, compiled: Some(Duration::from_millis(1500)) };
        let line = serde_json::to_string(&Report::from(Ok(compiled))).unwrap();
        assert_eq!(line, r#"{"outcome":"compiled","seconds":1.5,"bytes":9}"#);
        let cached = Report::from(Ok(Warmed { size: 9, compiled: None }));
        assert_eq!(serde_json::to_string(&cached).unwrap(), r#"{"outcome":"cached","bytes":9}"#);
        let codes = [
            (cached, 0),
            (Report::Nothing { why: String::new() }, 3),
            (Report::NotUnpacked { why: String::new() }, 4),
            (Report::Gone { why: String::new() }, 125),
            (Report::Failed { why: String::new() }, 125),
        ];
        for (report, code) in codes {
            assert_eq!(report.exit_code(), code, "{report:?}");
        }
    }
}
