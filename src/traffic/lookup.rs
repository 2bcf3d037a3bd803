//! Lookup of one request in the log, for annotations of requests that are no longer in memory.
//!
//! Reads only the file of the day on which the id was made. Blocks: not for serving threads.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use uuid::Uuid;

use super::record::Record;
use super::segment::segment_path;
use crate::files::{self, FileError};

/// A record's id is within the first bytes of its line.
const HEAD_BYTES: usize = 128;

/// The record of the request, without annotations; `None` if the log does not hold it.
pub fn find(dir: &Path, id: &str) -> Result<Option<Record>, FileError> {
    // Ids are UUIDs of version 7, made at arrival, and hold that time.
    let Some(made) = Uuid::try_parse(id).ok().and_then(|id| id.get_timestamp()) else {
        return Ok(None);
    };
    let file = match files::open_read(&segment_path(dir, made.to_unix().0)) {
        Ok(file) => file,
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wanted = format!("\"request_id\":\"{id}\"");
    let (mut lines, mut line) = (BufReader::new(file), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        let head = &line[..line.len().min(HEAD_BYTES)];
        let is_it = head.windows(wanted.len()).any(|part| part == wanted.as_bytes());
        // Annotations hold the id, too, but do not parse as records.
        if is_it && let Ok(record) = serde_json::from_slice(&line) {
            return Ok(Some(record));
        }
        line.clear();
    }
    Ok(None)
}
