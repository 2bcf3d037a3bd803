//! Pulls that are killed, run out of disk or hit a file size limit: the next one resumes, and no
//! partial file is used.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use crate::rig::hub::{Hub, HubMode, SOURCE, hex};
use crate::rig::model_folder::ModelFolder;

/// Large enough to be sent in parts, and different in each.
static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    b"GGUF".iter().copied().chain(noise).take(1 << 20).collect()
});

fn shell(folder: &ModelFolder, script: &str) -> Output {
    let wattgate = env!("CARGO_BIN_EXE_wattgate");
    let mut command = Command::new("sh");
    folder.prepare(command.args(["-c", script]).env("WATTGATE", wattgate)).output().unwrap()
}

fn shown(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn a_killed_pull_is_resumed() {
    let stalling = Hub::start(&LARGE, HubMode::Stalls);
    let mut folder = ModelFolder::new(SOURCE, Some(&hex(&LARGE)), Some(&stalling));
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    folder.prepare(command.args(["models", "pull"])).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut pull = command.spawn().unwrap();
    let mut lines = BufReader::new(pull.stderr.take().unwrap()).lines().map_while(Result::ok);
    // The hub sends half of the file and then nothing; chunks may skip any percentage before.
    assert!(lines.any(|line| line.contains("50 %")), "it ended before it was killed");

    // A second pull sees that this one is running.
    let (code, said) = folder.pull();
    assert!(code == Some(1) && said.contains("another process is pulling"), "{said}");
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert!(!folder.hub_file().exists());
    assert_eq!(folder.state(), "not pulled yet");

    let honest = Hub::start(&LARGE, HubMode::Honest);
    folder.endpoint.clone_from(&honest.address);
    let (code, said) = folder.pull();
    assert_eq!(code, Some(0), "{said}");
    assert!(honest.downloads()[0] == LARGE.len() / 2, "{:?}", honest.downloads());
    assert!(std::fs::read(folder.hub_file()).unwrap() == *LARGE);
    assert_eq!(folder.files(), [Path::new("models/hf/org/repo/v1/tiny.gguf")]);
}

#[test]
fn a_file_size_limit_is_reported() {
    let hub = Hub::start(&LARGE, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, None, Some(&hub));
    // Shells count in blocks of 512 or 1024 bytes; a process that does not ignore the signal would
    // be killed.
    let output = shell(&folder, r#"trap "" XFSZ; ulimit -f 100; exec "$WATTGATE" models pull"#);
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("does not allow files of this size") && said.contains("hint: "),
        "{said}"
    );
    assert!(!folder.hub_file().exists());
    // The received part is kept, and the rest fetched once there is space.
    let (code, said) = folder.pull();
    assert_eq!(code, Some(0), "{said}");
    assert!(*hub.downloads().last().unwrap() > 0, "{:?}", hub.downloads());
    assert!(std::fs::read(folder.hub_file()).unwrap() == *LARGE);
}

/// A file system that is really full. Needs user namespaces or root, which most Linux machines
/// have.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_reported_and_the_pull_resumed_once_there_is_space() {
    let namespaces = Command::new("unshare").args(["-rm", "true"]).output();
    if !namespaces.is_ok_and(|output| output.status.success()) {
        eprintln!("not run: this machine lets nobody mount a file system of their own");
        return;
    }
    let hub = Hub::start(&LARGE, HubMode::Honest);
    let folder = ModelFolder::new(SOURCE, Some(&hex(&LARGE)), Some(&hub));
    let script = r#"mkdir models && mount -t tmpfs -o size=512k none models || exit 9
        "$WATTGATE" models pull; echo "code $?"
        test ! -e models/hf/org/repo/v1/tiny.gguf && echo nothing half
        mount -o remount,size=4m models && "$WATTGATE" models pull; echo "code $?"
        "$WATTGATE" models verify; echo "code $?""#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).env("WATTGATE", env!("CARGO_BIN_EXE_wattgate"));
    let output = folder.prepare(&mut command).output().unwrap();
    let said = shown(&output);
    assert_eq!(said.matches("code 0").count(), 2, "{said}");
    assert_eq!(said.matches("code 1").count(), 1, "{said}");
    assert!(
        said.contains("no space left on the disk") && said.contains("free some space"),
        "{said}"
    );
    assert!(said.contains("nothing half"), "{said}");
    let (first, last) = (hub.downloads()[0], *hub.downloads().last().unwrap());
    assert!(first == 0 && last >= 256 << 10, "{:?}", hub.downloads());
}
