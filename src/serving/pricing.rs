//! Expected and actual joules, dollars and grams of work at one model. Pure.
//!
//! The only place that prices work: used for requests, for the judge and by `wattgate route`.

use crate::backends::cloud::Config as Upstream;
use crate::energy::grid::emissions::{Grid, grams};
use crate::energy::grid::tariff::Tariff;
use crate::energy::prediction::cloud_table::estimate;
use crate::energy::{EnergyFigure, Source, Tokens};
use crate::openai::Usage;
use crate::openai::chat::PromptTokensDetails;
use crate::units::{Dollars, Grams, Joules};

/// Origin of a model's joules and dollars.
#[derive(Clone, Copy, Debug)]
pub enum Billing<'c> {
    /// An engine of this gateway: metered joules; money only for electricity.
    Engine,
    /// An upstream: joules by class or the operator's figures, dollars by its price list.
    Upstream(&'c Upstream),
    /// A model without configuration.
    Unknown,
}

/// Price of the electricity of this machine.
#[derive(Clone, Copy, Debug)]
pub enum Electricity<'t> {
    /// No tariff is configured, so it counts as free.
    Unpriced,
    /// A tariff at this moment, milliseconds since the Unix epoch.
    At(&'t Tariff, u64),
    /// There is a tariff, but no moment.
    Unknown,
}

/// Tokens of an answer that has not run yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub prompt: u64,
    /// Part of `prompt` that need not be read again.
    pub cached: u64,
    pub generated: u64,
    /// Images or sound, whose energy the class table does not know.
    pub media: bool,
}

/// Known facts of an answer that has run, perhaps not to its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub usage: Option<Usage>,
    /// The upstream's own figure, which takes precedence over the class table.
    pub reported: Option<EnergyFigure>,
    /// Estimate for answers without usage.
    pub prompt_tokens: u64,
    /// Output events seen, each at least a token.
    pub output_events: u64,
    pub media: bool,
}

impl Billing<'_> {
    /// Expected energy of `work`; `engine` predicts that of an engine. `None` if unknown.
    pub fn expected_joules(
        self,
        work: Work,
        engine: impl FnOnce(Tokens) -> EnergyFigure,
    ) -> Option<Joules> {
        match self {
            Self::Engine => {
                let prefill = work.prompt.saturating_sub(work.cached);
                engine(Tokens { prefill, decode: work.generated }).joules
            }
            Self::Upstream(config) if !work.media => {
                estimate(config.per_token(), work.prompt, work.cached, work.generated).joules
            }
            Self::Upstream(_) | Self::Unknown => None,
        }
    }

    /// Expected price of `work`, which is expected to take `joules`. `None` if unknown.
    pub fn expected_dollars(
        self,
        work: Work,
        joules: Option<Joules>,
        electricity: Electricity<'_>,
    ) -> Option<Dollars> {
        match self {
            Self::Engine => match electricity {
                Electricity::Unpriced => Some(Dollars(0.0)),
                Electricity::At(tariff, unix_ms) => Some(tariff.cost(joules?, unix_ms)),
                Electricity::Unknown => None,
            },
            Self::Upstream(config) => config.dollars(&work.usage()),
            Self::Unknown => None,
        }
    }

    /// Energy of an answer that no meter here settles. `None` for an engine, whose energy is always
    /// metered.
    pub fn actual_energy(self, spent: &Spent) -> Option<EnergyFigure> {
        let Self::Upstream(config) = self else { return None };
        let per_token = config.per_token();
        Some(match (spent.reported, spent.usage) {
            (Some(reported), _) => reported,
            // Unknown is not zero.
            _ if spent.media => EnergyFigure::unknown(Source::CloudTable),
            (None, Some(usage)) => {
                // Hidden reasoning included: it is in the total only.
                let (cached, generated) = (usage.cached_tokens(), usage.generated_tokens());
                estimate(per_token, usage.prompt_tokens, cached, generated)
            }
            // Cut short: the prompt was read.
            (None, None) => estimate(per_token, spent.prompt_tokens, 0, spent.output_events),
        })
    }

    /// Money owed for an answer. `None` if unknown.
    pub fn actual_dollars(self, spent: &Spent) -> Option<Dollars> {
        match (self, spent.usage) {
            (Self::Engine, _) => Some(Dollars(0.0)),
            (Self::Upstream(config), Some(usage)) => config.dollars(&usage),
            // An upstream that reported no usage either did no work or owes the count.
            (Self::Upstream(_), None) => (spent.output_events == 0).then_some(Dollars(0.0)),
            (Self::Unknown, _) => None,
        }
    }
}

/// Expected carbon; `None` without a grid or where the energy is unknown.
pub fn expected_grams(joules: Option<Joules>, grid: Option<&Grid>) -> Option<Grams> {
    Some(grams(joules?, grid?.grams_per_kwh))
}

impl Work {
    fn usage(self) -> Usage {
        let cached_tokens = Some(self.cached);
        Usage {
            prompt_tokens: self.prompt,
            completion_tokens: self.generated,
            total_tokens: self.prompt + self.generated,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }),
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::prediction::cloud_table::Class;

    fn upstream() -> Upstream {
        Upstream {
            energy_class: Some(Class::Small),
            dollars_per_million_input_tokens: Some(1.0),
            dollars_per_million_output_tokens: Some(2.0),
            ..Upstream::default()
        }
    }

    #[test]
    fn hidden_reasoning_is_billed_and_expected_equals_actual_for_the_same_tokens() {
        let config = upstream();
        let billing = Billing::Upstream(&config);
        // Some upstreams count reasoning in the total only.
        let hidden = Usage {
            prompt_tokens: 100,
            completion_tokens: 10,
            total_tokens: 1100,
            ..Usage::default()
        };
        let spent = Spent { usage: Some(hidden), ..Spent::default() };
        let work = Work { prompt: 100, generated: 1000, ..Work::default() };
        let no_engine = |_| EnergyFigure::unknown(Source::CloudTable);
        let expected = billing.expected_joules(work, no_engine);
        assert!(expected.is_some());
        assert_eq!(billing.actual_energy(&spent).and_then(|figure| figure.joules), expected);
        let dollars = billing.expected_dollars(work, expected, Electricity::Unpriced);
        assert_eq!(billing.actual_dollars(&spent), dollars);
    }

    #[test]
    fn unknown_is_not_zero() {
        let config = upstream();
        let billing = Billing::Upstream(&config);
        let media = Spent { media: true, ..Spent::default() };
        assert_eq!(billing.actual_energy(&media).unwrap().joules, None);
        let unfinished = Spent { output_events: 3, ..Spent::default() };
        assert_eq!(billing.actual_dollars(&unfinished), None);
        assert!(billing.actual_energy(&unfinished).unwrap().joules > Some(Joules(0.0)));
        assert_eq!(billing.actual_dollars(&Spent::default()), Some(Dollars(0.0)));
        let work = Work { prompt: 1, ..Work::default() };
        let joules = Some(Joules(1.0));
        assert_eq!(Billing::Engine.expected_dollars(work, joules, Electricity::Unknown), None);
        assert_eq!(Billing::Unknown.expected_dollars(work, joules, Electricity::Unpriced), None);
    }
}
