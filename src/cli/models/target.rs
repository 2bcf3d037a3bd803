//! Model files that a command names: models of the config first, then of the catalogue.

use std::path::PathBuf;

use crate::backends::llama;
use crate::cli::config_args::ConfigArgs;
use crate::cli::console::{refuse, say};
use crate::config::{Config, Engine, Problems, suggest};
use crate::models::{Sha256, Source, catalogue, known, resolve};

/// The configured models and the catalogue.
pub(super) struct Library {
    /// Absent if only catalogue names are used and there is no config yet.
    config: Option<Config>,
    pub(super) model_dir: PathBuf,
}

/// Runs `command` on the file of each of `names` (of every configured model if there are none),
/// past the failures of others. Returns the highest exit code.
pub(super) fn each_file(
    config: &ConfigArgs,
    names: &[String],
    mut command: impl FnMut(&ModelFile<'_>, &Library) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let library = Library::open(config, names)?;
    let targets = match library.targets(names) {
        Ok(targets) => targets,
        Err(unknown) => return Ok(refuse(&unknown.to_string())),
    };
    let mut code = 0;
    for target in &targets {
        match target {
            Target::Elsewhere(name) if !names.is_empty() => {
                say(&format!("{name}: runs elsewhere and has no file here"));
            }
            Target::Elsewhere(_) => {}
            Target::File(file) => code = code.max(command(file, &library)?),
        }
    }
    Ok(code)
}

/// A named model.
enum Target<'l> {
    /// Runs on another machine and has no file here.
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
struct UnknownModel {
    name: String,
    hint: String,
}

impl Library {
    /// Reads the config. Without one, models of the catalogue are placed below `models`.
    fn open(args: &ConfigArgs, names: &[String]) -> Result<Self, Problems> {
        let only_catalogue = !names.is_empty() && names.iter().all(|name| known(name).is_some());
        if only_catalogue && args.is_default() && !args.config.exists() {
            return Ok(Self { config: None, model_dir: crate::config::default_model_dir() });
        }
        let config = args.load()?;
        Ok(Self { model_dir: config.model_dir.clone(), config: Some(config) })
    }

    /// Returns the models of these names, or all configured ones if there are none.
    fn targets<'l>(&'l self, names: &'l [String]) -> Result<Vec<Target<'l>>, UnknownModel> {
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

    /// Configured models other than those in `names` that need the file of `source`, or one whose
    /// path starts with it.
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
