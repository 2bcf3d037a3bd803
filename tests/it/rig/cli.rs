//! The binary run to its end, and a configuration for commands that start no model.

use std::path::Path;
use std::process::{Command, Output};

pub fn wattgate(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate")).current_dir(dir).args(arguments).output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A local and a cloud model, neither of which runs.
pub const CONFIG: &str = "
[models.here]
ability = -1.0
[models.here.llama]
source = \"file:nowhere.gguf\"
[models.there]
ability = 2.0
[models.there.openai]
base_url = \"http://127.0.0.1:9/v1\"
energy_class = \"small\"
";
