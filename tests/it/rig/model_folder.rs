//! A folder with the configuration of one model, and `wattgate models` run in it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::rig::hub::Hub;

/// A folder with a config of one model called `m`.
pub struct ModelFolder {
    pub dir: tempfile::TempDir,
    pub endpoint: String,
}

impl ModelFolder {
    pub fn new(source: &str, sha256: Option<&str>, hub: Option<&Hub>) -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            endpoint: hub.map_or("http://127.0.0.1:9".into(), |hub| hub.address.clone()),
        };
        folder.configure(source, sha256);
        folder
    }

    pub fn configure(&self, source: &str, sha256: Option<&str>) {
        let sha256 = sha256.map_or(String::new(), |sha256| format!("sha256 = \"{sha256}\"\n"));
        let text = format!("[models.m.llama]\nsource = \"{source}\"\n{sha256}");
        std::fs::write(self.dir.path().join("config.toml"), text).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        self.prepare(command.args(arguments)).output().unwrap()
    }

    /// Runs a command here and returns its exit code and output.
    pub fn shown(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.run(arguments);
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    /// Makes a command run here, with the mock hub and without an account.
    pub fn prepare<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HOME", self.dir.path())
            .env_remove("HF_TOKEN")
            .env("NO_PROXY", "127.0.0.1")
    }

    pub fn pull(&self) -> (Option<i32>, String) {
        self.shown(&["models", "pull"])
    }

    pub fn state(&self) -> String {
        let output = self.run(&["models", "list", "--json"]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        rows[0]["state"].as_str().unwrap().to_owned()
    }

    /// Everything under the model directory, without the lock and the checksum's record.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.dir.path().join("models")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if !path.ends_with(".lock")
                    && path.extension().is_none_or(|end| end != "sha256")
                {
                    files.push(path.strip_prefix(self.dir.path()).unwrap().to_owned());
                }
            }
        }
        files
    }

    pub fn hub_file(&self) -> PathBuf {
        self.dir.path().join("models/hf/org/repo/v1/tiny.gguf")
    }
}
