//! The series that requests and engine steps touch, one struct per model, so that no label set is
//! hashed while a request is served.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::metrics::{
    CacheLabels, FloatCounter, Metrics, ModelLabels, ModelNameLabels, Series, TokenLabels,
};

/// What ended requests and attempts of one model count; see [`Metrics`] for their meaning.
pub struct ModelSeries {
    pub request_duration_seconds: Series<ModelLabels, Histogram>,
    pub time_to_first_token_seconds: Series<ModelLabels, Histogram>,
    pub time_per_output_token_seconds: Series<ModelLabels, Histogram>,
    pub prompt_tokens: Series<TokenLabels, Counter>,
    pub cached_tokens: Series<TokenLabels, Counter>,
    pub completion_tokens: Series<TokenLabels, Counter>,
    pub cost_dollars: Series<ModelLabels, FloatCounter>,
    pub output_length_predictions: Series<ModelLabels, Counter>,
    pub output_length_error_tokens: Series<ModelLabels, Counter>,
}

impl ModelSeries {
    pub fn new(metrics: &Metrics, labels: &ModelLabels) -> Self {
        let tokens = |kind| {
            let ModelLabels { model, route } = labels.clone();
            Series::new(&metrics.tokens_total, TokenLabels { model, route, kind })
        };
        Self {
            request_duration_seconds: Series::new(
                &metrics.request_duration_seconds,
                labels.clone(),
            ),
            time_to_first_token_seconds: Series::new(
                &metrics.time_to_first_token_seconds,
                labels.clone(),
            ),
            time_per_output_token_seconds: Series::new(
                &metrics.time_per_output_token_seconds,
                labels.clone(),
            ),
            prompt_tokens: tokens("prompt"),
            cached_tokens: tokens("cached"),
            completion_tokens: tokens("completion"),
            cost_dollars: Series::new(&metrics.cost_dollars_total, labels.clone()),
            output_length_predictions: Series::new(
                &metrics.output_length_predictions_total,
                labels.clone(),
            ),
            output_length_error_tokens: Series::new(
                &metrics.output_length_error_tokens_total,
                labels.clone(),
            ),
        }
    }
}

/// What the steps of one local engine count; see [`Metrics`] for their meaning.
pub struct EngineSeries {
    pub prefill_tokens: Series<ModelNameLabels, Counter>,
    pub prefill_seconds: Series<ModelNameLabels, FloatCounter>,
    pub decode_tokens: Series<ModelNameLabels, Counter>,
    pub decode_seconds: Series<ModelNameLabels, FloatCounter>,
    pub drafted_tokens: Series<ModelNameLabels, Counter>,
    pub accepted_tokens: Series<ModelNameLabels, Counter>,
    pub slot_cached_tokens: Series<CacheLabels, Counter>,
    pub shared_cached_tokens: Series<CacheLabels, Counter>,
    pub host_cached_tokens: Series<CacheLabels, Counter>,
    pub busy_slots: Series<ModelNameLabels, Histogram>,
    pub queue_wait_seconds: Series<ModelNameLabels, Histogram>,
}

impl EngineSeries {
    pub fn new(metrics: &Metrics, model: &Arc<str>) -> Self {
        let labels = || ModelNameLabels { model: Arc::clone(model) };
        let cached = |from| {
            let labels = CacheLabels { model: Arc::clone(model), from };
            Series::new(&metrics.engine_cached_tokens_total, labels)
        };
        Self {
            prefill_tokens: Series::new(&metrics.engine_prefill_tokens_total, labels()),
            prefill_seconds: Series::new(&metrics.engine_prefill_seconds_total, labels()),
            decode_tokens: Series::new(&metrics.engine_decode_tokens_total, labels()),
            decode_seconds: Series::new(&metrics.engine_decode_seconds_total, labels()),
            drafted_tokens: Series::new(&metrics.engine_drafted_tokens_total, labels()),
            accepted_tokens: Series::new(&metrics.engine_accepted_tokens_total, labels()),
            slot_cached_tokens: cached("slot"),
            shared_cached_tokens: cached("shared"),
            host_cached_tokens: cached("host"),
            busy_slots: Series::new(&metrics.engine_busy_slots, labels()),
            queue_wait_seconds: Series::new(&metrics.engine_queue_wait_seconds, labels()),
        }
    }
}
