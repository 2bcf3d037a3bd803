//! The energy profile of a machine, written by `wattgate measure`: joules and seconds per token of
//! each model, load energy, idle power and the calibration against a wall meter. TOML format,
//! limits, reading and writing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use crate::energy::figure::{Quality, Source};
use crate::energy::hardware::Hardware;
use crate::energy::work::{TokenWeights, Tokens};
use crate::files;
use crate::units::{Joules, Watts};

/// Version of the file format; incremented when a field changes its meaning.
pub const PROFILE_VERSION: u32 = 2;

/// The profile of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    /// The kind of machine; absent for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Hardware>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// By model name in the config.
    #[serde(default)]
    pub models: BTreeMap<String, ModelProfile>,
}

/// Measurements of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelProfile {
    /// Date of the measurement, UTC.
    pub measured: String,
    /// The measured weights; absent if they are on another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ModelFile>,
    /// Quality of the joules below: that of the sensor.
    pub quality: Quality,
    pub source: Source,
    /// Energy of one load; absent if it is unknown or the model runs on another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_joules: Option<Joules>,
    /// Power of the device with the model loaded and idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_watts: Option<Watts>,
    /// Cost of one request at a time.
    pub alone: Cost,
    /// Cost of several requests at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batched: Option<Cost>,
}

/// A weights file, identified by source and size: hashing it would delay every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// The source in the config.
    pub source: String,
    pub bytes: u64,
}

/// Fitted cost of requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Concurrent requests.
    pub batch: u32,
    /// Number of requests in the fit.
    pub requests: u64,
    /// Total energy of those requests.
    pub total_joules: Joules,
    /// Actual over fitted joules of held-out requests: 5th and 95th percentile.
    pub low: f64,
    pub high: f64,
    /// |fitted / actual − 1| of held-out requests: median and 90th percentile.
    pub median_error: f64,
    pub p90_error: f64,
    /// Marginal joules; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<Linear>,
    /// Seconds from arrival to the last token.
    pub seconds: Linear,
}

/// `fixed + prefill_token · computed prompt tokens + decode_token · output tokens`. No coefficient
/// is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    pub fixed: f64,
    pub prefill_token: f64,
    pub decode_token: f64,
}

impl Linear {
    pub fn of(self, tokens: Tokens) -> f64 {
        self.fixed + self.of_tokens(tokens)
    }

    /// The value without the fixed part.
    pub fn of_tokens(self, tokens: Tokens) -> f64 {
        self.prefill_token * tokens.prefill as f64 + self.decode_token * tokens.decode as f64
    }

    fn is_usable(self) -> bool {
        let parts = [self.fixed, self.prefill_token, self.decode_token];
        parts.iter().all(|part| part.is_finite() && *part >= 0.0)
            && self.prefill_token + self.decode_token > 0.0
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("cannot read the energy profile {}: {source}; `wattgate measure` creates one", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the energy profile {} is not valid: {source}", .path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("the energy profile {} has version {found}, this build reads {PROFILE_VERSION}; run `wattgate measure` again", .path.display())]
    Version { path: PathBuf, found: u32 },
    #[error(
        "the energy profile {} is not used: it was measured on another machine ({measured}; this one: {here}); run `wattgate measure` here, with a file of its own for the profile", .path.display()
    )]
    Elsewhere { path: PathBuf, measured: Hardware, here: Hardware },
    #[error("the energy profile {}: {what} is out of its range; run `wattgate measure` again", .path.display())]
    Value { path: PathBuf, what: String },
    #[error("cannot write the energy profile {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Default for Profile {
    fn default() -> Self {
        let models = BTreeMap::new();
        Self { version: PROFILE_VERSION, machine: None, calibration: None, models }
    }
}

impl Profile {
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let path = path.to_owned();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ProfileError::Read { path, source }),
        };
        let profile: Self = match toml::from_str(&text) {
            Ok(profile) => profile,
            Err(source) => return Err(ProfileError::Parse { path, source: Box::new(source) }),
        };
        if profile.version != PROFILE_VERSION {
            return Err(ProfileError::Version { path, found: profile.version });
        }
        match profile.out_of_range() {
            Some(what) => Err(ProfileError::Value { path, what }),
            None => Ok(profile),
        }
    }

    /// Reads the profile at `path`; an error if it is of another kind of machine.
    pub fn of_here(path: &Path) -> Result<Self, ProfileError> {
        let mut profile = Self::load(path)?;
        let here = Hardware::here();
        match profile.machine.take_if(|machine| *machine != here) {
            Some(measured) => {
                Err(ProfileError::Elsewhere { path: path.to_owned(), measured, here })
            }
            None => Ok(profile),
        }
    }

    /// Reads the profile at `path`; an empty one without a path. A profile of another kind of
    /// machine is ignored, with a warning of the config: a gateway that was moved must serve, with
    /// figures labelled as assumed.
    pub fn configured(path: Option<&Path>) -> Result<Self, ProfileError> {
        match path.map(Self::of_here) {
            None | Some(Err(ProfileError::Elsewhere { .. })) => Ok(Self::default()),
            Some(found) => found,
        }
    }

    /// Reads this machine's profile at `path` for an update; an empty one if the file does not
    /// exist.
    pub fn to_update(path: &Path) -> Result<Self, ProfileError> {
        let found = if path.exists() { Self::of_here(path)? } else { Self::default() };
        Ok(Self { machine: Some(Hardware::here()), ..found })
    }

    /// Replaces the file atomically.
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let failed = |source| ProfileError::Write { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        let text = format!(
            "# Written by `wattgate measure`; name it as `profile` in [energy]. Joules are marginal, seconds from arrival.\n{text}"
        );
        files::replace(path, text).map_err(failed)
    }

    pub fn model(&self, name: &str) -> Option<&ModelProfile> {
        self.models.get(name)
    }

    fn out_of_range(&self) -> Option<String> {
        let calibration = self.calibration.as_ref().filter(|fit| !fit.is_usable());
        let model = self.models.iter().find(|(_, model)| !model.is_usable());
        calibration
            .map(|_| "[calibration]".to_owned())
            .or(model.map(|(name, _)| format!("model `{name}`")))
    }
}

