//! The operator's Unix socket: a file that only the gateway's user may open.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::AppError;
use crate::files::FileId;

/// Read and write, for the user.
const PRIVATE: u32 = 0o600;

/// The socket's file, which is removed with the value.
pub(super) struct SocketFile {
    path: PathBuf,
    id: Option<FileId>,
}

/// Binds the socket. One that an earlier process left is replaced; one that another process listens
/// on, and a file of another kind, are not.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), AppError> {
    listen(path).map_err(|source| AppError::Socket { path: path.to_owned(), source })
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("there is a file that is not a socket: remove it"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::Error::other("another process listens on it"));
        }
        Ok(_) | Err(_) => {}
    }
    // Under another name until it is private.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(PRIVATE))?;
    std::fs::rename(&fresh, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), id: FileId::at(path) }))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another gateway may have put its own there.
        if self.id.is_some()
            && FileId::at(&self.path) == self.id
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}
