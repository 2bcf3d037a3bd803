//! Which model files a command is about: names from the config first, then from the catalogue.

use std::path::PathBuf;

use crate::backends::llama;
use crate::cli::ConfigArgs;
use crate::config::{Config, Engine, Problems, suggest};
use crate::models::{Sha256, Source, catalogue, known, resolve};

/// The configured models and the catalogue.
pub(super) struct Library {
    /// Absent where a catalogue name is used before there is any config.
    config: Option<Config>,
    pub(super) model_dir: PathBuf,
}

/// A model that was named.
pub(super) enum Target<'l> {
    /// It runs on another machine and has no file here.
    Elsewhere(&'l str),
    File(ModelFile<'l>),
}

pub(super) struct ModelFile<'l> {
    pub(super) name: &'l str,
    pub(super) source: &'l Source,
    pub(super) sha256: Option<&'l Sha256>,
    pub(super) configured: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no model `{name}`\nhint: {hint}; `wattgate models search` lists the catalogue")]
pub(super) struct UnknownModel {
    name: String,
    hint: String,
}

impl Library {
    /// Reads the config. Without one, models named from the catalogue still have their place below `models`.
    pub(super) fn open(args: &ConfigArgs, names: &[String]) -> Result<Self, Problems> {
        let only_catalogue = !names.is_empty() && names.iter().all(|name| known(name).is_some());
        if only_catalogue && args.is_default() && !args.config.exists() {
            return Ok(Self { config: None, model_dir: crate::config::default_model_dir() });
        }
        let config = args.load()?;
        Ok(Self { model_dir: config.model_dir.clone(), config: Some(config) })
    }

    /// The models of these names, or every configured one if there are none.
    pub(super) fn targets<'l>(
        &'l self,
        names: &'l [String],
    ) -> Result<Vec<Target<'l>>, UnknownModel> {
        if names.is_empty() {
            return Ok(self.configured().collect());
        }
        names.iter().map(|name| self.target(name)).collect()
    }

    fn target<'l>(&'l self, name: &'l str) -> Result<Target<'l>, UnknownModel> {
        let configured = self.config.as_ref().and_then(|config| config.models.get_key_value(name));
        if let Some((name, model)) = configured {
            return Ok(Target::of(name, &model.engine));
        }
        let Some(entry) = known(name) else {
            let configured = self.config.iter().flat_map(|config| config.models.keys());
            let mut names: Vec<&String> = configured.collect();
            let others = catalogue().iter().map(|entry| &entry.name);
            names.extend(others.filter(|&other| {
                !self.config.as_ref().is_some_and(|config| config.models.contains_key(other))
            }));
            let hint = suggest(name, &names);
            return Err(UnknownModel { name: name.to_owned(), hint });
        };
        let sha256 = entry.sha256.as_ref();
        Ok(Target::File(ModelFile { name, source: &entry.source, sha256, configured: false }))
    }

    fn configured(&self) -> impl Iterator<Item = Target<'_>> {
        let models = self.config.iter().flat_map(|config| &config.models);
        models.map(|(name, model)| Target::of(name, &model.engine))
    }

    /// Configured models, other than those in `names`, that need the file of `source` or one beside it of a like name.
    pub(super) fn others_at(&self, source: &Source, names: &[String]) -> Vec<&str> {
        let place = |source: &Source| resolve(source, &self.model_dir).into_os_string();
        let at = place(source);
        let needs = |target| match target {
            Target::File(file) if !names.iter().any(|name| name == file.name) => {
                let theirs = place(file.source);
                let touched = theirs.as_encoded_bytes().starts_with(at.as_encoded_bytes());
                touched.then_some(file.name)
            }
            _ => None,
        };
        self.configured().filter_map(needs).collect()
    }
}

impl<'l> Target<'l> {
    fn of(name: &'l str, engine: &'l Engine) -> Self {
        match engine {
            Engine::Llama(llama::Config { source, sha256, .. }) => {
                Self::File(ModelFile { name, source, sha256: sha256.as_ref(), configured: true })
            }
            Engine::Openai(_) => Self::Elsewhere(name),
        }
    }
}
