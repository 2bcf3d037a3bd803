//! Files that the gateway writes for itself: what may hold prompts is private to the user, what
//! must not be torn is replaced whole.
//!
//! Must not know what the files hold. A symbolic link is never followed at a file's own name: in a
//! folder that others may write to, it would choose what is written to. Links above it are the
//! operator's.

use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
/// As the process's umask leaves it.
const SHARED_FILE: u32 = 0o666;
/// Permissions of the group and of all others.
const OTHERS: u32 = 0o077;

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("it is a symbolic link, which is not followed: remove it, or configure its target")]
    Symlink,
    #[error("it is {0} and not a regular file: remove it, or configure another folder")]
    NotAFile(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Which file a descriptor or a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// The file at the path itself; `None` if there is none that can be seen.
    pub fn at(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().map(|found| Self::of(&found))
    }
}

/// Creates a folder and those above it, private to the user; an existing one stays as it is.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)
}

/// Opens a file for reading and appending; creates it private to the user.
pub fn open_private_append(path: &Path) -> Result<File, FileError> {
    open(path, OpenOptions::new().create(true).read(true).append(true), PRIVATE_FILE)
}

/// Opens an existing file for reading.
pub fn open_read(path: &Path) -> Result<File, FileError> {
    open(path, OpenOptions::new().read(true), PRIVATE_FILE)
}

/// Takes the permissions of others from an open file; returns those it had, if there were any.
pub fn make_private(file: &File) -> io::Result<Option<u32>> {
    let mode = file.metadata()?.mode() & 0o777;
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
    Ok(Some(mode))
}

/// The permissions at a path, if any of them are for others; `None` if there is nothing to see.
pub fn permissions_of_others(path: &Path) -> Option<u32> {
    let mode = path.metadata().ok()?.mode() & 0o777;
    (mode & OTHERS != 0).then_some(mode)
}

/// Replaces a file atomically: a reader, or a crash, finds the old or the new one whole.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let options = &mut OpenOptions::new();
    options.create(true).write(true).truncate(true);
    let mut file = open(&fresh, options, SHARED_FILE).map_err(|error| match error {
        FileError::Io(error) => error,
        refused => io::Error::other(format!("{}: {refused}", fresh.display())),
    })?;
    file.write_all(bytes.as_ref())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn open(path: &Path, options: &mut OpenOptions, mode: u32) -> Result<File, FileError> {
    // Without blocking, so that a FIFO is refused and not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = options.mode(mode).custom_flags(flags.bits().cast_signed()).open(path);
    let kind = match &opened {
        Ok(file) => file.metadata()?.file_type(),
        // A link, a folder or a socket fails to open, each with an error that does not say so.
        Err(_) => match path.symlink_metadata() {
            Ok(found) => found.file_type(),
            Err(_) => return Ok(opened?),
        },
    };
    if kind.is_symlink() {
        return Err(FileError::Symlink);
    }
    match special(kind) {
        Some(name) => Err(FileError::NotAFile(name)),
        None => Ok(opened?),
    }
}

/// What it is, if it is not a regular file.
fn special(kind: FileType) -> Option<&'static str> {
    let kinds = [
        (kind.is_dir(), "a folder"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device() || kind.is_block_device(), "a device"),
    ];
    kinds.into_iter().find_map(|(is, name)| is.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_created_is_private_and_what_was_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        create_private_dir(&folder).unwrap();
        let file = folder.join("log");
        drop(open_private_append(&file).unwrap());
        assert_eq!(
            (mode(&folder), mode(&dir.path().join("a")), mode(&file)),
            (0o700, 0o700, 0o600)
        );
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(permissions_of_others(&file), Some(0o644));
        let opened = open_private_append(&file).unwrap();
        assert_eq!(make_private(&opened).unwrap(), Some(0o644));
        assert_eq!((mode(&file), make_private(&opened).unwrap()), (0o600, None));
    }

    #[test]
    fn links_and_special_files_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("target"), "kept").unwrap();
        std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        for open in [open_private_append, open_read] {
            for link in ["link", "dangling"] {
                assert!(matches!(open(&at(link)), Err(FileError::Symlink)), "{link}");
            }
            for name in ["fifo", "socket", "folder"] {
                assert!(matches!(open(&at(name)), Err(FileError::NotAFile(_))), "{name}");
            }
            assert!(matches!(open(Path::new("/dev/null")), Err(FileError::NotAFile("a device"))));
            assert!(open(&at("target")).is_ok());
        }
        assert!(!at("nowhere").exists());
        assert!(matches!(open_read(&at("missing")), Err(FileError::Io(_))));
    }

    #[test]
    fn a_file_is_replaced_whole_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card.md");
        std::fs::write(&path, "old").unwrap();
        std::fs::write(dir.path().join("card.md.new"), "left by a crash, and longer").unwrap();
        replace(&path, "fresh").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fresh");
        std::os::unix::fs::symlink(&path, dir.path().join("card.md.new")).unwrap();
        assert!(replace(&path, "again").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fresh");
    }
}
