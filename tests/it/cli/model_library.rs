//! The catalogue and pulled files: `models search|pull NAME|verify|rm`.

use std::fs;

use crate::rig::hub::{Hub, HubMode, SOURCE, TINY, hex};
use crate::rig::model_folder::ModelFolder;
use crate::rig::serving::Serving;

/// A model of the catalogue: its path at the hub and on disk.
const KNOWN: &str = "qwen3-0.6b";
const KNOWN_PATH: &str = "/Qwen/Qwen3-0.6B-GGUF/resolve/main/Qwen3-0.6B-Q8_0.gguf";
const KNOWN_FILE: &str = "models/hf/Qwen/Qwen3-0.6B-GGUF/main/Qwen3-0.6B-Q8_0.gguf";

#[test]
fn search_finds_by_words_and_size() {
    let folder = ModelFolder::new(SOURCE, None, None);
    let (code, shown) = folder.shown(&["models", "search"]);
    assert!(
        code == Some(0) && shown.contains("smollm2-135m") && shown.contains("qwen3-32b"),
        "{shown}"
    );
    let found = |arguments: &[&str]| {
        let output = folder.run(&[&["models", "search", "--json"], arguments].concat());
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let names: Vec<String> = found(&["Qwen3", "--max-size", "2GiB"]);
    assert_eq!(names, ["qwen3-0.6b", "qwen3-1.7b"]);
    assert_eq!(found(&["embedding", "mit"]), ["bge-small-en-v1.5"]);
    assert_eq!(found(&["no such thing"]), [""; 0]);
    let (code, shown) = folder.shown(&["models", "search", "--max-size", "4 apples"]);
    assert!(code == Some(2) && shown.contains("write a size as in 4GiB"), "{shown}");
}

#[test]
fn a_model_of_the_catalogue_is_pulled_by_name_and_says_how_to_serve_it() {
    let hub = Hub::at(KNOWN_PATH, TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    fs::remove_file(folder.dir.path().join("config.toml")).unwrap();
    let (code, shown) = folder.shown(&["models", "pull", KNOWN]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(fs::read(folder.dir.path().join(KNOWN_FILE)).unwrap(), TINY);

    // The output is a valid configuration.
    let tables = &shown[shown.find("# qwen3").unwrap()..];
    let tables = &tables[..tables.find("\n\n\n").unwrap_or(tables.len())];
    let (tables, _) = tables.split_once("downloading").unwrap_or((tables, ""));
    fs::write(folder.dir.path().join("config.toml"), tables).unwrap();
    let (code, shown) = folder.shown(&["check"]);
    assert!(
        code == Some(0) && shown.contains("qwen3-0.6b") && !shown.contains("warning"),
        "{shown}"
    );
    assert_eq!(folder.state(), "present");

    let (code, shown) = folder.shown(&["models", "pull", "qwen3-0.6"]);
    assert!(code == Some(2) && shown.contains("did you mean `qwen3-0.6b`?"), "{shown}");
    // A named config that does not exist is an error, not an empty one.
    let (code, _) = folder.shown(&["models", "pull", KNOWN, "--config", "other.toml"]);
    assert_eq!(code, Some(2));
}

#[test]
fn verify_finds_a_changed_file_and_pull_replaces_it() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    let (code, shown) = folder.shown(&["models", "verify"]);
    assert!(code == Some(0) && shown.contains("not on this machine"), "{shown}");
    let (code, shown) = folder.shown(&["models", "verify", "m"]);
    assert!(code == Some(1) && shown.contains("models pull m"), "{shown}");

    assert_eq!(folder.pull().0, Some(0));
    let (code, shown) = folder.shown(&["models", "verify"]);
    assert!(
        code == Some(0) && shown.contains(&format!("m: good, SHA-256 {}", hex(TINY))),
        "{shown}"
    );

    let modified = fs::metadata(folder.hub_file()).unwrap().modified().unwrap();
    let mut rotten = TINY.to_vec();
    *rotten.last_mut().unwrap() ^= 1;
    fs::write(folder.hub_file(), &rotten).unwrap();
    let file = fs::File::options().write(true).open(folder.hub_file()).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(folder.state(), "present");
    let (code, shown) = folder.shown(&["models", "verify", "m"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains(&format!("actual   {}", hex(&rotten))), "{shown}");
    assert!(shown.contains("checking tiny.gguf"), "{shown}");
    assert_eq!(folder.state(), "wrong checksum");
    assert_eq!((folder.pull().0, folder.shown(&["models", "verify"]).0), (Some(0), Some(0)));
}

#[test]
fn rm_deletes_pulled_files_only_after_confirmation() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    assert_eq!(folder.pull().0, Some(0));
    let (code, shown) = folder.shown(&["models", "rm", "m"]);
    assert!(code == Some(2) && shown.contains("--yes"), "{shown}");
    assert!(folder.hub_file().exists());
    // The model and the record of its checksum.
    let (code, shown) = folder.shown(&["models", "rm", "m", "--yes"]);
    assert!(
        code == Some(0) && shown.contains("m: removed, ") && shown.contains(" B freed"),
        "{shown}"
    );
    assert!(!folder.dir.path().join("models/hf").exists());
    assert_eq!(folder.state(), "not pulled yet");
    let (code, shown) = folder.shown(&["models", "rm", "m", "--yes"]);
    assert!(code == Some(0) && shown.contains("nothing to free"), "{shown}");
    assert_eq!(folder.shown(&["models", "rm", "--yes", "n"]).0, Some(2));
    assert_eq!(folder.shown(&["models", "rm", "--yes"]).0, Some(2));
}

#[test]
fn rm_keeps_foreign_files_and_files_another_model_needs() {
    let hub = Hub::at(KNOWN_PATH, TINY, HubMode::Honest);
    let folder = ModelFolder::new("hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf", None, Some(&hub));
    assert_eq!(folder.pull().0, Some(0));
    let (code, shown) = folder.shown(&["models", "rm", KNOWN, "--yes"]);
    assert!(code == Some(1) && shown.contains("m in the config needs the same file"), "{shown}");
    assert!(folder.dir.path().join(KNOWN_FILE).exists());
    let (code, shown) = folder.shown(&["models", "rm", KNOWN, "m", "--yes"]);
    assert!(code == Some(0) && shown.contains("freed"), "{shown}");

    fs::write(folder.dir.path().join("own.gguf"), TINY).unwrap();
    folder.configure("file:own.gguf", None);
    let (code, shown) = folder.shown(&["models", "rm", "m", "--yes"]);
    assert!(code == Some(1) && shown.contains("own.gguf is a file of your own"), "{shown}");
    assert!(folder.dir.path().join("own.gguf").exists());
}

#[test]
fn serve_reports_a_file_with_another_checksum() {
    let hub = Hub::start(TINY, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    assert_eq!(folder.pull().0, Some(0));
    folder.configure(SOURCE, Some(&hex(b"another model")));
    let dir = Serving::start_in(folder.dir).kill();
    let log = fs::read_to_string(dir.path().join("process.log")).unwrap();
    assert!(
        log.contains(
            "m: file checksum differs from the configured sha256: run `wattgate models pull m`"
        ),
        "{log}"
    );
    assert!(log.contains(&hex(TINY)), "{log}");
}
