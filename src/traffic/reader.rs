//! Reads the log back, line by line. A torn last line, as a kill leaves it, is told apart from a bad one.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::record::{OLDEST_VERSION, RECORD_VERSION, Record};

/// One line of a log file.
#[derive(Debug)]
pub enum Line {
    Record(Box<Record>),
    /// The last line of a file, without its newline: the process was killed while it wrote.
    Torn,
    /// Not a record of a version this build knows.
    Bad {
        path: PathBuf,
        line: usize,
        reason: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no .jsonl file: is it the folder named by [traffic] dir?", .0.display())]
    Empty(PathBuf),
}

/// Reads a log file, or every `.jsonl` file of a folder in the order of their names.
pub fn read_log(path: &Path) -> Result<impl Iterator<Item = Result<Line, LogError>>, LogError> {
    let mut readers = Vec::new();
    for path in files(path)? {
        let file =
            File::open(&path).map_err(|source| LogError::Read { path: path.clone(), source })?;
        readers.push(FileLines { reader: BufReader::new(file), path, line: 0 });
    }
    Ok(readers.into_iter().flatten())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(LogError::Empty(path.to_owned())) } else { Ok(files) }
}

struct FileLines {
    reader: BufReader<File>,
    path: PathBuf,
    line: usize,
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
        let bad = |reason| Line::Bad { path: self.path.clone(), line: self.line, reason };
        match serde_json::from_slice::<Record>(bytes) {
            Ok(record) if (OLDEST_VERSION..=RECORD_VERSION).contains(&record.version) => {
                Line::Record(Box::new(record))
            }
            Ok(record) => bad(format!(
                "version {} is not {OLDEST_VERSION} to {RECORD_VERSION}, which this build reads",
                record.version
            )),
            Err(_) if !bytes.ends_with(b"\n") => Line::Torn,
            Err(error) => bad(error.to_string()),
        }
    }
}
