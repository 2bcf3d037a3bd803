//! `wattgate measure --calibrate`: load steps against a wall meter, and the calibration fitted to
//! them.
//!
//! The steps are saved in the folder of the run, so that the meter's file may come later.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::args::{BadInput, MeasureArgs, profile_path};
use crate::app::harness::with_gateway;
use crate::cli::console::{note, say};
use crate::config::{Config, Engine};
use crate::energy::{Calibration, Profile};
use crate::files;
use crate::measure::calibrate::{self, Load, Steps};
use crate::measure::today;
use crate::measure::wall::{Reading, WallMeter, read_csv};

const STEPS_FILE: &str = "calibration-steps.json";
/// Time for a smart plug to follow a change.
const RAMP: Duration = Duration::from_secs(3);
const READINGS_FILE: &str = "calibration-readings.json";

pub(super) async fn run(
    args: &MeasureArgs,
    config: &Config,
    models: &[String],
    meter: &WallMeter,
) -> anyhow::Result<()> {
    let kept = args.out.join(STEPS_FILE);
    let (steps, readings) = if args.resume && kept.exists() {
        (read::<Steps>(&kept)?, read_if_there(&args.out.join(READINGS_FILE))?)
    } else {
        steps(args, config, models, meter).await?
    };
    let readings = match meter {
        WallMeter::Csv(path) => read_csv(path).with_context(|| {
            format!(
                "the steps are saved in {}: run again with --resume once the meter's file exists",
                args.out.display()
            )
        })?,
        WallMeter::Shelly(_) | WallMeter::Tasmota(_) => readings,
    };
    let calibration = calibrate::fit(&steps, &readings, meter, today())?;
    let path = profile_path(args, config);
    let mut profile = Profile::to_update(&path)?;
    profile.calibration = Some(calibration.clone());
    profile.save(&path)?;
    if args.json {
        say(&serde_json::to_string_pretty(&calibration)?);
    } else {
        say(&explain(&calibration, &path));
    }
    Ok(())
}

async fn steps(
    args: &MeasureArgs,
    config: &Config,
    models: &[String],
    meter: &WallMeter,
) -> anyhow::Result<(Steps, Vec<Reading>)> {
    let is_local = |name: &&String| matches!(config.models[*name].engine, Engine::Llama(_));
    let model = models.iter().find(is_local).ok_or(BadInput::NothingLocal)?;
    let Engine::Llama(llama) = &config.models[model].engine else {
        return Err(BadInput::NothingLocal.into());
    };
    // An existing calibration must not apply.
    let mut raw = config.clone();
    raw.energy.profile = None;
    let levels = levels(llama.slots);
    let load = Load {
        model,
        local: true,
        levels: &levels,
        ramp: RAMP,
        step: Duration::from_secs(args.step_seconds),
    };
    let timeout = Duration::from_millis(llama.load_timeout_ms);
    files::create_private_dir(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let (steps, readings) = with_gateway(&raw, model, &args.out, async |gateway| {
        gateway.until_ready(model, timeout).await?;
        let total = levels.len();
        note(&format!(
            "{total} steps of {} s; keep the machine free of other work",
            args.step_seconds
        ));
        let progress = |requests| note(&format!("  {requests} at a time"));
        anyhow::Ok(calibrate::run(&gateway, load, meter, &progress).await?)
    })
    .await?;
    fs::write(args.out.join(STEPS_FILE), serde_json::to_vec(&steps)?)?;
    fs::write(args.out.join(READINGS_FILE), serde_json::to_vec(&readings)?)?;
    Ok((steps, readings))
}

/// Idle, doubling up to all slots, then idle again to show drift.
fn levels(slots: u32) -> Vec<u32> {
    let doubling = (0..32).map(|power| 1_u32 << power).take_while(|level| *level < slots);
    let loaded: Vec<u32> = doubling.chain([slots]).collect();
    [vec![0], loaded, vec![0]].concat()
}

fn read<T: serde::de::DeserializeOwned>(path: &PathBuf) -> anyhow::Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn read_if_there(path: &PathBuf) -> anyhow::Result<Vec<Reading>> {
    if path.exists() { read(path) } else { Ok(Vec::new()) }
}

fn explain(found: &Calibration, path: &std::path::Path) -> String {
    format!(
        "wall = {:.1} W + {:.3} × {}, R² {:.3} over {} steps\nsingle steps lie between {:+.0} % and {:+.0} % of the line\nprofile  {}",
        found.offset.0,
        found.gain,
        found.source.label(),
        found.r_squared,
        found.steps,
        (found.low - 1.0) * 100.0,
        (found.high - 1.0) * 100.0,
        path.display(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn load_levels_double_up_to_all_slots() {
        assert_eq!(super::levels(8), [0, 1, 2, 4, 8, 0]);
        assert_eq!(super::levels(6), [0, 1, 2, 4, 6, 0]);
        assert_eq!(super::levels(1), [0, 1, 0]);
    }
}
