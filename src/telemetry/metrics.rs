//! All metrics of a gateway in one struct: the field's name is the metric's, its doc comment the
//! HELP text.
//!
//! Labels are bounded: model and policy names come from the config, everything else from enums. The
//! registry is a value, so gateways in one test process do not mix.

mod buckets;
mod labels;
mod series;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use buckets::{decision_time, latency, load_time, ratio, slots, token_time};
pub use labels::*;
pub use series::Series;

/// A counter of a fractional quantity such as joules.
pub type FloatCounter = Counter<f64, AtomicU64>;
pub type FloatGauge = Gauge<f64, AtomicU64>;
type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

macro_rules! metrics {
    ($(#[$outer:meta])* pub struct $name:ident {
        $($(#[doc = $help:literal])+ pub $field:ident: $type:ty = $init:expr,)*
    }) => {
        $(#[$outer])*
        pub struct $name {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $type,)*
        }

        impl $name {
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("wattgate");
                $(
                    let $field: $type = $init;
                    // The encoder appends `_total` to counters, and a full stop to the HELP text.
                    let metric = stringify!($field);
                    registry.register(
                        metric.strip_suffix("_total").unwrap_or(metric),
                        concat!($($help),+).trim().trim_end_matches('.'),
                        $field.clone(),
                    );
                )*
                Self { registry, $($field,)* }
            }
        }
    };
}

metrics! {
    /// The metrics of one gateway.
    pub struct Metrics {
        /// Requests by how they ended for the client; model and route are empty when none was
        /// chosen.
        pub requests_total: Family<RequestLabels, Counter> = Family::default(),
        /// Replies by path of the route table and status, those to refused requests included.
        pub http_requests_total: Family<HttpLabels, Counter> = Family::default(),
        /// Routing decisions by policy, route of the first choice, reason and task class.
        pub decisions_total: Family<DecisionLabels, Counter> = Family::default(),
        /// Turns of conversations: first, stays (on its model), moves (to a better one), lost (its
        /// model may not answer).
        pub conversation_turns_total: Family<TurnLabels, Counter> = Family::default(),
        /// Conversations that are remembered.
        pub conversations_remembered: Gauge = Gauge::default(),
        /// Answers whose length was predicted.
        pub output_length_predictions_total: Family<ModelLabels, Counter> = Family::default(),
        /// Tokens by which predicted answer lengths were off, either way.
        pub output_length_error_tokens_total: Family<ModelLabels, Counter> = Family::default(),
        /// Attempts at models by outcome; a request that fell back has several.
        pub attempts_total: Family<AttemptLabels, Counter> = Family::default(),
        /// Time from arrival to the last byte.
        pub request_duration_seconds: Histograms<ModelLabels> = Family::new_with_constructor(latency),
        /// Time from arrival to the first output.
        pub time_to_first_token_seconds: Histograms<ModelLabels> = Family::new_with_constructor(latency),
        /// Time per output token after the first, averaged over each answer.
        pub time_per_output_token_seconds: Histograms<ModelLabels> = Family::new_with_constructor(token_time),
        /// Time to extract features, predict and decide.
        pub decision_duration_seconds: Histogram = decision_time(),
        /// Tokens by kind: prompt (cached ones included), cached, completion.
        pub tokens_total: Family<TokenLabels, Counter> = Family::default(),
        /// Marginal energy of settled attempts, by purpose: answer, wasted (failed, cancelled and
        /// escalated attempts), or overhead (the gateway's own questions, such as a judge's).
        pub request_energy_joules_total: Family<EnergyLabels, FloatCounter> = Family::default(),
        /// Lower end of the band of the energy of settled attempts.
        pub request_energy_low_joules_total: Family<EnergyLabels, FloatCounter> = Family::default(),
        /// Upper end of the band of the energy of settled attempts.
        pub request_energy_high_joules_total: Family<EnergyLabels, FloatCounter> = Family::default(),
        /// Settled attempts' share of idle energy while they were open; with their marginal energy,
        /// the amortised view.
        pub request_idle_energy_joules_total: Family<ModelLabels, FloatCounter> = Family::default(),
        /// Requests that have ended and whose energy is not final yet.
        pub unsettled_requests: Gauge = Gauge::default(),
        /// Settled attempts whose energy is unknown; they are in no joules counter.
        pub request_energy_unknown_total: Family<ModelLabels, Counter> = Family::default(),
        /// Energy each metered device used since start.
        pub device_energy_joules_total: Family<DeviceLabels, FloatCounter> = Family::default(),
        /// Power of each metered device over the last second.
        pub device_power_watts: Family<DeviceLabels, FloatGauge> = Family::default(),
        /// Idle energy of a device, by whether requests were in flight.
        pub idle_energy_joules_total: Family<IdleLabels, FloatCounter> = Family::default(),
        /// Energy above idle that no request's work explains; for the gateway's own device, its
        /// overhead.
        pub unattributed_energy_joules_total: Family<DeviceNameLabels, FloatCounter> = Family::default(),
        /// Energy of each device that settled attempts have; their idle energy is in the idle
        /// series. Device energy = attributed + unsettled + load + idle + unattributed + unknown.
        pub attributed_energy_joules_total: Family<DeviceNameLabels, FloatCounter> = Family::default(),
        /// Energy of each device that attempts without a final figure have so far.
        pub unsettled_energy_joules: Family<DeviceNameLabels, FloatGauge> = Family::default(),
        /// Energy of each device that loading models took.
        pub load_energy_joules_total: Family<DeviceNameLabels, FloatCounter> = Family::default(),
        /// Energy of each device that was read but cannot be told apart: around restarts and gaps
        /// of its counter, and of attempts whose energy is unknown.
        pub unknown_energy_joules_total: Family<DeviceNameLabels, FloatCounter> = Family::default(),
        /// Power of each device that is taken for idle, configured or learned.
        pub device_idle_watts: Family<DeviceNameLabels, FloatGauge> = Family::default(),
        /// Metered energy minus all its parts; must stay 0.
        pub energy_conservation_error_joules: Family<DeviceNameLabels, FloatGauge> = Family::default(),
        /// Time the meter missed: ticks that came later than two cadences.
        pub energy_meter_gap_seconds_total: FloatCounter = FloatCounter::default(),
        /// CPU time that metering has taken, in seconds.
        pub energy_meter_cpu_seconds_total: FloatCounter = FloatCounter::default(),
        /// Times a device's counter started over or jumped; who ran then settles as unknown.
        pub energy_meter_resets_total: Family<DeviceNameLabels, Counter> = Family::default(),
        /// Readings of a device's counter that were left out, because it cannot have reached them.
        pub energy_meter_glitches_total: Family<DeviceNameLabels, Counter> = Family::default(),
        /// Sensor readings that failed.
        pub energy_meter_read_errors_total: Family<DeviceNameLabels, Counter> = Family::default(),
        /// Requests a model is working on.
        pub requests_in_flight: Family<ModelLabels, Gauge> = Family::default(),
        /// 1 when a model can be asked.
        pub model_ready: Family<ModelLabels, Gauge> = Family::default(),
        /// Time local engines spent reading prompts; a step that also decodes is split by its
        /// tokens.
        pub engine_prefill_seconds_total: Family<ModelNameLabels, FloatCounter> = Family::default(),
        /// Time local engines spent generating; a step that also reads prompts is split by its
        /// tokens.
        pub engine_decode_seconds_total: Family<ModelNameLabels, FloatCounter> = Family::default(),
        /// Prompt tokens that local engines evaluated; cached ones are not among them.
        pub engine_prefill_tokens_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Generated tokens that local engines evaluated.
        pub engine_decode_tokens_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Tokens that local engines guessed ahead and evaluated; they are among the decode tokens.
        pub engine_drafted_tokens_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Guessed tokens that were what the model would have written itself.
        pub engine_accepted_tokens_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Prompt tokens that local engines found in a cache, by where: slot, shared (another
        /// slot), host.
        pub engine_cached_tokens_total: Family<CacheLabels, Counter> = Family::default(),
        /// Time from a request's arrival at a local engine to its slot.
        pub engine_queue_wait_seconds: Histograms<ModelNameLabels> = Family::new_with_constructor(latency),
        /// Requests that were worked on in each step of a local engine.
        pub engine_busy_slots: Histograms<ModelNameLabels> = Family::new_with_constructor(slots),
        /// Requests that wait for a slot of a local engine.
        pub engine_queue_depth: Family<ModelNameLabels, Gauge> = Family::default(),
        /// Restarts of a local model's engine process.
        pub engine_restarts_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Times a local model was loaded.
        pub model_loads_total: Family<ModelNameLabels, Counter> = Family::default(),
        /// Times a local model was unloaded, by reason: idle (break-even), evicted, admin.
        pub model_unloads_total: Family<UnloadLabels, Counter> = Family::default(),
        /// Time from the start of an engine process until its model was loaded.
        pub model_load_seconds: Histograms<ModelNameLabels> = Family::new_with_constructor(load_time),
        /// Energy of loading a model, failed tries included; belongs to no request.
        pub model_load_energy_joules_total: Family<ModelNameLabels, FloatCounter> = Family::default(),
        /// Memory of a model's engine process, mapped weights included; 0 when it is not loaded.
        pub model_resident_bytes: Family<ModelNameLabels, Gauge> = Family::default(),
        /// Money owed to upstreams, in US dollars, where prices are configured.
        pub cost_dollars_total: Family<ModelLabels, FloatCounter> = Family::default(),
        /// Verdicts on answers, one per request and source (client or judge), by the quality of the
        /// request's energy figure.
        pub outcomes_total: Family<OutcomeLabels, Counter> = Family::default(),
        /// Sum of the scores (0 to 1) of these verdicts.
        pub outcome_score_total: Family<OutcomeLabels, FloatCounter> = Family::default(),
        /// What later verdicts of the same source took back of these scores: subtract it.
        pub outcome_score_withdrawn_total: Family<OutcomeLabels, FloatCounter> = Family::default(),
        /// Energy of the requests with verdicts, all attempts included; none where quality is
        /// unknown.
        pub outcome_energy_joules_total: Family<OutcomeLabels, FloatCounter> = Family::default(),
        /// Sum over the requests with verdicts of each one's own joules over its own seconds:
        /// divided by their number, the mean power that accuracy per watt is about.
        pub outcome_power_watts_total: Family<OutcomeLabels, FloatCounter> = Family::default(),
        /// Time from arrival to the last byte of the requests with verdicts.
        pub outcome_duration_seconds_total: Family<OutcomeLabels, FloatCounter> = Family::default(),
        /// Hints at what clients thought of answers: retry (the same again soon), abandon (left
        /// while being answered).
        pub weak_signals_total: Family<SignLabels, Counter> = Family::default(),
        /// Verdicts by the tenth in which the adequacy lay that was predicted of the model: decile
        /// 0 is 0 to 0.1.
        pub calibration_outcomes_total: Family<CalibrationLabels, Counter> = Family::default(),
        /// Sum of the adequacies predicted for these verdicts.
        pub calibration_p_total: Family<CalibrationLabels, FloatCounter> = Family::default(),
        /// Sum of the scores of these verdicts.
        pub calibration_score_total: Family<CalibrationLabels, FloatCounter> = Family::default(),
        /// What later verdicts took back of these scores: subtract it.
        pub calibration_score_withdrawn_total: Family<CalibrationLabels, FloatCounter> = Family::default(),
        /// Metered energy of an answer divided by what was predicted before it; answers whose
        /// energy is from a table are left out.
        pub energy_prediction_ratio: Histograms<ModelLabels> = Family::new_with_constructor(ratio),
        /// Answers given to a judge, by its name and what came of it: scored, or why not.
        pub judgements_total: Family<JudgementLabels, Counter> = Family::default(),
        /// Part of the money owed to upstreams that is for the gateway's own questions, such as a
        /// judge's; no client's request caused it.
        pub overhead_cost_dollars_total: Family<ModelLabels, FloatCounter> = Family::default(),
        /// Decisions that a candidate router would have made too, or not; the candidate is never
        /// obeyed.
        pub shadow_decisions_total: Family<ShadowLabels, Counter> = Family::default(),
        /// Population stability index of the last thousand requests or so against the router's
        /// training prompts, over deciles of an average model's predicted adequacy; above 0.25 a
        /// new fit is due.
        pub router_drift_psi: Family<RouterLabels, FloatGauge> = Family::default(),
        /// CO2-equivalent of the energy of settled attempts, in grams, where a grid is configured.
        pub carbon_grams_total: Family<CarbonLabels, FloatCounter> = Family::default(),
        /// CO2-equivalent of a kilowatt-hour here, in grams, by where the figure comes from: year,
        /// configured, live.
        pub grid_carbon_grams_per_kilowatt_hour: Family<GridLabels, FloatGauge> = Family::default(),
        /// The operator's electricity for settled attempts, in US dollars, where its price is
        /// configured.
        pub electricity_dollars_total: Family<ModelLabels, FloatCounter> = Family::default(),
        /// Records of the traffic log: written (whole in a file of the log) or dropped (lost to a
        /// full queue, or to a disk or a folder that could not be written).
        pub traffic_records_total: Family<LogLabels, Counter> = Family::default(),
        /// Writes of the traffic log, and tries to open its file, that failed.
        pub traffic_log_errors_total: Counter = Counter::default(),
        /// 1, with the version of this build.
        pub build_info: Family<BuildLabels, Gauge> = Family::default(),
    }
}

impl Metrics {
    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets a counter to a total kept elsewhere, such as the energy ledger's.
pub fn mirror(counter: &FloatCounter, total: f64) {
    counter.inner().store(total.to_bits(), Ordering::Relaxed);
}

/// As [`mirror`], for whole numbers.
pub fn mirror_count(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}