impl ModelProfile {
    /// Weights of its tokens when several requests share a step: from the batched fit if there is
    /// one, because its requests share the reading of the weights.
    pub fn weights(&self) -> Option<TokenWeights> {
        let joules = self.batched.and_then(|cost| cost.joules).or(self.alone.joules)?;
        Some(TokenWeights {
            prefill: nanojoules(joules.prefill_token),
            decode: nanojoules(joules.decode_token),
        })
    }

    fn is_usable(&self) -> bool {
        let known =
            |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
        let cost = |cost: &Cost| {
            cost.joules.is_none_or(Linear::is_usable)
                && cost.seconds.is_usable()
                && (0.0..=1.0).contains(&cost.low)
                && (1.0..=1e6).contains(&cost.high)
                && known(Some(cost.total_joules.0))
        };
        cost(&self.alone)
            && self.batched.as_ref().is_none_or(cost)
            && known(self.load_joules.map(|joules| joules.0))
            && known(self.idle_watts.map(|watts| watts.0))
    }
}

/// Nanojoules, at least 1, so that no work has weight 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative; a float cast saturates"
)]
pub fn nanojoules(joules: f64) -> u64 {
    ((joules * 1e9).round() as u64).max(1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn measured(joules: Linear) -> ModelProfile {
        let seconds = Linear { fixed: 0.02, prefill_token: 0.002, decode_token: 0.01 };
        ModelProfile {
            measured: "2026-11-23".to_owned(),
            file: None,
            quality: Quality::Estimated,
            source: Source::CpuModel,
            load_joules: Some(Joules(2.5)),
            idle_watts: Some(Watts(0.1)),
            alone: Cost {
                batch: 1,
                requests: 200,
                total_joules: Joules(400.0),
                low: 0.9,
                high: 1.2,
                median_error: 0.04,
                p90_error: 0.11,
                joules: Some(joules),
                seconds,
            },
            batched: None,
        }
    }

    fn profile() -> Profile {
        let joules = Linear { fixed: 0.1, prefill_token: 0.005, decode_token: 0.06 };
        Profile { models: [("m".to_owned(), measured(joules))].into(), ..Profile::default() }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let path = tempfile::tempdir().unwrap().keep().join("profile.toml");
        profile().save(&path).unwrap();
        assert_eq!(Profile::load(&path).unwrap(), profile());
    }

    #[test]
    fn another_machines_profile_is_left_aside_and_never_written_into() {
        let path = tempfile::tempdir().unwrap().keep().join("profile.toml");
        let machine = Hardware { processor: "Abacus".to_owned(), cpus: 3 };
        Profile { machine: Some(machine), ..profile() }.save(&path).unwrap();
        assert_eq!(Profile::configured(Some(&path)).unwrap(), Profile::default());
        let error = Profile::to_update(&path).unwrap_err().to_string();
        assert!(error.contains("Abacus (3 logical CPUs); this one: "), "{error}");
        profile().save(&path).unwrap();
        assert_eq!(Profile::configured(Some(&path)).unwrap(), profile());
        let mine = Profile::to_update(&path).unwrap();
        mine.save(&path).unwrap();
        assert_eq!(Profile::configured(Some(&path)).unwrap(), mine);
        assert_eq!(mine.machine, Some(Hardware::here()));
    }

    #[test]
    fn a_batched_fit_weighs_and_the_one_alone_costs() {
        let mut model = measured(Linear { fixed: 0.0, prefill_token: 0.005, decode_token: 0.06 });
        assert_eq!(model.weights().unwrap().decode, 60_000_000);
        let joules = Linear { fixed: 0.0, prefill_token: 0.004, decode_token: 0.01 };
        model.batched = Some(Cost { batch: 8, joules: Some(joules), ..model.alone });
        assert_eq!(model.weights(), Some(TokenWeights { prefill: 4_000_000, decode: 10_000_000 }));
    }

    #[test]
    fn a_profile_that_cannot_be_true_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            Profile::load(&path).unwrap_err().to_string()
        };
        let mut wrong = profile();
        wrong.models.get_mut("m").unwrap().alone.joules =
            Some(Linear { decode_token: -1.0, ..Linear::default() });
        assert!(
            refused(&toml::to_string(&wrong).unwrap()).contains("model `m` is out of its range")
        );
        assert!(refused("version = 9").contains("has version 9"));
        assert!(refused("version = 1\nmodles = {}").contains("modles"));
        assert!(
            Profile::load(&dir.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("`wattgate measure` creates one")
        );
    }
}
