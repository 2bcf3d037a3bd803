//! Journal of a run: one JSON line per request, appended once it is settled, so that a killed run
//! can resume.
//!
//! `settings.json` next to it holds the options of the run, so that another run is not resumed by
//! mistake.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::energy::{EnergyFigure, Hardware};
use crate::files::{self, FileError};
use crate::routing::Route;
use crate::units::Joules;

const ROWS_FILE: &str = "items.jsonl";
const SETTINGS_FILE: &str = "settings.json";

/// Options that must be equal to resume a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub suite: String,
    pub suite_sha256: String,
    /// Number of questions; absent: all.
    pub limit: Option<usize>,
    pub max_tokens: u32,
    pub temperature: f32,
    pub logprobs: bool,
    pub seed: u64,
    /// Whether prompts may come from a cache; absent in runs before that was asked.
    #[serde(default)]
    pub warm_cache: bool,
    /// Version of the program; absent in older runs. A run may be resumed by another one.
    #[serde(default)]
    pub build: String,
    pub machine: Hardware,
}

/// One request with final energy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub model: String,
    pub route: Route,
    /// Requests at a time.
    pub batch: u32,
    /// From 0.
    pub repeat: u32,
    /// Requests of one wave ran at the same time; counted from 0 per batch and repeat.
    pub wave: u32,
    /// Number of requests that really ran together: fewer at the end of a suite and where a run was
    /// interrupted.
    pub together: u32,
    pub item: String,
    pub domain: String,
    pub difficulty: u8,
    /// 1 right, 0 wrong; absent for a question without a rule.
    pub score: Option<f64>,
    /// Marginal energy; absent without an answer.
    pub energy: Option<EnergyFigure>,
    /// Marginal energy plus the share of idle energy while it was open; absent if one is unknown.
    #[serde(default)]
    pub total_joules: Option<Joules>,
    pub first_token_s: Option<f64>,
    /// Seconds from arrival to the last token.
    pub total_s: f64,
    pub prompt_tokens: u64,
    /// Part of `prompt_tokens`.
    pub cached_tokens: u64,
    pub output_tokens: u64,
    /// Prediction of the gateway before the request ran.
    #[serde(rename = "foreseen")]
    pub predicted: Option<Prediction>,
    /// Mean log-probability of the output tokens, if requested.
    pub mean_logprob: Option<f64>,
    /// Absent for questions from a log, which may be private.
    pub answer: Option<String>,
    /// Error, if there is no answer.
    pub error: Option<String>,
}

/// Prediction of the gateway for a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    pub prompt_tokens: u64,
    /// Part of `prompt_tokens`.
    pub cached_tokens: u64,
    pub output_tokens: u64,
    pub joules: Option<Joules>,
}

/// Identity of a request within a run.
type Key = (String, u32, u32, String);

impl Row {
    fn key(&self) -> Key {
        (self.model.clone(), self.batch, self.repeat, self.item.clone())
    }

    pub fn joules(&self) -> Option<f64> {
        Some(self.energy?.joules?.0)
    }

    /// Mean power of the request: its joules over its seconds.
    pub fn watts(&self) -> Option<f64> {
        Some(self.joules()? / self.total_s).filter(|watts| watts.is_finite())
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot use {}: {source}", .path.display())]
    Open { path: PathBuf, source: FileError },
    #[error("{} already holds a run: resume it with --resume, or choose another folder with --out", .0.display())]
    Taken(PathBuf),
    #[error("{} holds a run with other settings ({what}): repeat its options, or choose another folder with --out", .dir.display())]
    Other { dir: PathBuf, what: &'static str },
    #[error("{}:{line} is not a valid row: {reason}", .path.display())]
    Bad { path: PathBuf, line: usize, reason: String },
}

/// Journal of a run, open for appending.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    rows: Vec<Row>,
    done: HashSet<Key>,
}

impl Journal {
    /// Starts a run in `dir`, or resumes the one there.
    pub fn open(dir: &Path, settings: &Settings, resume: bool) -> Result<Self, JournalError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        files::create_private_dir(dir).map_err(io(dir))?;
        let (path, settings_path) = (dir.join(ROWS_FILE), dir.join(SETTINGS_FILE));
        let rows = if path.exists() {
            if !resume {
                return Err(JournalError::Taken(dir.to_owned()));
            }
            check_settings(dir, &settings_path, settings)?;
            read_rows(&path)?
        } else {
            let text = serde_json::to_string_pretty(settings).unwrap_or_default();
            files::replace(&settings_path, text).map_err(io(&settings_path))?;
            Vec::new()
        };
        let file = files::open_private_append(&path)
            .map_err(|source| JournalError::Open { path: path.clone(), source })?;
        let done = rows.iter().map(Row::key).collect();
        Ok(Self { file, path, rows, done })
    }

    pub fn has(&self, model: &str, batch: u32, repeat: u32, item: &str) -> bool {
        self.done.contains(&(model.to_owned(), batch, repeat, item.to_owned()))
    }

