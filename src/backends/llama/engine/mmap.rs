//! Release of a mapped model file's memory after its weights were copied into another layout.
//!
//! The file stays mapped, because a few weights are used in place. Without the release, pages that
//! were read for copying would count as resident, in addition to the copy, until memory runs out.

#![expect(unsafe_code, reason = "madvise takes addresses")]

use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::path::Path;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Releases the pages of every mapping of `file`. Pages that are needed again come from the page
/// cache.
pub(crate) fn release_pages(file: &Path) {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    for pages in maps.lines().filter_map(|line| mapping_of(line, &file)) {
        // SAFETY: the mapping is shared and read-only, so released pages are read back unchanged.
        let done =
            unsafe { madvise(pages.start as *mut c_void, pages.len(), Advice::LinuxDontNeed) };
        if let Err(error) = done {
            // The mapping is locked (`mlock`).
            debug!("could not release mapped weights: {error}");
        }
    }
}

/// The address range of a line of `/proc/self/maps`, if it is a shared, read-only mapping of
/// `file`.
fn mapping_of(line: &str, file: &Path) -> Option<Range<usize>> {
    let mut fields = line.splitn(6, ' ');
    let (addresses, rights) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if rights != "r--s" || Path::new(path) != file {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_own_read_only_mappings_are_found() {
        let file = Path::new("/models/my model.gguf");
        let found = |line| mapping_of(line, file);
        let line = "7f00a000-7f00f000 r--s 00001000 fe:00 1234      /models/my model.gguf";
        assert_eq!(found(line), Some(0x7f00_a000..0x7f00_f000));
        assert_eq!(found("7f00a000-7f00f000 rw-p 00001000 fe:00 1234 /models/my model.gguf"), None);
        assert_eq!(found("7f00a000-7f00f000 r--s 00001000 fe:00 1234 /models/other.gguf"), None);
        assert_eq!(found("7f00a000-7f00f000 rw-p 00000000 00:00 0 "), None);
    }
}
