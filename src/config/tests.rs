//! Tests: the shipped file is valid and complete, and no file makes the reader panic.

use proptest::prelude::*;

use super::*;
use crate::backends::{cloud, llama};
use crate::energy;
use crate::http::Config as ServerConfig;
use crate::routing;
use crate::serving::judge;
use crate::telemetry;
use crate::traffic;

const MINIMAL: &str = "[models.m.llama]\nsource = \"file:m.gguf\"\n";

fn parsed(text: &str) -> Config {
    parse(text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn same(a: &impl std::fmt::Debug, b: &impl std::fmt::Debug) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

#[test]
fn the_shipped_file_shows_the_defaults_of_the_code() {
    let shipped = parsed(SHIPPED);
    let bare = parsed(MINIMAL);
    same(&shipped.model_dir, &bare.model_dir);
    same(&shipped.server, &ServerConfig::default());
    same(&shipped.log, &telemetry::Config::default());
    same(&shipped.energy, &energy::Config::default());
    same(&shipped.traffic, &traffic::Config::default());
    same(&shipped.judge, &judge::Config::default());
    same(&shipped.routing, &routing::Config::default());
    same(&shipped.sessions, &routing::SessionsConfig::default());
    same(&shipped.policies, &bare.policies);
    let Engine::Llama(config) = &shipped.models["smollm2-135m"].engine else { panic!() };
    let (source, sha256) = (config.source.clone(), config.sha256.clone());
    same(config, &llama::Config { source, sha256, ..llama::Config::default() });
    let Engine::Openai(config) = &shipped.models["cloud-mini"].engine else { panic!() };
    let waits = |config: &cloud::Config| {
        let first = (config.max_in_flight, config.connect_timeout_ms, config.first_byte_timeout_ms);
        let waits = (first, config.idle_timeout_ms, config.answer_timeout_ms);
        (waits, config.stream_usage, config.capabilities)
    };
    assert_eq!(waits(config), waits(&cloud::Config::default()));
}

#[test]
fn every_option_of_the_code_is_in_the_shipped_file_and_works() {
    let uncommented = SHIPPED
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '-'])).unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
        // The shipped file shows an option of embedding models among those of all local models.
        .replacen("embedding = false", "embedding = true", 1);
    // A socket for /admin needs no key, and takes none.
    let config = parsed(&uncommented.replacen("key_env = \"WATTGATE_ADMIN_KEY\"", "", 1));
    assert!(config.policies.contains_key("private"));

    // An unknown key makes the reader list the known ones.
    for table in [
        "server",
        "log",
        "energy",
        "energy.rapl",
        "energy.nvml",
        "energy.hwmon",
        "energy.ina3221",
        "energy.apple",
        "energy.wall",
        "energy.prometheus.p",
        "energy.price",
        "energy.carbon",
        "energy.carbon.live",
        "traffic",
        "routing",
        "judge",
        "policies.p",
        "policies.p.classes.code",
        "sessions",
        "policies.p.cascade",
        "models.m",
        "models.m.llama",
        "models.m.openai",
        "models.m.openai.capabilities",
        "models.m.openai.energy",
    ] {
        let problems = parse(&format!("[{table}]\nq = 1\n"), "test.toml").unwrap_err();
        let hint = problems
            .iter()
            .find(|problem| problem.key == format!("{table}.q"))
            .and_then(|problem| problem.hint.clone());
        let hint = hint.unwrap_or_else(|| panic!("{table}"));
        for key in hint
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|key| !["llama", "openai", "cascade", "classes"].contains(key))
        {
            // An option that is a table is shown by its header.
            let shown = uncommented.lines().any(|line| {
                line.starts_with(&format!("{key} = "))
                    || (line.starts_with('[') && line.contains(&format!(".{key}")))
            });
            assert!(shown, "{key} of [{table}] is not in config.toml");
        }
    }
}

#[test]
fn models_keep_the_order_of_the_file_and_a_default_policy_always_exists() {
    let text = "[models.z.llama]\nsource = \"file:z.gguf\"\n[models.a.openai]\nbase_url = \"http://h/v1\"\n[models.m.openai]\nbase_url = \"http://h/v1\"\n";
    let config = parsed(text);
    assert_eq!(config.models.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
    assert_eq!(config.policies.keys().collect::<Vec<_>>(), [DEFAULT_POLICY]);
    assert_eq!(config.models["a"].ability, None);
}

#[test]
fn a_file_that_is_not_utf8_is_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, b"# fine\nmodel_dir = \"\xff\"\n").unwrap();
    let problems = load(&path).unwrap_err().to_string();
    assert!(problems.contains("line 2 is not UTF-8 text"), "{problems}");
    assert!(load(dir.path()).is_err());
}

#[test]
fn a_value_inside_an_array_or_under_an_implied_table_is_found() {
    let problem = |text: &str| {
        let text = format!("{MINIMAL}{text}");
        let problems = parse(&text, "t").unwrap_err();
        problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.key)).collect::<Vec<_>>()
    };
    assert_eq!(problem("[model_dir.deep]\nx = 1\n"), ["3:2 model_dir"]);
    assert_eq!(problem("[[server]]\nlisten = \"127.0.0.1:1\"\n"), ["3:1 server"]);
    assert_eq!(
        problem("[models.\"a b\".openai]\nbase_url = 1\n"),
        ["3:9 models.\"a b\"", "4:12 models.\"a b\".openai.base_url"]
    );
}

#[test]
fn an_empty_base_url_is_one_problem() {
    let problems = parse("[models.m.openai]\nbase_url = \"\"\n", "t").unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["models.m.openai.base_url"]);
}

/// The other tests here need the engine: run this one by name.
#[test]
#[cfg(not(feature = "llama"))]
fn a_local_model_in_a_build_without_an_engine_is_one_problem_that_says_how_to_build() {
    let problems = parse(MINIMAL, "t").unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!((problems.iter().count(), problem.line), (1, 1));
    assert!(problem.message.contains("no local engine"), "{problem}");
    assert!(problem.hint.as_ref().unwrap().contains("cargo build --release"), "{problem}");
}

/// Fragments of configuration files, to insert where they are not valid.
fn piece() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "",
        "=",
        "[",
        "]",
        "\"",
        "'''",
        "{",
        "}",
        ".",
        ",",
        "\n",
        "#",
        "[[models]]",
        "[models.x]",
        "slots",
        "-1",
        "0",
        "nan",
        "inf",
        "1e999",
        "2024-01-01",
        "true",
        "é😀",
        "\u{1b}[31m",
        "\r\n",
        "\0",
        "models = 3\n",
        "a.b.c = 1\n",
    ];
    prop_oneof![4 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,12}"]
}

proptest! {
    #[test]
    fn no_mutation_of_the_shipped_file_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..40, piece()), 1..6)
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = parse(&text, "mutated.toml") {
            let lines = text.split('\n').count();
            prop_assert!(problems.iter().count() > 0);
            prop_assert!(problems.iter().all(|problem| problem.line <= lines));
            let shown = problems.to_string();
            prop_assert!(!shown.contains(['\u{1b}', '\0']), "{shown:?}");
        }
    }
}
