//! The configuration that `wattgate init` writes: options that depend on the machine, with
//! comments.
//!
//! Returns text; the command writes the file.

use std::fmt::Write;

use indicatif::HumanBytes;

use super::document::dotted;
use crate::models::{Entry, Recommendation};

/// More layers than any model has.
const ALL_LAYERS: u32 = 999;

/// A complete `config.toml` that serves `choice`; `found` describes the machine.
pub fn generate(choice: &Recommendation<'_>, found: &str) -> String {
    let gpu_layers = if choice.gpu.is_some() { ALL_LAYERS } else { 0 };
    let memory = format!(
        "{} weights + {} for requests + {} working memory",
        HumanBytes(choice.weights_bytes),
        HumanBytes(choice.kv_bytes),
        HumanBytes(choice.working_bytes)
    );
    let mut text = format!(
        r#"# Wattgate's configuration, written by `wattgate init` for a machine with {found}.
# It holds what depends on the machine or is often changed; all other options have their defaults.
# `wattgate check` lists all problems of this file. Paths are relative to the directory in which
# Wattgate is started.

# Directory of pulled models.
model_dir = "models"

[server]
# Address and port to listen on.
listen = "127.0.0.1:8080"

# Plain `auto` minimises joules among the models whose answer is good enough with this probability.
[policies.default]
objective = "joules"
floor = 0.6

"#
    );
    text.push_str(&model_tables(choice.model));
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "# Requests processed at once, and the longest prompt plus answer of each, in tokens. With the\n\
         # model they need about {} ({memory}).\n\
         slots = {}\n\
         context_tokens = {}\n\
         # Layers on a GPU; {ALL_LAYERS}: all.\n\
         gpu_layers = {gpu_layers}\n",
        HumanBytes(choice.memory_bytes()),
        choice.slots,
        choice.context_tokens,
    );
    text.push_str(CLOUD);
    text
}

/// The tables that make `entry` a model of a configuration, ending in its `.llama` table.
pub fn model_tables(entry: &Entry) -> String {
    let Entry { name, parameters_b, licence, note, source, .. } = entry;
    let mut text = format!(
        "# {name}: {parameters_b} billion parameters, {}, {licence}.\n# {note}.\n[{}]\n",
        HumanBytes(entry.size_bytes),
        dotted(["models", name]),
    );
    if let (Some(ability), Some(from)) = (entry.ability, &entry.ability_source) {
        let from = match entry.mmlu_pro {
            Some(accuracy) => {
                format!("from its MMLU-Pro accuracy of {:.1} %, {from}", accuracy * 100.0)
            }
            None => from.clone(),
        };
        let _ = write!(
            text,
            "# Ability on the router's logit scale. A prior ({from});\n\
             # labels from your own traffic are better.\n\
             ability = {ability:?}\n",
        );
    }
    let _ = write!(text, "\n[{}]\nsource = \"{source}\"\n", dotted(["models", name, "llama"]));
    if let Some(sha256) = &entry.sha256 {
        let _ = writeln!(text, "sha256 = \"{sha256}\"");
    }
    text
}

/// Commented out: prompts leave this machine only if the operator enables it.
const CLOUD: &str = r#"
# For prompts for which the local model is not good enough: any OpenAI-compatible server. Remove the
# `#` and set the environment variable to your key; prompts may then leave this machine (never those
# with the header `x-wattgate-local-only: true`).
#[models.cloud-mini]
#ability = 1.4

#[models.cloud-mini.openai]
#base_url = "https://api.openai.com/v1"
#model = "gpt-4o-mini"
#api_key_env = "OPENAI_API_KEY"
#energy_class = "small"
#dollars_per_million_input_tokens = 0.15
#dollars_per_million_output_tokens = 0.60
"#;

#[cfg(test)]
mod tests {
    use super::super::{Engine, parse};
    use super::*;
    use crate::models::{Gpu, GpuMemory, Machine, catalogue, recommend};

    #[test]
    fn the_config_generated_for_each_model_and_machine_is_valid() {
        for entry in catalogue() {
            for (memory_gib, gpu) in [(0, false), (16, false), (200, true)] {
                let gpu = gpu.then(|| Gpu { name: "GPU".into(), memory: GpuMemory::Shared });
                let machine = Machine {
                    memory_bytes: memory_gib << 30,
                    cores: 64,
                    gpus: gpu.into_iter().collect(),
                };
                let choice = recommend(catalogue(), &machine, true).unwrap();
                let choice = Recommendation { model: entry, ..choice };
                let text = generate(&choice, "64 cores");
                let config = parse(&text, "draft.toml").unwrap_or_else(|p| panic!("{p}\n{text}"));
                assert_eq!(config.models.keys().collect::<Vec<_>>(), [&entry.name]);
                let model = &config.models[&entry.name];
                assert_eq!(model.ability, entry.ability);
                let Engine::Llama(config) = &model.engine else { panic!() };
                assert_eq!((&config.source, &config.sha256), (&entry.source, &entry.sha256));
                let shape = (config.slots, config.context_tokens);
                assert_eq!(shape, (choice.slots, choice.context_tokens));
                assert_eq!(config.gpu_layers > 0, choice.gpu.is_some());
                assert!(text.lines().all(|line| line.chars().count() <= 200), "{text}");
            }
        }
    }

    #[test]
    fn the_cloud_model_works_once_it_is_uncommented() {
        let text = CLOUD
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line));
        let text: Vec<&str> = text.collect();
        let config = parse(&text.join("\n"), "cloud.toml").unwrap();
        assert!(config.models.contains_key("cloud-mini"));
    }
}
