//! Records under the column names of other products' logs. Pure.
//!
//! Only what a record holds is written; a column that would need a guess is left out.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::record::{Outcome, Prompt, Record};
use crate::units::{Dollars, Joules};

/// Whose column names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Columns of `LiteLLM_SpendLogs`.
    Litellm,
    /// Span attributes of `OpenInference`.
    Openinference,
    /// Columns of Helicone's `request_response_rmt`.
    Helicone,
}

/// One row; joules and the receipt's own words are under `wattgate.*`, which no vocabulary has.
pub fn row(record: &Record, vocabulary: Vocabulary) -> Map<String, Value> {
    let mut row = match vocabulary {
        Vocabulary::Litellm => litellm(record),
        Vocabulary::Openinference => openinference(record),
        Vocabulary::Helicone => helicone(record),
    };
    let energy = record.receipt.energy;
    let joules = energy.and_then(|figure| figure.joules).map(|Joules(joules)| joules);
    row.insert("wattgate.joules".to_owned(), json!(joules));
    let quality = energy.map(|figure| figure.quality.label());
    row.insert("wattgate.energy_quality".to_owned(), json!(quality));
    row.insert("wattgate.policy".to_owned(), json!(record.receipt.policy));
    row.insert("wattgate.propensity".to_owned(), json!(record.propensity));
    row.insert("wattgate.label".to_owned(), json!(record.label));
    row
}

fn litellm(record: &Record) -> Map<String, Value> {
    let receipt = &record.receipt;
    object(json!({
        "request_id": receipt.request_id,
        "call_type": "acompletion",
        "spend": dollars(record),
        "total_tokens": record.usage.as_ref().map(|usage| usage.total_tokens),
        "prompt_tokens": record.usage.as_ref().map(|usage| usage.prompt_tokens),
        "completion_tokens": record.usage.as_ref().map(|usage| usage.completion_tokens),
        "startTime": time(record.unix_ms, 0.0),
        "endTime": time(record.unix_ms, record.timings.total_ms),
        "completionStartTime": record.timings.first_token_ms.and_then(|ms| time(record.unix_ms, ms)),
        "model": receipt.model,
        "model_group": receipt.policy,
        "session_id": record.session,
        "messages": messages(record),
        "status": if record.outcome == Outcome::Answered { "success" } else { "failure" },
    }))
}

fn openinference(record: &Record) -> Map<String, Value> {
    let usage = record.usage.as_ref();
    object(json!({
        "openinference.span.kind": "LLM",
        "span_id": record.receipt.request_id,
        "start_time": time(record.unix_ms, 0.0),
        "end_time": time(record.unix_ms, record.timings.total_ms),
        "llm.model_name": record.receipt.model,
        "llm.token_count.prompt": usage.map(|usage| usage.prompt_tokens),
        "llm.token_count.completion": usage.map(|usage| usage.completion_tokens),
        "llm.token_count.total": usage.map(|usage| usage.total_tokens),
        "llm.token_count.prompt_details.cache_read": usage
            .and_then(|usage| usage.prompt_tokens_details.as_ref())
            .map(|details| details.cached_tokens),
        "llm.cost.total": dollars(record),
        "session.id": record.session,
        "llm.input_messages": messages(record),
    }))
}

fn helicone(record: &Record) -> Map<String, Value> {
    let usage = record.usage.as_ref();
    object(json!({
        "request_id": record.receipt.request_id,
        "request_created_at": time(record.unix_ms, 0.0),
        "latency": record.timings.total_ms,
        "time_to_first_token": record.timings.first_token_ms,
        "status": record.status,
        "prompt_tokens": usage.map(|usage| usage.prompt_tokens),
        "completion_tokens": usage.map(|usage| usage.completion_tokens),
        "model": record.receipt.model,
        "cost": dollars(record),
        "properties": { "Helicone-Session-Id": record.session, "policy": record.receipt.policy },
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn dollars(record: &Record) -> Option<f64> {
    record.dollars.map(|Dollars(dollars)| dollars)
}

/// `None` unless prompts are stored whole.
fn messages(record: &Record) -> Option<Value> {
    match record.prompt.as_ref()? {
        Prompt::Messages(messages) => serde_json::to_value(messages).ok(),
        Prompt::Sha256(_) => None,
    }
}

/// RFC 3339 in UTC, `after_ms` later; `None` for a time that no calendar has.
fn time(unix_ms: u64, after_ms: f64) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "durations of requests")]
    let unix_ms = i64::try_from(unix_ms).ok()?.checked_add(after_ms.round() as i64)?;
    Some(Timestamp::from_millisecond(unix_ms).ok()?.to_string())
}
