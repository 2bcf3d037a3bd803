//! The events that close every answer. Pure.

use crate::backends::backend::Event;
use crate::energy::EnergyFigure;
use crate::openai::{FinishReason, Usage};

pub(super) fn closing(
    usage: Option<Usage>,
    energy: Option<EnergyFigure>,
    reason: FinishReason,
) -> Vec<Event> {
    let known = [usage.map(Event::Usage), energy.map(Event::Energy)];
    known.into_iter().flatten().chain([Event::Done(reason)]).collect()
}
