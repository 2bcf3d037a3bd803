//! Energy that this machine does not meter, for `wattgate check --energy`: joules per token of
//! cloud models with their origin, the grid, and the price of electricity.
//!
//! Reads the config only.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::table::wrapped;
use crate::config::{Config, Engine};
use crate::energy;
use crate::energy::grid::emissions::Basis;
use crate::energy::grid::intensity;
use crate::energy::prediction::cloud_table::PerToken;

#[derive(Serialize)]
pub(super) struct Unmetered {
    cloud_models: Vec<CloudModel>,
    carbon: String,
    electricity: String,
}

#[derive(Serialize)]
struct CloudModel {
    model: String,
    /// Joules per token at the wall; absent if the model's energy is unknown or metered.
    #[serde(flatten)]
    per_token: Option<PerToken>,
    /// Origin of the figures, what they include, and since when.
    from: String,
}

impl Unmetered {
    /// Collects the cloud models of `config`, if there is one.
    pub(super) fn of(energy: &energy::Config, config: Option<&Config>) -> Self {
        let models = config.into_iter().flat_map(|config| &config.models);
        let cloud_models = models.filter_map(|(name, model)| match &model.engine {
            Engine::Llama(_) => None,
            Engine::Openai(cloud) => {
                let meter = energy.prometheus.iter().find(|(_, query)| query.models.contains(name));
                let (per_token, from) = match meter {
                    Some((meter, _)) => (None, format!("metered by {meter}")),
                    None => (cloud.per_token(), cloud.energy.origin(cloud.energy_class)),
                };
                Some(CloudModel { model: name.clone(), per_token, from })
            }
        });
        Self {
            cloud_models: cloud_models.collect(),
            carbon: carbon(energy),
            electricity: electricity(energy),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.cloud_models.is_empty() {
            let mut table = wrapped(["CLOUD MODEL", "J/TOKEN IN", "J/TOKEN OUT", "FROM"]);
            for CloudModel { model, per_token, from } in &self.cloud_models {
                let (input, output) = per_token.map_or_else(Default::default, |per_token| {
                    let [low, middle, high] = per_token.output;
                    (per_token.input.to_string(), format!("{middle} ({low} to {high})"))
                });
                table.add_row([model, &input, &output, from]);
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}\n", table.trim_fmt());
        }
        let _ = writeln!(text, "Carbon: {}.\nElectricity: {}.", self.carbon, self.electricity);
        text
    }
}

fn carbon(config: &energy::Config) -> String {
    let Some(grid) = config.carbon.grid() else {
        return "unknown: energy.carbon names no zone".to_owned();
    };
    let figure = format!("{}, {} g/kWh", grid.zone, grid.grams_per_kwh.0);
    let origin = match grid.basis {
        Basis::Year(year) => format!("the average of {year} ({})", intensity::SOURCE),
        Basis::Configured | Basis::Live => "configured".to_owned(),
    };
    let live =
        if config.carbon.live.url.is_some() { ", where no live figure is available" } else { "" };
    format!("{figure}, {origin}{live}")
}

fn electricity(config: &energy::Config) -> String {
    let price = &config.price;
    match price.dollars_per_kwh {
        None => "cost unknown: energy.price names no price".to_owned(),
        Some(base) if price.windows.is_empty() => format!("${base} per kWh"),
        Some(base) => {
            let (windows, zone) = (price.windows.len(), &price.time_zone);
            format!("${base} per kWh, with {windows} windows of other prices ({zone})")
        }
    }
}
