//! `wattgate log tail`: the last records, and the new ones as they come.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::line;
use crate::cli::console::say;
use crate::traffic::reader::files;
use crate::traffic::{LogError, Record};

/// How often a followed log is looked at.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn run(path: &Path, count: usize, follow: bool) -> anyhow::Result<u8> {
    let zone = TimeZone::system();
    let mut ends = HashMap::new();
    let mut last: VecDeque<Record> = VecDeque::new();
    read_new(path, &mut ends, |record| {
        last.push_back(record);
        if last.len() > count {
            last.pop_front();
        }
    })?;
    for record in &last {
        say(&line::of(record, &zone));
    }
    if !follow {
        return Ok(0);
    }
    loop {
        thread::sleep(PAUSE);
        read_new(path, &mut ends, |record| say(&line::of(&record, &zone)))?;
    }
}

/// Hands over the whole records behind `ends`, which move behind them.
fn read_new(
    path: &Path,
    ends: &mut HashMap<PathBuf, u64>,
    mut record: impl FnMut(Record),
) -> Result<(), LogError> {
    for file in files(path)? {
        let failed = |source| LogError::Read { path: file.clone(), source };
        let mut reader = BufReader::new(File::open(&file).map_err(failed)?);
        let end = ends.entry(file.clone()).or_default();
        // A file that became shorter is another one.
        if reader.get_ref().metadata().map_err(failed)?.len() < *end {
            *end = 0;
        }
        reader.seek(SeekFrom::Start(*end)).map_err(failed)?;
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).map_err(failed)? > 0 && bytes.ends_with(b"\n") {
            *end += bytes.len() as u64;
            if let Ok(read) = serde_json::from_slice(&bytes) {
                record(read);
            }
            bytes.clear();
        }
    }
    Ok(())
}
