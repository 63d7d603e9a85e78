//! `test`: whether a path is what it should be, as scripts and `kubectl cp` ask.

use crate::error::Failure;
use crate::host;
use crate::out::Context;

const TYPE: u32 = 0o170_000;

/// Exit code 0 if it is, 1 if not, without a word.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let [option, path] = words.as_slice() else {
        return Err(Failure::usage("expected one option and one path"));
    };
    let Ok(stat) = host::stat(path, option != "-L") else {
        context.fail();
        return Ok(());
    };
    let holds = match option.as_str() {
        "-e" => true,
        "-d" => stat.mode & TYPE == 0o040_000,
        "-f" => stat.mode & TYPE == 0o100_000,
        "-L" => stat.mode & TYPE == 0o120_000,
        "-s" => stat.size > 0,
        _ => {
            return Err(Failure::usage(format_args!(
                "unknown option: {}",
                crate::out::plain(option)
            )));
        }
    };
    if !holds {
        context.fail();
    }
    Ok(())
}
