//! Damaged and hostile model files: the error names the defect and the gateway keeps running.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;
use wattgate::backends::llama::Phase;
use wattgate::backends::llama::memory::gguf::parse;

use crate::rig::app::{PATIENCE, TestApp, ask, cloud_model};
use crate::rig::engine::model_path;
use crate::rig::local_models::{engine_state, local_model};
use crate::rig::mock_upstream::MockUpstream;

/// The real model's header, and the beginning of its data.
static HEADER: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(model_path()).unwrap()[..3 << 20].to_vec());

/// Length of the whole file.
fn file_bytes() -> u64 {
    fs::metadata(model_path()).unwrap().len()
}

/// Offset of the value of an entry, or of the description of a tensor: after its name.
fn after(name: &str) -> usize {
    let length = u64::try_from(name.len()).unwrap().to_le_bytes();
    let needle = [&length, name.as_bytes()].concat();
    let found = HEADER.windows(needle.len()).position(|window| window == needle);
    found.unwrap_or_else(|| panic!("no {name}")) + needle.len()
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = HEADER.clone();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    header
}

/// Headers with one defect each, and the words of the error that must name it.
fn wrong() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const HUGE: [u8; 8] = (1_u64 << 62).to_le_bytes();
    const U32_MOST: [u8; 4] = [0xff; 4];
    // After an entry's name: its type, and of a list the type and the number of its elements.
    let tokens = after("tokenizer.ggml.tokens");
    // After a tensor's name: the number of its dimensions, each, its type and its offset.
    let tensor = after("blk.0.attn_q.weight");
    let architecture = after("general.architecture") + 4 + 8;
    let [layers, width, inner] =
        ["llama.block_count", "llama.embedding_length", "llama.feed_forward_length"]
            .map(|name| after(name) + 4);
    vec![
        ("magic", patched(0, b"PK\x03\x04"), "not a GGUF"),
        ("version", patched(4, &77_u32.to_le_bytes()), "version 77"),
        ("tensors", patched(8, &HUGE), "invalid GGUF header"),
        ("entries", patched(16, &HUGE), "invalid GGUF header"),
        ("key", patched(24, &HUGE), "exceeds the file"),
        ("type", patched(tokens, &U32_MOST), "must be an array"),
        ("list", patched(tokens + 8, &HUGE), "invalid GGUF header"),
        ("nested", patched(tokens + 4, &9_u32.to_le_bytes()), "invalid GGUF header"),
        ("dimensions", patched(tensor, &100_u32.to_le_bytes()), "dimensions"),
        ("matrix", patched(tensor + 4, &[HUGE, HUGE].concat()), "larger than"),
        ("kind", patched(tensor + 20, &9999_u32.to_le_bytes()), "type"),
        ("outside", patched(tensor + 24, &HUGE), "beyond the end"),
        // Defects that only llama.cpp detects, in its words.
        ("architecture", patched(architecture, b"xxxxx"), "unknown model architecture"),
        ("layers", patched(layers, &31_u32.to_le_bytes()), "'blk.30.attn_norm.weight' not found"),
        ("inner", patched(inner, &U32_MOST), "wrong shape"),
        ("narrow", patched(width, &[0; 4]), "n_rot"),
        (
            "epsilon",
            patched(after("llama.attention.layer_norm_rms_epsilon") + 4, &f32::NAN.to_le_bytes()),
            "none at all",
        ),
        (
            "base",
            patched(after("llama.rope.freq_base") + 4, &f32::INFINITY.to_le_bytes()),
            "infinite",
        ),
        // Headers that would take all memory are refused before loading.
        ("deep", patched(layers, &U32_MOST), "it needs"),
        ("wide", patched(width, &U32_MOST), "it needs"),
    ]
}

/// A file with this header whose data are zeros; `bytes` long without taking them on disk.
fn write(dir: &Path, name: &str, header: &[u8], bytes: u64) -> PathBuf {
    let path = dir.join(format!("{name}.gguf"));
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(header).unwrap();
    file.set_len(bytes).unwrap();
    path
}

