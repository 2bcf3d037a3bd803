//! Questions of a measurement: the shipped suite, a file of questions, or a traffic log.
//!
//! Reads files; sends no requests.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::grader::Check;
use crate::openai::Message;
use crate::traffic::{Line, LogError, Prompt, read_log};

/// 330 questions: ten domains, three difficulties, eleven each, each with a rule for its answer.
const SHIPPED: &str = include_str!("suite/everyday.jsonl");
/// Name of the shipped suite.
pub const SHIPPED_NAME: &str = "everyday";

/// One question.
#[derive(Clone, Debug)]
pub struct Item {
    pub id: String,
    pub domain: String,
    /// 1 (easy) to 3 (hard); 0 if unrated.
    pub difficulty: u8,
    pub messages: Vec<Message>,
    /// Without a rule, the item is metered and not graded.
    pub check: Option<Check>,
}

/// A list of questions and its origin.
#[derive(Clone, Debug)]
pub struct Suite {
    pub name: String,
    pub items: Vec<Item>,
    /// SHA-256 of the questions, to recognise the same suite.
    pub sha256: String,
    /// Lines of a log without a prompt.
    pub skipped: usize,
}

/// A line of a suite file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    #[serde(default)]
    domain: Option<String>,
    #[serde(default)]
    difficulty: Option<u8>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    check: Option<Check>,
    /// A right answer, for readers and for the test of the suite.
    #[serde(default)]
    answer: Option<String>,
}

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    #[error("cannot read the suite {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{}:{line}: {reason}", .path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{} holds no question; a log must have been kept with `prompts = \"full\"`", .0.display())]
    Empty(PathBuf),
}

impl Suite {
    pub fn shipped() -> Result<Self, SuiteError> {
        Self::parse(SHIPPED_NAME.to_owned(), SHIPPED, Path::new("everyday.jsonl"))
    }

    /// Loads a traffic log if `path` is a folder or the first line has a `request_id`; else lines
    /// of `{"id", "prompt" or "messages", "domain", "difficulty", "check", "answer"}`.
    pub fn load(path: &Path) -> Result<Self, SuiteError> {
        let read = |source| SuiteError::Read { path: path.to_owned(), source };
        if path.is_dir() {
            return Self::of_log(path);
        }
        let text = fs::read_to_string(path).map_err(read)?;
        if text.lines().next().is_some_and(|line| line.contains("\"request_id\"")) {
            return Self::of_log(path);
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(name, &text, path)
    }

    fn parse(name: String, text: &str, path: &Path) -> Result<Self, SuiteError> {
        let mut items = Vec::new();
        let mut ids = HashSet::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad =
                |reason: String| SuiteError::Line { path: path.to_owned(), line: at + 1, reason };
            let row: Row = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
            let item = row.into_item().map_err(|reason| bad(reason.to_owned()))?;
            if !ids.insert(item.id.clone()) {
                return Err(bad(format!("the id `{}` is taken", item.id)));
            }
            items.push(item);
        }
        if items.is_empty() {
            return Err(SuiteError::Empty(path.to_owned()));
        }
        Ok(Self { name, items, sha256: sha256(text), skipped: 0 })
    }

    fn of_log(path: &Path) -> Result<Self, SuiteError> {
        let (mut items, mut skipped, mut ids) = (Vec::new(), 0, String::new());
        for line in read_log(path)? {
            let Line::Record(record) = line? else { continue };
            let Some(Prompt::Messages(messages)) = record.prompt.filter(is_text) else {
                skipped += 1;
                continue;
            };
            let id = record.receipt.request_id.to_string();
            ids.push_str(&id);
            items.push(Item { id, domain: "log".to_owned(), difficulty: 0, messages, check: None });
        }
        if items.is_empty() {
            return Err(SuiteError::Empty(path.to_owned()));
        }
        Ok(Self { name: "log".to_owned(), items, sha256: sha256(&ids), skipped })
    }
}

fn is_text(prompt: &Prompt) -> bool {
    matches!(prompt, Prompt::Messages(messages) if !messages.is_empty())
}

fn sha256(text: &str) -> String {
    format!("{:x}", Bytes::copy_from_slice(&Sha256::digest(text.as_bytes())))
}

impl Row {
    fn into_item(self) -> Result<Item, &'static str> {
        let messages = match (self.prompt, self.messages) {
            (Some(prompt), None) => vec![Message::user(prompt)],
            (None, Some(messages)) if !messages.is_empty() => messages,
            _ => return Err("a line has either `prompt` or `messages`"),
        };
        let difficulty = self.difficulty.unwrap_or(0);
        if difficulty > 3 {
            return Err("`difficulty` goes from 1 (easy) to 3 (hard)");
        }
        let domain = self.domain.unwrap_or_else(|| "other".to_owned());
        Ok(Item { id: self.id, domain, difficulty, messages, check: self.check })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_shipped_suite_is_balanced_and_each_answer_passes_its_own_check_only() {
        let suite = Suite::shipped().unwrap();
        let mut cells: BTreeMap<(&str, u8), usize> = BTreeMap::new();
        for item in &suite.items {
            *cells.entry((item.domain.as_str(), item.difficulty)).or_default() += 1;
        }
        assert_eq!(
            (cells.len(), cells.values().min(), cells.values().max()),
            (30, Some(&11), Some(&11))
        );
        let mut letters: BTreeMap<char, usize> = BTreeMap::new();
        let mut prompts = HashSet::new();
        for line in SHIPPED.lines() {
            let row: Row = serde_json::from_str(line).unwrap();
            assert!(prompts.insert(row.prompt.clone()), "{} is asked twice", row.id);
            let (check, answer) = (row.check.unwrap(), row.answer.unwrap());
            if let Check::Choice { letter, .. } = check {
                *letters.entry(letter).or_default() += 1;
            }
            assert!(check.passes(&answer), "{}: {answer}", row.id);
            assert!(check.passes(&format!(" {answer}\n")), "{}: {answer}", row.id);
            // Repeating the question must not be right by chance.
            let parrots = matches!(check, Check::Number { .. }) && row.id != "lists-1-09";
            assert!(!(parrots && check.passes(&row.prompt.unwrap())), "{}", row.id);
            for wrong in ["", "I am not sure.", "-987654321", "zzz"] {
                assert!(!check.passes(wrong), "{} takes {wrong:?}", row.id);
            }
        }
        let letters: Vec<usize> = letters.into_values().collect();
        assert_eq!(letters, [3; 4], "always answering A is right once in four");
    }

    #[test]
    fn a_suite_of_ones_own_is_checked_line_by_line() {
        let path = tempfile::tempdir().unwrap().keep().join("own.jsonl");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Suite::load(&path)
        };
        let good = "{\"id\":\"a\",\"prompt\":\"Hi\"}\n\n{\"id\":\"b\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"check\":{\"word\":\"hello\"}}\n";
        let suite = load(good).unwrap();
        assert_eq!((suite.items.len(), suite.name.as_str()), (2, "own"));
        let complaint = |text: &str| load(text).unwrap_err().to_string();
        assert!(
            complaint("{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}")
                .contains(":2: the id `a` is taken")
        );
        assert!(complaint("{\"id\":\"a\"}").contains("either `prompt` or `messages`"));
        assert!(complaint("").contains("no question"));
    }
}