    /// Appends the rows of a wave. They are with the operating system when it returns, not
    /// necessarily on disk.
    pub fn append(&mut self, rows: Vec<Row>) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let mut lines = Vec::new();
        for row in &rows {
            serde_json::to_writer(&mut lines, row).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).map_err(failed)?;
        self.done.extend(rows.iter().map(Row::key));
        self.rows.extend(rows);
        Ok(())
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// Settings and rows of a run in `dir`, and the date of its last row (UTC).
pub fn read(dir: &Path) -> Result<(Settings, Vec<Row>, String), JournalError> {
    let (path, settings_path) = (dir.join(ROWS_FILE), dir.join(SETTINGS_FILE));
    let settings = read_settings(&settings_path)?;
    let rows = read_rows(&path)?;
    let changed = fs::metadata(&path).and_then(|file| file.modified());
    let changed = changed.map_err(|source| JournalError::Io { path, source })?;
    let measured = jiff::Timestamp::try_from(changed).unwrap_or_default();
    Ok((settings, rows, measured.strftime("%Y-%m-%d").to_string()))
}

fn read_settings(path: &Path) -> Result<Settings, JournalError> {
    let text = fs::read_to_string(path)
        .map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|error| JournalError::Bad {
        path: path.to_owned(),
        line: error.line(),
        reason: error.to_string(),
    })
}

fn check_settings(dir: &Path, path: &Path, wanted: &Settings) -> Result<(), JournalError> {
    let found = read_settings(path)?;
    let differs = [
        ("another suite", found.suite_sha256 != wanted.suite_sha256),
        ("another --limit", found.limit != wanted.limit),
        ("another --max-tokens", found.max_tokens != wanted.max_tokens),
        ("another --temperature", found.temperature.to_bits() != wanted.temperature.to_bits()),
        ("another --logprobs", found.logprobs != wanted.logprobs),
        ("another --seed", found.seed != wanted.seed),
        ("another --warm-cache", found.warm_cache != wanted.warm_cache),
        ("another machine", found.machine != wanted.machine),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(JournalError::Other { dir: dir.to_owned(), what }),
        None => Ok(()),
    }
}

/// Reads the rows and truncates an incomplete last line.
fn read_rows(path: &Path) -> Result<Vec<Row>, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(io)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        let file = OpenOptions::new().write(true).open(path).map_err(io)?;
        file.set_len(whole as u64).map_err(io)?;
    }
    let lines = text[..whole].lines().enumerate();
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| JournalError::Bad {
                path: path.to_owned(),
                line: at + 1,
                reason: error.to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::energy::{Quality, Source};

    pub(in super::super) fn settings() -> Settings {
        Settings {
            suite: "own".to_owned(),
            suite_sha256: "ab".to_owned(),
            limit: None,
            max_tokens: 64,
            temperature: 0.0,
            logprobs: false,
            seed: 1,
            warm_cache: false,
            build: "0".to_owned(),
            machine: Hardware::default(),
        }
    }

    /// A row of model `m` for `item`, alone, with this energy.
    pub(in super::super) fn row(item: &str, score: f64, joules: f64) -> Row {
        let energy = EnergyFigure {
            joules: Some(Joules(joules)),
            low: Some(Joules(joules / 3.0)),
            high: Some(Joules(joules * 2.0)),
            quality: Quality::Estimated,
            source: Source::CpuModel,
            is_final: true,
        };
        Row {
            model: "m".to_owned(),
            route: Route::Local,
            batch: 1,
            repeat: 0,
            wave: 0,
            together: 1,
            item: item.to_owned(),
            domain: "d".to_owned(),
            difficulty: 1,
            score: Some(score),
            energy: Some(energy),
            total_joules: Some(Joules(2.0 * joules)),
            first_token_s: Some(0.1),
            total_s: 0.5,
            prompt_tokens: 40,
            cached_tokens: 10,
            output_tokens: 20,
            predicted: None,
            mean_logprob: None,
            answer: None,
            error: None,
        }
    }

    #[test]
    fn a_run_that_was_killed_goes_on_behind_its_last_whole_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), &settings(), false).unwrap();
        journal.append(vec![row("a", 1.0, 2.0), row("b", 0.0, 3.0)]).unwrap();
        drop(journal);
        let path = dir.path().join(ROWS_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 20]).unwrap();
        assert!(matches!(
            Journal::open(dir.path(), &settings(), false),
            Err(JournalError::Taken(_))
        ));
        let mut journal = Journal::open(dir.path(), &settings(), true).unwrap();
        assert!(
            journal.has("m", 1, 0, "a")
                && !journal.has("m", 1, 0, "b")
                && !journal.has("m", 8, 0, "a")
        );
        journal.append(vec![row("b", 0.0, 3.0)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn another_run_is_not_continued_and_a_strange_row_is_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::open(dir.path(), &settings(), false).unwrap());
        let other = Settings { max_tokens: 65, ..settings() };
        let error = Journal::open(dir.path(), &other, true).unwrap_err().to_string();
        assert!(error.contains("another --max-tokens"), "{error}");
        fs::write(dir.path().join(ROWS_FILE), "{}\n").unwrap();
        let error = Journal::open(dir.path(), &settings(), true).unwrap_err().to_string();
        assert!(error.contains("items.jsonl:1"), "{error}");
    }
}
