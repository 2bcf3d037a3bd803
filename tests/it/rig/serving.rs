//! `wattgate serve` as a separate process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

/// The process; dropping it kills it. Its log goes to `process.log`.
pub struct Serving {
    child: Child,
    pub url: String,
    pub dir: TempDir,
}

impl Serving {
    /// Starts with `config` in a temporary folder and waits until it listens.
    pub fn start(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        Self::start_in(dir)
    }

    pub fn start_in(dir: TempDir) -> Self {
        let command = serve(dir.path(), "127.0.0.1:0");
        Self::start_by(command, dir)
    }

    /// With these environment variables.
    pub fn start_with_env(dir: TempDir, env: &[(&str, &str)]) -> Self {
        let mut command = serve(dir.path(), "127.0.0.1:0");
        command.envs(env.iter().copied());
        Self::start_by(command, dir)
    }

    /// Starts by a command that becomes the gateway.
    pub fn start_by(mut command: Command, dir: TempDir) -> Self {
        let log = std::fs::File::create(dir.path().join("process.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("serve says where it listens");
        Self { url: url.to_owned(), child, dir }
    }

    /// What the process has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("process.log")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and returns its folder.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends SIGTERM and waits for the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn serve(dir: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir).args(["serve", "--listen", listen]);
    command
}
