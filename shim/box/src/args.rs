//! Options by letters, as getopt(3) reads them, and the long ones of `wget`.

use crate::error::Failure;
use crate::out::plain;

/// What was given.
#[derive(Default)]
pub struct Options {
    given: Vec<(char, Option<String>)>,
    /// What is no option.
    pub operands: Vec<String>,
}

/// A long option, and the letter that stands for it.
pub type Long = (&'static str, char);

impl Options {
    /// Reads options: `letters` has those that there are, each with a colon behind it that takes a
    /// value. `--` ends them; `-` is an operand.
    pub fn parse(words: Vec<String>, letters: &str, long: &[Long]) -> Result<Options, Failure> {
        let mut options = Options::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--" {
                options.operands.extend(words);
                break;
            }
            if let Some(name) = word.strip_prefix("--") {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (name, None),
                };
                let letter =
                    long.iter().find(|(known, _)| *known == name).map(|(_, letter)| *letter);
                let letter = letter.ok_or_else(|| unknown(&word))?;
                options.take(letter, value, letters, &word, &mut words)?;
            } else if let Some(group) = word.strip_prefix('-').filter(|group| !group.is_empty()) {
                options.group(group, letters, &word, &mut words)?;
            } else {
                options.operands.push(word);
            }
        }
        Ok(options)
    }

    fn group(
        &mut self,
        group: &str,
        letters: &str,
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        let mut rest = group.chars();
        while let Some(letter) = rest.next() {
            if !letter.is_ascii_alphanumeric() || !letters.contains(letter) {
                return Err(unknown(word));
            }
            let attached = rest.as_str();
            if takes_value(letters, letter) && !attached.is_empty() {
                self.given.push((letter, Some(attached.to_owned())));
                return Ok(());
            }
            self.take(letter, None, letters, word, words)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        letter: char,
        value: Option<String>,
        letters: &str,
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        let value = match (takes_value(letters, letter), value) {
            (true, Some(value)) => Some(value),
            (true, None) => match words.next() {
                Some(value) => Some(value),
                None => {
                    return Err(Failure::usage(format_args!(
                        "option {} needs a value",
                        plain(word)
                    )));
                }
            },
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Failure::usage(format_args!("option {} takes no value", plain(word))));
            }
        };
        self.given.push((letter, value));
        Ok(())
    }

    /// Whether a letter was given.
    pub fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(given, _)| *given == letter)
    }

    /// The value of a letter's last occurrence.
    pub fn value(&self, letter: char) -> Option<&str> {
        self.values(letter).last()
    }

    /// The values of all occurrences of a letter.
    pub fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter(move |(given, _)| *given == letter)
            .filter_map(|(_, value)| value.as_deref())
    }
}

fn takes_value(letters: &str, letter: char) -> bool {
    letters.split(letter).nth(1).is_some_and(|rest| rest.starts_with(':'))
}

fn unknown(word: &str) -> Failure {
    Failure::usage(format_args!("unknown option {}", plain(word)))
}
