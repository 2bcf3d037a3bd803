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

/// When the request arrived, milliseconds since the Unix epoch, by its id. A record goes into the
/// file of that day, wherever the clock stands by then.
pub fn arrival_ms(id: &str) -> Option<u64> {
    // Ids are UUIDs of version 7, made at arrival, and hold that time.
    let (seconds, nanoseconds) = Uuid::try_parse(id).ok()?.get_timestamp()?.to_unix();
    Some(seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds) / 1_000_000))
}

/// The record of the request, without annotations; `None` if the log does not hold it.
pub fn find(dir: &Path, id: &str) -> Result<Option<Record>, FileError> {
    let Some(arrived_ms) = arrival_ms(id) else { return Ok(None) };
    let file = match files::open_read(&segment_path(dir, arrived_ms / 1000)) {
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
