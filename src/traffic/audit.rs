//! What is wrong with the folder of the log on this disk: open to other users, or not to be written
//! to. Reads names and permissions, and changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::files;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Other users can enter the folder.
    OpenFolder { dir: PathBuf, mode: u32 },
    /// Other users can read or write some files of such a folder.
    OpenFiles { dir: PathBuf, count: usize },
    /// A link or special file in the place of a file of the log, which the gateway refuses.
    Refused { path: PathBuf },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenFolder { dir, mode } => {
                let dir = dir.display();
                write!(f, "{dir} is open to other users (mode {mode:o}): run `chmod 700 {dir}`")
            }
            Self::OpenFiles { dir, count } => {
                let (dir, files) = (dir.display(), if *count == 1 { "file" } else { "files" });
                write!(
                    f,
                    "{count} {files} in {dir} can be read by other users: run `chmod 600 {dir}/*.jsonl`"
                )
            }
            Self::Refused { path } => write!(
                f,
                "{} is a symbolic link or no regular file, and is not written to: remove it",
                path.display()
            ),
        }
    }
}

/// What is wrong with the log in `dir`; nothing if there is none yet.
pub fn findings(dir: &Path) -> Vec<Finding> {
    let open = files::permissions_of_others(dir);
    let mut findings = Vec::new();
    if let Some(mode) = open {
        findings.push(Finding::OpenFolder { dir: dir.to_owned(), mode });
    }
    let mut count = 0;
    for path in dir.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Ok(found) = path.symlink_metadata() else { continue };
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        if !found.is_file() {
            findings.push(Finding::Refused { path });
        } else if open.is_some() && files::permissions_of_others(&path).is_some() {
            count += 1;
        }
    }
    if count > 0 {
        findings.push(Finding::OpenFiles { dir: dir.to_owned(), count });
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_can_read_and_what_is_no_file_is_found() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("log");
        assert_eq!(findings(&dir), []);
        files::create_private_dir(&dir).unwrap();
        let day = dir.join("2026-01-01.jsonl");
        fs::write(&day, "").unwrap();
        fs::set_permissions(&day, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(findings(&dir), [], "no other user reaches a file in a private folder");
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        symlink(&day, dir.join("2026-01-02.jsonl")).unwrap();
        assert_eq!(
            findings(&dir),
            [
                Finding::OpenFolder { dir: dir.clone(), mode: 0o755 },
                Finding::Refused { path: dir.join("2026-01-02.jsonl") },
                Finding::OpenFiles { dir: dir.clone(), count: 1 },
            ]
        );
    }
}
