//! What an engine process may do. It parses files from strangers, in C++.
//!
//! Two layers: `limits` on memory, descriptors and life, which every Unix has; and on Linux a view
//! of its own files only (Landlock) and no network (a filter of system calls). A kernel or a
//! container may lack the second: `Hold` says what holds.

#[cfg(target_os = "linux")]
mod files;
pub mod limits;
#[cfg(target_os = "linux")]
mod system_calls;

use std::fmt;
use std::path::PathBuf;

use super::wire::settings::{EngineSettings, Sandbox};

/// The parts of the sandbox that hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Only the engine's own files can be opened, and nothing can be written.
    pub files: bool,
    /// No socket can be opened, no other process traced.
    pub system_calls: bool,
}

impl Hold {
    pub const NOTHING: Self = Self { files: false, system_calls: false };

    pub fn is_whole(self) -> bool {
        self.files && self.system_calls
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.files, self.system_calls) {
            (true, true) => "own files only, no network",
            (true, false) => "own files only",
            (false, true) => "no network",
            (false, false) => "none",
        })
    }
}

/// The sandbox cannot be had, and the config requires it.
#[derive(Debug, thiserror::Error)]
#[error("this machine's kernel lacks part of the sandbox that `[engines] sandbox` requires ({0})")]
pub struct Lacking(Hold);

/// Puts the calling thread, and all that it starts, into the sandbox. Opened files stay open.
pub fn enter(settings: &EngineSettings) -> Result<Hold, Lacking> {
    let hold = match settings.sandbox {
        Sandbox::Off => return Ok(Hold::NOTHING),
        // Drivers of graphics cards need devices and libraries that differ by vendor.
        _ if super::GPU_BUILT_IN => Hold::NOTHING,
        Sandbox::Auto | Sandbox::Required => restrict(&own_files(settings)),
    };
    if settings.sandbox == Sandbox::Required && !hold.is_whole() {
        return Err(Lacking(hold));
    }
    Ok(hold)
}

/// What would hold on this machine: tried out on a thread that ends.
pub fn available() -> Hold {
    if super::GPU_BUILT_IN {
        return Hold::NOTHING;
    }
    let tried = std::thread::spawn(|| restrict(&[])).join();
    tried.unwrap_or(Hold::NOTHING)
}

/// What engines are not kept from on this machine: tried out on a thread that ends.
pub fn lacks() -> Vec<&'static str> {
    if super::GPU_BUILT_IN {
        return vec![
            "everything that the user may do: engines that use graphics cards are not confined",
        ];
    }
    let tried = std::thread::spawn(|| {
        let hold = restrict(&[]);
        let system_calls = (!hold.system_calls)
            .then_some("sockets can be opened: a kernel with seccomp, on x86-64, arm64 or RISC-V");
        lacking_files().into_iter().chain(system_calls).collect()
    });
    tried.join().unwrap_or_default()
}

#[cfg(target_os = "linux")]
fn lacking_files() -> Vec<&'static str> {
    files::lacks()
}

#[cfg(not(target_os = "linux"))]
fn lacking_files() -> Vec<&'static str> {
    vec!["any file of the user can be opened: only Linux confines engines"]
}

/// Puts the calling thread into the sandbox, with these files as its own.
#[cfg(target_os = "linux")]
pub fn restrict(files: &[PathBuf]) -> Hold {
    Hold { files: files::restrict(files), system_calls: system_calls::restrict() }
}

#[cfg(not(target_os = "linux"))]
pub fn restrict(_: &[PathBuf]) -> Hold {
    Hold::NOTHING
}

/// The files that the settings name, and the other parts of a model in several.
fn own_files(settings: &EngineSettings) -> Vec<PathBuf> {
    let adapter = settings.lora.iter().map(|(path, _)| path);
    let named = adapter.chain(&settings.chat_template);
    let mut files: Vec<PathBuf> = named.cloned().collect();
    files.extend(parts(&settings.gguf));
    files
}

/// `model-00001-of-00003.gguf` and its siblings; a file without such a number alone.
fn parts(gguf: &std::path::Path) -> Vec<PathBuf> {
    let name = gguf.file_name().map(|name| name.to_string_lossy().into_owned());
    let stem = name.as_deref().and_then(|name| name.rsplit_once("-of-")?.0.rsplit_once('-'));
    let mut parts = vec![gguf.to_owned()];
    if let (Some((stem, _)), Some(folder)) = (stem, gguf.parent()) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let siblings = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.strip_prefix(stem).is_some_and(|n| n.contains("-of-")))
        });
        parts.extend(siblings);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_in_parts_is_read_whole_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n.gguf", "m.gguf"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |name: &str| {
            let mut found = parts(&folder.path().join(name));
            found.sort();
            found.dedup();
            found.len()
        };
        assert_eq!((found("m-00001-of-00002.gguf"), found("m.gguf")), (2, 1));
    }
}
