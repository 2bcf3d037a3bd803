//! Models of the fake engine, which answers from a script over the real wire protocol. For tests of
//! supervision, memory, crashes and metering, which need no real answer.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Answers of every fake model here: some content to look for, and a long one.
const ANSWERS: &str = "
[default]
text = \"Shakespeare wrote Hamlet, and Paris is the capital of France.\"
[[answers]]
when = \"long\"
text = \"LONG\"
[[answers]]
when = \"Count\"
text = \"LONG\"
";

/// The script of a fake model, in a file that the test may rewrite.
pub struct FakeModel {
    path: PathBuf,
}

/// A fake model that loads at once and takes 5 ms for each step.
pub static FAKE: LazyLock<FakeModel> =
    LazyLock::new(|| FakeModel::new("default", "load_ms = 5\nstep_ms = 5"));

impl FakeModel {
    /// Each name is for one test: the files are in a common folder.
    pub fn new(name: &str, timing: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.fake.toml"));
        let model = Self { path };
        model.set(timing);
        model
    }

    /// Timing of the loads from now on, and of the steps after them.
    pub fn set(&self, timing: &str) {
        let answers = ANSWERS.replace("LONG", &"and so on ".repeat(1000));
        std::fs::write(&self.path, format!("{timing}\n{answers}")).unwrap();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
