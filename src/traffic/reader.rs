//! Reader of the log: its lines in order, each record with the label from later annotations.
//!
//! A torn last line, left by a kill, is distinguished from an invalid one. Verdicts may come days
//! after their records, so the files are read twice: once for the verdicts, which are few, once for
//! the records.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::feedback::{ANNOTATION_PREFIX, Annotation, FEEDBACK_VERSION, Verdicts};
use super::record::{OLDEST_VERSION, RECORD_VERSION, Record};

/// One line of a log file.
#[derive(Debug)]
pub enum Line {
    /// With its label, if the log holds one.
    Record(Box<Record>),
    /// An annotation of an earlier request; verdicts have been joined to their records already.
    Annotation(Annotation),
    /// The last line of a file, without a newline: the process was killed during the write.
    Torn,
    /// An invalid line, or one of an unsupported version.
    Bad { path: PathBuf, line: usize, reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no .jsonl file: pass the folder named by `dir` under [traffic]", .0.display())]
    Empty(PathBuf),
}

/// Reads a log file, or every `.jsonl` file of a folder in the order of their names.
pub fn read_log(path: &Path) -> Result<impl Iterator<Item = Result<Line, LogError>>, LogError> {
    let files = files(path)?;
    let labels = Rc::new(labels(&files)?);
    let mut readers = Vec::new();
    for path in files {
        let reader = open(&path)?;
        readers.push(FileLines { reader, path, line: 0, labels: Rc::clone(&labels) });
    }
    Ok(readers.into_iter().flatten())
}

fn open(path: &Path) -> Result<BufReader<File>, LogError> {
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    Ok(BufReader::new(File::open(path).map_err(failed)?))
}

/// The label of each request with verdicts. Invalid lines are reported by the second pass.
fn labels(files: &[PathBuf]) -> Result<HashMap<Arc<str>, f64>, LogError> {
    let mut verdicts: HashMap<Arc<str>, Verdicts> = HashMap::new();
    let mut bytes = Vec::new();
    for path in files {
        let mut reader = open(path)?;
        let failed = |source| LogError::Read { path: path.clone(), source };
        while reader.read_until(b'\n', &mut bytes).map_err(failed)? > 0 {
            if bytes.starts_with(ANNOTATION_PREFIX)
                && let Ok(Annotation::Feedback(feedback)) = serde_json::from_slice(&bytes)
                && feedback.version == FEEDBACK_VERSION
            {
                verdicts
                    .entry(feedback.request_id)
                    .or_default()
                    .set(feedback.source, feedback.score);
            }
            bytes.clear();
        }
    }
    let label = |(id, verdicts): (Arc<str>, Verdicts)| Some((id, verdicts.label()?));
    Ok(verdicts.into_iter().filter_map(label).collect())
}

/// The files of a log, in the order of their names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        // A FIFO would be waited for.
        if file.metadata().is_ok_and(|found| !found.is_file()) {
            let source = io::Error::other("not a regular file");
            return Err(LogError::Read { path: file, source });
        }
        files.push(file);
    }
    files.sort();
    if files.is_empty() { Err(LogError::Empty(path.to_owned())) } else { Ok(files) }
}

struct FileLines {
    reader: BufReader<File>,
    path: PathBuf,
    line: usize,
    labels: Rc<HashMap<Arc<str>, f64>>,
}

impl Iterator for FileLines {
    type Item = Result<Line, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            match self.reader.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.trim_ascii().is_empty() => {}
                Ok(_) => return Some(Ok(self.parse(&bytes))),
                Err(source) => {
                    return Some(Err(LogError::Read { path: self.path.clone(), source }));
                }
            }
        }
    }
}

impl FileLines {
    fn parse(&self, bytes: &[u8]) -> Line {
        let parsed = if bytes.starts_with(ANNOTATION_PREFIX) {
            serde_json::from_slice(bytes).map(|annotation: Annotation| {
                let version = annotation.version();
                (version, FEEDBACK_VERSION..=FEEDBACK_VERSION, Line::Annotation(annotation))
            })
        } else {
            serde_json::from_slice(bytes).map(|mut record: Box<Record>| {
                let label = self.labels.get(&record.receipt.request_id).copied();
                record.label = label.or(record.label);
                (record.version, OLDEST_VERSION..=RECORD_VERSION, Line::Record(record))
            })
        };
        let bad = |reason| Line::Bad { path: self.path.clone(), line: self.line, reason };
        match parsed {
            Ok((found, known, line)) if known.contains(&found) => line,
            Ok((found, known, _)) => {
                let (oldest, newest) = known.into_inner();
                bad(format!("version {found} is not {oldest} to {newest}, which this build reads"))
            }
            Err(_) if !bytes.ends_with(b"\n") => Line::Torn,
            Err(error) => bad(error.to_string()),
        }
    }
}
