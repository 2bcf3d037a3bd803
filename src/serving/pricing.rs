//! Energy and price of attempts that have run.

use super::attempt_state::AttemptState;
use super::models::model::{Kind, Model};
use crate::energy::cloud::{PerToken, estimate};
use crate::energy::{EnergyFigure, MeterHandle, Source};
use crate::routing::{Features, Route};
use crate::units::Dollars;

/// Energy of an attempt, provisional where the meter settles it later; `None` if nothing ran or nothing can tell.
pub fn energy(
    attempt: &AttemptState,
    model: &Model,
    meter: &MeterHandle,
    features: &Features,
) -> Option<EnergyFigure> {
    match &model.kind {
        _ if attempt.never_ran() => None,
        _ if attempt.metered => Some(meter.provisional(attempt.id)),
        Kind::Local { .. } => None,
        Kind::Cloud(config) => Some(
            attempt.reported.unwrap_or_else(|| class_energy(attempt, config.per_token(), features)),
        ),
    }
}

/// The class table's figure for the tokens of an attempt.
fn class_energy(
    attempt: &AttemptState,
    per_token: Option<PerToken>,
    features: &Features,
) -> EnergyFigure {
    match attempt.usage {
        // The table has no figures for images and sound, and unknown is not zero.
        _ if features.needs.media => EnergyFigure::unknown(Source::CloudTable),
        Some(usage) => {
            let (cached, generated) = (usage.cached_tokens(), usage.generated_tokens());
            estimate(per_token, usage.prompt_tokens, cached, generated)
        }
        // Cut short: the prompt was read, and every output event was at least a token.
        None => estimate(per_token, features.prompt_tokens.into(), 0, attempt.output_events),
    }
}

/// Price of an attempt; `None` if unknown.
pub fn dollars(attempt: &AttemptState, model: Option<&Model>) -> Option<Dollars> {
    match (model, attempt.usage) {
        (Some(model), Some(usage)) => model.dollars(&usage),
        // An upstream that reported no usage either did no work or owes the count.
        (_, None) if attempt.route == Route::Local || attempt.output_events == 0 => {
            Some(Dollars(0.0))
        }
        _ => None,
    }
}
