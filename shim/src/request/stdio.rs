//! Standard streams as containerd names them: paths of FIFOs, and URLs of files and logging programs.

use std::path::PathBuf;

use super::{RequestError, absolute};

/// Where one standard stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// Nowhere: `/dev/null`.
    Null,
    /// A FIFO that a client has at its other end, or an existing file.
    Path(PathBuf),
    /// A log file to append to, made when missing (`file://`).
    LogFile(PathBuf),
    /// A program that logs both outputs (`binary://`).
    Logger(Logger),
}

/// A logging program of the host; see "Logging" in containerd's runtime v2 README.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logger {
    /// Its executable.
    pub program: PathBuf,
    /// Its arguments: of each pair of the URL's query the key and then the value.
    pub args: Vec<String>,
    /// Variables besides those that name the container: pairs whose key began with `env.`.
    pub env: Vec<(String, String)>,
    /// Whether it must say that it is ready by a byte (`binary-v2://`); else closing its pipe is enough.
    pub says_ready: bool,
}

/// The three streams of a process, with the texts they came as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioPlan {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Whether the process has a terminal, to which `stdin` goes and from which `stdout` comes.
    pub terminal: bool,
    /// The three as containerd wrote them; State and the create event repeat them.
    pub texts: [String; 3],
}

impl StdioPlan {
    /// Parses the three streams.
    ///
    /// # Errors
    /// [`RequestError::Stream`] for what is neither a path nor a known URL.
    pub fn parse(texts: [String; 3], terminal: bool) -> Result<Self, RequestError> {
        let [stdin, stdout, stderr] = &texts;
        let (stdin, stdout) = (stream("stdin", stdin)?, stream("stdout", stdout)?);
        let stderr = match (stream("stderr", stderr)?, &stdout) {
            // A logger always gets both.
            (Stream::Null, Stream::Logger(logger)) => Stream::Logger(logger.clone()),
            (one @ Stream::Logger(_), other) if one != *other => {
                return Err(refuse("stderr", stderr));
            }
            (one, other @ Stream::Logger(_)) if one != *other => {
                return Err(refuse("stderr", stderr));
            }
            (one, _) => one,
        };
        Ok(Self { stdin, stdout, stderr, terminal, texts })
    }
}

fn refuse(name: &'static str, text: &str) -> RequestError {
    RequestError::Stream { name, text: text.to_owned() }
}

fn stream(name: &'static str, text: &str) -> Result<Stream, RequestError> {
    let refuse = || refuse(name, text);
    let (scheme, rest) = match text.split_once("://") {
        None if text.is_empty() => return Ok(Stream::Null),
        None => ("fifo", text),
        Some(parts) => parts,
    };
    // Queries carry parameters of loggers; files and FIFOs have none.
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match scheme {
        "fifo" => absolute(path).map(Stream::Path).ok_or_else(refuse),
        "file" if name != "stdin" => absolute(path).map(Stream::LogFile).ok_or_else(refuse),
        "binary" | "binary-v2" if name != "stdin" => {
            logger(path, query, scheme == "binary-v2").map(Stream::Logger).ok_or_else(refuse)
        }
        _ => Err(refuse()),
    }
}

/// A logger, if its URL makes sense.
fn logger(path: &str, query: &str, says_ready: bool) -> Option<Logger> {
    let program = absolute(&decode(path, false)?)?;
    let (mut args, mut env) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, true)?, decode(value, true)?);
        match key.strip_prefix("env.") {
            Some(name) if !name.is_empty() && !name.contains('=') => {
                env.push((name.to_owned(), value));
            }
            _ => args.extend([key, value]),
        }
    }
    Some(Logger { program, args, env, says_ready })
}

/// Undoes the encoding of a URL's parts (RFC 3986, 2.1), in queries `+` for a space too. `None` for what is
/// no such encoding, and for a NUL, which no argument can have.
fn decode(text: &str, query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if query => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_by_scheme() {
        assert_eq!(stream("stdin", ""), Ok(Stream::Null));
        assert_eq!(stream("stdout", "/run/f"), Ok(Stream::Path("/run/f".into())));
        assert_eq!(stream("stdout", "fifo:///run/f"), Ok(Stream::Path("/run/f".into())));
        assert_eq!(stream("stdout", "file:///l?a=b"), Ok(Stream::LogFile("/l".into())));
        let bad = ["relative", "file://x", "http:///x", "/a/../b", "file:///a/../b", "binary://x"];
        for bad in bad.iter().chain(&["binary:///x?a=%zz", "binary:///x?a=%00", "binary:///x%0"]) {
            assert!(matches!(stream("stdout", bad), Err(RequestError::Stream { .. })), "{bad}");
        }
        assert!(stream("stdin", "file:///x").is_err());
        assert!(stream("stdin", "binary:///x").is_err());
    }

    #[test]
    fn loggers_have_arguments_and_variables() {
        let url = "binary:///usr/bin/my%20logger?--id=a+b%26c&flag&env.COLOUR=blue&=x";
        let Ok(Stream::Logger(logger)) = stream("stdout", url) else { panic!("no logger") };
        assert_eq!(logger.program, PathBuf::from("/usr/bin/my logger"));
        assert_eq!(logger.args, ["--id", "a b&c", "flag", "", "", "x"]);
        assert_eq!(logger.env, [("COLOUR".to_owned(), "blue".to_owned())]);
        assert!(!logger.says_ready);
        let Ok(Stream::Logger(second)) = stream("stdout", "binary-v2:///l") else { panic!("none") };
        assert!(second.says_ready && second.args.is_empty());
    }

    #[test]
    fn a_logger_has_both_outputs_or_none() {
        let parse = |stdout: &str, stderr: &str| {
            StdioPlan::parse([String::new(), stdout.into(), stderr.into()], false)
        };
        for stderr in ["", "binary:///l"] {
            let plan = parse("binary:///l", stderr).unwrap();
            assert_eq!(plan.stdout, plan.stderr, "{stderr}");
        }
        for (stdout, stderr) in
            [("binary:///l", "/f"), ("/f", "binary:///l"), ("binary:///l", "binary:///m")]
        {
            assert!(parse(stdout, stderr).is_err(), "{stdout} {stderr}");
        }
    }
}
