//! A record as one line for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::traffic::{Attempt, Record};
use crate::units::{Dollars, Joules};

/// Time, outcome, model, policy, tokens, energy, price, duration and what failed on the way.
pub(super) fn of(record: &Record, zone: &TimeZone) -> String {
    let receipt = &record.receipt;
    let time =
        i64::try_from(record.unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.map_or_else(String::new, |time| {
        time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    });
    let tokens = record.usage.as_ref().map_or_else(
        || "–".to_owned(),
        |usage| format!("{}+{} tokens", usage.prompt_tokens, usage.completion_tokens),
    );
    let energy = receipt.energy.map_or_else(
        || "–".to_owned(),
        |figure| {
            let joules =
                figure.joules.map_or("?".to_owned(), |Joules(joules)| format!("{joules:.2} J"));
            format!("{joules} {}", figure.quality.label())
        },
    );
    let price = record.dollars.map_or("–".to_owned(), |price: Dollars| price.to_string());
    let given_up: Vec<String> = receipt.attempts.iter().filter_map(given_up).collect();
    let given_up = if given_up.is_empty() {
        String::new()
    } else {
        format!("  after {}", given_up.join(", "))
    };
    format!(
        "{time}  {} {:<9}  {:<20}  {:<10}  {tokens:>18}  {energy:>20}  {price:>10}  {:>7.0} ms{given_up}",
        record.status,
        record.outcome.label(),
        receipt.model.as_deref().unwrap_or("–"),
        receipt.policy,
        record.timings.total_ms,
    )
}

/// An attempt that did not answer, with its reason.
fn given_up(attempt: &Attempt) -> Option<String> {
    use crate::traffic::AttemptOutcome::{Answered, Running};
    let outcome = attempt.outcome;
    let reason = attempt.error.as_deref().unwrap_or_else(|| outcome.label());
    (!matches!(outcome, Answered | Running)).then(|| format!("{} ({reason})", attempt.model))
}
