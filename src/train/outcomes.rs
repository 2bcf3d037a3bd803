//! Reader of outcome files: one JSON line per query, with the score of each model that answered it.
//!
//! More rows than [`ROWS_MAX`] are sampled while reading, so memory and time stay bounded. An
//! invalid line stops training with its file and number, since a silently skipped label would be a
//! wrong figure later.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{BadLine, LINE_BYTES_MAX, TrainError};
use super::log;
use crate::routing::adequacy::names::canonical;
use crate::routing::text::{TextVector, fmix64, fnv1a};

/// Most rows that are learnt from. More improve little, and each takes about 3 KB.
const ROWS_MAX: usize = 40_000;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Contents of all files.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) rows: Vec<Row>,
    /// Canonical names.
    pub(super) models: Vec<String>,
    pub(super) sources: Vec<Source>,
    /// `source/task`.
    pub(super) tasks: Vec<String>,
    pub(super) duplicates: usize,
    pub(super) contradictions: usize,
    pub(super) unsampled: usize,
}

/// One query. Model, source and task are indices into [`Data`].
#[derive(Debug)]
pub(super) struct Row {
    pub(super) text: TextVector,
    pub(super) source: usize,
    pub(super) task: usize,
    pub(super) outcomes: Vec<Outcome>,
    /// Hash of the row's id, by which vector files refer to it.
    pub(super) id_hash: u64,
    /// Hash of text and models.
    key: u64,
}

impl Row {
    /// Position in a seeded shuffle that does not depend on the order of the files.
    pub(super) fn order(&self, seed: u64) -> u64 {
        shuffled(seed, self.key)
    }
}

fn shuffled(seed: u64, key: u64) -> u64 {
    fmix64(fnv1a(&[seed.to_le_bytes(), key.to_le_bytes()].concat()))
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) model: usize,
    /// 0 (wrong) to 1 (right).
    pub(super) score: f64,
}

/// Origin of rows.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    pub name: String,
    pub rows: usize,
    /// Number of models that it asked.
    pub models: usize,
    /// SHA-256 of the file that named it first.
    pub file_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    source: String,
    task: String,
    query: String,
    outcomes: BTreeMap<String, f64>,
}

pub(super) fn read(paths: &[PathBuf], logs: &[PathBuf]) -> Result<Data, TrainError> {
    let mut reading = Reading::default();
    for path in paths {
        reading.file(path)?;
    }
    for path in logs {
        reading.log(path)?;
    }
    Ok(reading.finish())
}

#[derive(Default)]
struct Reading {
    data: Data,
    models: BTreeMap<String, usize>,
    sources: BTreeMap<String, usize>,
    tasks: BTreeMap<String, usize>,
    /// By hash of text and models: the row, and the number of lines that it is the mean of.
    seen: HashMap<u64, (usize, f64)>,
    /// Rows whose position in the sample is beyond this are left out; halved whenever there are too
    /// many.
    beyond: Option<u64>,
}

impl Reading {
    fn file(&mut self, path: &Path) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { path: path.to_owned(), source };
        let sha256 = sha256(path).map_err(io)?;
        let mut lines = open(path).map_err(io)?;
        let mut buffer = Vec::new();
        for line in 1.. {
            let bad = |problem| TrainError::Line { path: path.to_owned(), line, problem };
            buffer.clear();
            let read = lines.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut buffer);
            if read.map_err(|error| bad(BadLine::Read(error)))? == 0 {
                break;
            }
            if buffer.len() as u64 > LINE_BYTES_MAX {
                return Err(bad(BadLine::TooLong));
            }
            // Some editors begin a file with a byte order mark and end it with blank lines; neither
            // is a row.
            let row = buffer.strip_prefix(BYTE_ORDER_MARK).filter(|_| line == 1).unwrap_or(&buffer);
            if !row.trim_ascii().is_empty() {
                self.line(row, &sha256).map_err(bad)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8], sha256: &str) -> Result<(), BadLine> {
        let line: Line = serde_json::from_slice(bytes)?;
        validate(&line)?;
        if self.is_beyond(key(&line)) {
            self.data.unsampled += 1;
        } else {
            self.row(&line, TextVector::of_text(&line.query), sha256);
        }
        Ok(())
    }

    fn row(&mut self, line: &Line, text: TextVector, sha256: &str) {
        let key = key(line);
        let models = &mut self.models;
        let outcomes: Vec<Outcome> = line
            .outcomes
            .iter()
            .map(|(name, &score)| Outcome { model: index(models, &canonical(name)), score })
            .collect();
        match self.seen.entry(key) {
            Entry::Occupied(mut entry) => {
                let (row, lines) = entry.get_mut();
                *lines += 1.0;
                let known = &mut self.data.rows[*row].outcomes;
                let differs =
                    known.iter().zip(&outcomes).any(|(a, b)| (a.score - b.score).abs() > 1e-9);
                known
                    .iter_mut()
                    .zip(&outcomes)
                    .for_each(|(a, b)| a.score += (b.score - a.score) / *lines);
                self.data.duplicates += 1;
                self.data.contradictions += usize::from(differs);
                return;
            }
            Entry::Vacant(entry) => entry.insert((self.data.rows.len(), 1.0)),
        };
        let source = self.source(&line.source, sha256);
        self.data.rows.push(Row {
            text,
            source,
            task: index(&mut self.tasks, &format!("{}/{}", line.source, line.task)),
            outcomes,
            id_hash: fnv1a(line.id.as_bytes()),
            key,
        });
        if self.data.rows.len() > ROWS_MAX {
            self.halve();
        }
    }

    /// Reads the labelled requests of a gateway's log, with their text as serving reads it.
    fn log(&mut self, path: &Path) -> Result<(), TrainError> {
        let (rows, sha256) = log::labelled_prompts(path)?;
        for log::LabelledPrompt { id, policy, messages, query, outcomes } in rows {
            let line = Line { id, source: log::SOURCE.to_owned(), task: policy, query, outcomes };
            if !self.is_beyond(key(&line)) {
                self.row(&line, TextVector::of_messages(&messages), &sha256);
            }
        }
        Ok(())
    }

    fn source(&mut self, name: &str, sha256: &str) -> usize {
        let source = index(&mut self.sources, name);
        if source == self.data.sources.len() {
            let (name, file_sha256) = (name.to_owned(), sha256.to_owned());
            self.data.sources.push(Source { name, rows: 0, models: 0, file_sha256 });
        }
        source
    }

    fn is_beyond(&self, key: u64) -> bool {
        self.beyond.is_some_and(|limit| shuffled(0, key) > limit)
    }

    /// Keeps the lower half of the sample's order, so that the sample depends on the texts, not on
    /// their positions.
    fn halve(&mut self) {
        self.beyond = Some(self.beyond.unwrap_or(u64::MAX) / 2);
        let before = std::mem::take(&mut self.data.rows);
        let lines = std::mem::take(&mut self.seen);
        for row in before {
            if self.is_beyond(row.key) {
                self.data.unsampled += 1;
            } else {
                let counted = lines.get(&row.key).map_or(1.0, |(_, lines)| *lines);
                self.seen.insert(row.key, (self.data.rows.len(), counted));
                self.data.rows.push(row);
            }
        }
    }

    fn finish(mut self) -> Data {
        let mut asked = vec![BTreeSet::new(); self.data.sources.len()];
        for row in &self.data.rows {
            self.data.sources[row.source].rows += 1;
            asked[row.source].extend(row.outcomes.iter().map(|outcome| outcome.model));
        }
        for (source, asked) in self.data.sources.iter_mut().zip(&asked) {
            source.models = asked.len();
        }
        self.data.models = by_index(self.models);
        self.data.tasks = by_index(self.tasks);
        self.data
    }
}