/// Loads the files in a gateway with a cloud model; returns the load error of each, `None` if it
/// loaded.
async fn load(files: &[(String, PathBuf)]) -> Vec<Option<String>> {
    let upstream = MockUpstream::start().await;
    let mut config = cloud_model("cloud", 3.0, &upstream);
    for (name, path) in files {
        config += &local_model(name, path, "slots = 1\nbatch_tokens = 32");
    }
    let app = TestApp::start(&config).await;
    let mut reasons = Vec::new();
    for (name, _) in files {
        let mut state = engine_state(&app, name);
        let ended = state.wait_for(|state| matches!(state.phase, Phase::Down(_) | Phase::Ready(_)));
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        let ended = ended.unwrap_or_else(|_| panic!("{name} neither loads nor fails")).unwrap();
        let reason = match &ended.phase {
            Phase::Down(reason) => Some(reason.to_string()),
            _ => None,
        };
        drop(ended);
        if reason.is_some() {
            let raw = json!({"model": name, "prompt": "hello", "max_tokens": 1});
            assert_eq!(app.post("/v1/completions", &raw).await.status, 503, "{name}");
        }
        reasons.push(reason);
    }
    let reply = app.chat(&ask("cloud", "hello")).await;
    assert_eq!(reply.receipt()["model"], "cloud", "{}", reply.text);
    app.stop().await;
    reasons
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_damaged_file_is_refused_with_its_defect() {
    let dir = tempfile::tempdir().unwrap();
    let mut files: Vec<_> = wrong()
        .into_iter()
        .map(|(name, header, words)| (name, write(dir.path(), name, &header, file_bytes()), words))
        .collect();
    let cut = write(dir.path(), "cut", &HEADER, 3 << 20);
    files.push(("cut", cut, "beyond the end"));
    let named: Vec<_> =
        files.iter().map(|(name, path, _)| (name.to_string(), path.clone())).collect();
    for ((name, _, words), reason) in files.iter().zip(load(&named).await) {
        let reason = reason.unwrap_or_else(|| panic!("{name} was loaded"));
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(*words == "it needs" || reason.contains(".gguf"), "{name}: {reason}");
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_header_without_a_context_length_loads() {
    let dir = tempfile::tempdir().unwrap();
    let header = patched(after("llama.context_length") + 4, &[0; 4]);
    let path = write(dir.path(), "open", &header, file_bytes());
    assert_eq!(load(&[("open".to_owned(), path)]).await, [None]);
}

/// A change at an offset of the header, weighted towards the numbers: its beginning and its list of
/// tensors.
fn change() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let tensors = after("token_embd.weight");
    let place = prop_oneof![0..2000_usize, tensors..tensors + 16_000, 0..HEADER.len() - 8];
    let extreme = prop_oneof![Just(0), Just(1 << 31), Just(1 << 40), Just(1 << 62), Just(u64::MAX)];
    let bytes = prop_oneof![
        extreme.prop_map(|number| number.to_le_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    (place, bytes)
}

/// A header after some changes, perhaps truncated.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let cut = prop_oneof![9 => Just(HEADER.len()), 1 => 0..HEADER.len()];
    (prop::collection::vec(change(), 1..8), cut).prop_map(|(changes, cut)| {
        let mut header = HEADER.clone();
        for (at, bytes) in changes {
            header[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        header.truncate(cut);
        header
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading any damaged header ends within the file, with a shape or an error.
    #[test]
    #[ignore = "needs a model: `make test` pulls it"]
    fn reading_a_damaged_header_terminates(header in damaged(), length in prop_oneof![Just(u64::MAX), 0..4_u64 << 20]) {
        let _either = parse(header.as_slice(), length);
    }
}

/// Through llama.cpp too: `WATTGATE_HOSTILE=400` for the long run.
#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn damaged_files_load_or_are_refused_without_a_crash_of_the_gateway() {
    let cases = std::env::var("WATTGATE_HOSTILE").map_or(16, |text| text.parse::<u32>().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = damaged();
    let (mut loaded, mut refused) = (0, 0);
    for first in (0..cases).step_by(8) {
        let files: Vec<_> = (first..cases.min(first + 8))
            .map(|case| {
                let header = strategy.new_tree(&mut runner).unwrap().current();
                let name = format!("m{case}");
                let path = write(dir.path(), &name, &header, file_bytes());
                (name, path)
            })
            .collect();
        for reason in load(&files).await {
            *if reason.is_some() { &mut refused } else { &mut loaded } += 1;
        }
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(refused > 0, "nothing was damaged");
}
