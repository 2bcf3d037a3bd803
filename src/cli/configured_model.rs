//! A configured model in a few words, for `check` and `models list`.

use crate::backends::cloud;
use crate::config::{self, Config, Engine, Model};
use crate::models::{FileState, Source, file_state};
use crate::routing::Route;

pub(super) fn route(model: &Model) -> Route {
    match model.engine {
        Engine::Llama(_) => Route::Local,
        Engine::Openai(_) => Route::Cloud,
    }
}

/// Source of the model's file, or the server that answers for it.
pub(super) fn origin(model: &Model) -> String {
    match &model.engine {
        Engine::Llama(config) => config.source.to_string(),
        // A query string may hold a key.
        Engine::Openai(config) => {
            let base_url = &config.base_url;
            base_url.split_once('?').map_or_else(|| base_url.clone(), |(url, _)| format!("{url}?…"))
        }
    }
}

/// Whether the model could answer on this machine.
pub(super) fn readiness(config: &Config, model: &Model) -> String {
    match &model.engine {
        Engine::Llama(llama) => {
            match file_state(&llama.source, llama.sha256.as_ref(), &config.model_dir) {
                Ok(FileState::Verified { .. }) => "present".into(),
                Ok(FileState::Unverified { .. }) => "present, not checked".into(),
                Ok(FileState::Missing) if matches!(llama.source, Source::File(_)) => {
                    "missing".into()
                }
                Ok(FileState::Missing) => "not pulled yet".into(),
                Ok(FileState::Wrong { .. }) => "wrong checksum".into(),
                Err(error) => format!("unreadable: {error}"),
            }
        }
        Engine::Openai(openai) => {
            let (first, others) = openai.resolved();
            let mut states: Vec<String> =
                std::iter::once(&first).chain(&others).map(key_state).collect();
            states.dedup();
            states.join(", ")
        }
    }
}

fn key_state(deployment: &cloud::Config) -> String {
    match &deployment.api_key_env {
        Some(variable) if config::is_set(variable) => format!("{variable} is set"),
        Some(variable) => format!("{variable} is not set"),
        None => "needs no key".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_query_string_is_not_shown() {
        let text = "[models.m.openai]\nbase_url = \"https://h/v1?key=sk-secret\"\n";
        let config = config::parse(text, "t").unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(origin(&config.models["m"]), "https://h/v1?…");
    }
}