/// Hash by which rows of the same text and the same models are merged.
fn key(line: &Line) -> u64 {
    let names: Vec<&str> = line.outcomes.keys().map(String::as_str).collect();
    fnv1a(format!("{}\0{}", names.join("\0"), line.query).as_bytes())
}

fn validate(line: &Line) -> Result<(), BadLine> {
    if line.query.trim().is_empty() {
        return Err(BadLine::NoQuery);
    }
    if line.outcomes.is_empty() {
        return Err(BadLine::Unlabelled);
    }
    match line.outcomes.iter().find(|(_, score)| !(0.0..=1.0).contains(*score)) {
        Some((model, &score)) => Err(BadLine::Score { model: model.clone(), score }),
        None => Ok(()),
    }
}

fn index(known: &mut BTreeMap<String, usize>, name: &str) -> usize {
    let next = known.len();
    *known.entry(name.to_owned()).or_insert(next)
}

fn by_index(known: BTreeMap<String, usize>) -> Vec<String> {
    let mut names: Vec<(usize, String)> = known.into_iter().map(|(name, at)| (at, name)).collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name).collect()
}

/// The file's lines, decompressed if it is gzip, whatever its name.
fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut plain = BufReader::new(File::open(path)?);
    Ok(if plain.fill_buf()?.starts_with(&GZIP_MAGIC) {
        Box::new(BufReader::new(MultiGzDecoder::new(plain)))
    } else {
        Box::new(plain)
    })
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = BufReader::new(File::open(path)?);
    let mut hasher = Sha256::new();
    loop {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        hasher.update(chunk);
        let length = chunk.len();
        file.consume(length);
    }
    Ok(format!("{:x}", bytes::Bytes::copy_from_slice(&hasher.finalize())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::train) fn data(lines: &str) -> Data {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        read(&[file.path().to_owned()], &[]).unwrap()
    }

    #[test]
    fn spellings_of_a_model_are_merged_and_duplicates_count_once() {
        let line = |id: u8, model: &str| {
            format!(
                r#"{{"id":"{id}","source":"s","task":"t","query":"q{id}","outcomes":{{"{model}":1}}}}"#
            )
        };
        let lines =
            [line(1, "Meta-Llama-3_1-8B"), line(2, "llama-3.1-8b"), line(2, "llama-3.1-8b")];
        let data = data(&lines.join("\n"));
        assert_eq!(data.models, ["llama-3.1-8b"]);
        assert_eq!((data.rows.len(), data.duplicates, data.sources[0].models), (2, 1, 1));
    }

    #[test]
    fn gzip_is_read_whatever_the_name() {
        let line = r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":0.5}}"#;
        let mut encoder =
            flate2::read::GzEncoder::new(line.as_bytes(), flate2::Compression::fast());
        let mut packed = Vec::new();
        encoder.read_to_end(&mut packed).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), packed).unwrap();
        assert_eq!(read(&[file.path().to_owned()], &[]).unwrap().rows.len(), 1);
    }
}
