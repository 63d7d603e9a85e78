//! `env`.

use std::collections::BTreeMap;

use crate::args::Options;
use crate::error::Failure;
use crate::out::{Context, plain};

/// Prints the environment, changed as the operands say.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "i0u:", &[])?;
    let mut added = BTreeMap::new();
    for word in &options.operands {
        let Some((name, value)) = word.split_once('=') else {
            return Err(Failure::of(
                plain(word),
                "cannot be run: a WebAssembly program starts no others; exec it by its own",
            ));
        };
        added.insert(name.to_owned(), value.to_owned());
    }
    let removed: Vec<&str> = options.values('u').collect();
    let end = if options.has('0') { b"\0" } else { b"\n" };
    let inherited = std::env::vars_os().filter(|_| !options.has('i')).map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    let kept = inherited
        .filter(|(name, _)| !removed.contains(&name.as_str()) && !added.contains_key(name));
    for (name, value) in kept.chain(added.clone()) {
        let pair = format!("{name}={value}");
        let shown = context.shown(&pair).into_owned();
        context.bytes(shown.as_bytes())?;
        context.bytes(end)?;
    }
    Ok(())
}
