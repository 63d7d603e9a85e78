//! The text form.

use std::borrow::Cow;

use super::DecodeError;
use crate::module::limits;

/// A binary module, from itself or from text.
///
/// The form is told by content: whatever begins with a parenthesis, after white space and
/// comments, is text. Everything else passes unchanged, to be refused by [`decode`](super::decode).
///
/// # Errors
/// When text is over its limit or not well formed.
pub fn to_binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    if bytes.starts_with(b"\0asm") || !begins_like_text(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let size = bytes.len() as u64;
    if size > limits::TEXT_BYTES {
        let limit = limits::TEXT_BYTES;
        return Err(DecodeError::TooLarge { size, limit, form: "text modules" });
    }
    wat::parse_bytes(bytes).map_err(|error| describe(&error.to_string()))
}

/// Whether the first token is an opening parenthesis.
fn begins_like_text(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        rest = rest.trim_ascii_start();
        if rest.starts_with(b";;") {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return false };
            rest = &rest[end..];
        } else if rest.starts_with(b"(;") {
            let Some(after) = skip_block_comment(rest) else { return false };
            rest = after;
        } else {
            return rest.starts_with(b"(");
        }
    }
}

/// What follows a block comment, which may hold others.
fn skip_block_comment(bytes: &[u8]) -> Option<&[u8]> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match bytes.get(at..at + 2)? {
            b"(;" => (at, depth) = (at + 2, depth + 1),
            b";)" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return bytes.get(at..);
        }
    }
}

/// The parser's report is a sentence, a line `--> file:line:column` and an excerpt.
fn describe(report: &str) -> DecodeError {
    let mut lines = report.lines();
    let message = lines.next().unwrap_or_default().trim().to_string();
    let position = lines.find_map(|line| {
        let (_, place) = line.trim().strip_prefix("-->")?.split_once(':')?;
        let (line, column) = place.split_once(':')?;
        Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
    });
    let (line, column) = position.unwrap_or((1, 1));
    DecodeError::Text { line, column, message }
}
