//! What a request asks of its policy and says of its conversation: our headers, the body's
//! `wattgate` object, and OpenAI's `user` and `metadata`. A header takes precedence over the body.
//!
//! Reads and checks only; what the policy grants is decided in `routing::policy`.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::read_at;
use super::scheduling::scheduling;
use crate::backends::SchedulingOptions;
use crate::http::client::credentials;
use crate::http::error::ApiError;
use crate::http::layers::request_id::RequestId;
use crate::openai::request::RequestFields;
use crate::routing::{Objective, PolicyOverrides};
use crate::serving::options::RequestOptions;
use crate::shares::Client;
use crate::units::{Dollars, Joules, MonotonicNs};

/// Least adequacy, 0 to 1.
pub const FLOOR: &str = "x-wattgate-floor";
/// A word of `policies.<name>.objective`.
pub const OBJECTIVE: &str = "x-wattgate-objective";
/// Budget of this request.
pub const MAX_JOULES: &str = "x-wattgate-max-joules";
/// Budget of this request, in US dollars.
pub const MAX_DOLLARS: &str = "x-wattgate-max-dollars";
/// Any name of the conversation; the answer gives back a hash of it.
pub const SESSION: &str = "x-wattgate-session";

/// What an agent's request is for; the second name is Claude Code's.
const REQUEST_CLASS: [&str; 2] = ["x-wattgate-request-class", "x-claude-code-request-class"];

/// Longest name of a conversation, bytes.
const SESSION_BYTES_MAX: usize = 256;

/// The body's `wattgate` object.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Own {
    floor: Option<f64>,
    objective: Option<Objective>,
    max_joules: Option<f64>,
    max_dollars: Option<f64>,
    /// Read by `extract::local_only`; here for its type.
    #[serde(rename = "local_only")]
    _local_only: Option<bool>,
    session: Option<String>,
}

/// What is known of a request beside its headers and fields.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub client: Client,
    /// It asks to stay on this machine (`extract::local_only`).
    pub says_local: bool,
    pub arrived: MonotonicNs,
}

/// The options of a request.
pub fn options(
    headers: &HeaderMap,
    fields: RequestFields<'_>,
    id: &RequestId,
    asking: Asking,
) -> Result<RequestOptions, ApiError> {
    let own = fields.wattgate.map(|own| read_at::<Own>(own, "wattgate")).transpose()?;
    let own = own.unwrap_or_default();
    let share = |value: &f64| (0.0..=1.0).contains(value);
    let amount = |value: &f64| value.is_finite() && *value >= 0.0;
    let number = |text: &str| text.parse().ok();
    let header = |name| Field { headers, name };
    let floor = header(FLOOR).or(own.floor, number, share, "must be a number from 0 to 1")?;
    let objective = header(OBJECTIVE).or(own.objective, objective, |_| true, &objectives())?;
    let rule = "must be a number, 0 or more";
    let max_joules = header(MAX_JOULES).or(own.max_joules, number, amount, rule)?;
    let max_dollars = header(MAX_DOLLARS).or(own.max_dollars, number, amount, rule)?;
    let session = header(SESSION).or(
        own.session,
        |text| Some(text.to_owned()),
        |name| (1..=SESSION_BYTES_MAX).contains(&name.len()),
        "must have 1 to 256 bytes",
    )?;
    Ok(RequestOptions {
        request_id: Arc::clone(&id.0),
        scheduling: SchedulingOptions {
            client: asking.client,
            ..scheduling(headers, asking.arrived)?
        },
        overrides: PolicyOverrides {
            floor,
            objective,
            max_joules: max_joules.map(Joules),
            max_dollars: max_dollars.map(Dollars),
            local_only: asking.says_local,
        },
        credentials: credentials(headers).unwrap_or_default().to_vec(),
        session,
        metadata_session: fields.metadata.and_then(metadata_session),
        user: fields.user.and_then(text),
        request_class: request_class(headers),
    })
}

fn request_class(headers: &HeaderMap) -> Option<String> {
    let class = REQUEST_CLASS.iter().find_map(|name| headers.get(*name))?;
    class.to_str().ok().map(str::to_owned)
}

/// `session_id` of the metadata, whose other fields, of any depth, are not looked at.
fn metadata_session(metadata: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        session_id: Option<String>,
    }
    let metadata: Metadata = serde_json::from_str(metadata.get()).ok()?;
    metadata.session_id.filter(|id| !id.is_empty())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn objective(word: &str) -> Option<Objective> {
    Objective::ALL.into_iter().find(|objective| objective.label() == word)
}

fn objectives() -> String {
    let words: Vec<&str> = Objective::ALL.iter().map(|objective| objective.label()).collect();
    format!("must be one of {}", words.join(", "))
}

/// A header whose value the body may hold instead.
struct Field<'h> {
    headers: &'h HeaderMap,
    name: &'static str,
}

impl Field<'_> {
    /// The header's value, else the body's; an error, by its name, if it is not `valid`.
    fn or<T>(
        &self,
        body: Option<T>,
        parse: impl Fn(&str) -> Option<T>,
        valid: impl Fn(&T) -> bool,
        rule: &str,
    ) -> Result<Option<T>, ApiError> {
        let wrong =
            |param: String| ApiError::InvalidField { message: format!("`{param}` {rule}"), param };
        if let Some(value) = self.headers.get(self.name) {
            let parsed = value.to_str().ok().and_then(|text| parse(text.trim())).filter(valid);
            return parsed.map(Some).ok_or_else(|| wrong(self.name.to_owned()));
        }
        let field = self.name.trim_start_matches("x-wattgate-").replace('-', "_");
        match body {
            Some(value) if !valid(&value) => Err(wrong(format!("wattgate.{field}"))),
            body => Ok(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::local_only;

    #[derive(Deserialize)]
    struct Body {
        wattgate: Option<Box<RawValue>>,
        user: Option<Value>,
        metadata: Option<Box<RawValue>>,
    }

    const LOCAL_ONLY: &str = "x-wattgate-local-only";

    fn read_options(headers: &HeaderMap, body: &[u8]) -> Result<RequestOptions, ApiError> {
        let says_local = local_only::in_headers(headers) || local_only::in_body(body);
        let asking = Asking { client: Client::default(), says_local, arrived: MonotonicNs(0) };
        let body: Body = serde_json::from_slice(body).unwrap();
        let fields = RequestFields {
            wattgate: body.wattgate.as_deref(),
            user: body.user.as_ref(),
            metadata: body.metadata.as_deref(),
        };
        options(headers, fields, &RequestId::generate(), asking)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_and_body_are_read_and_a_header_goes_first() {
        let body = br#"{"model":"auto","user":"u","metadata":{"session_id":"m"},
            "wattgate":{"floor":0.5,"max_joules":7,"local_only":true,"session":"s"}}"#;
        let asked = read_options(&headers(&[(FLOOR, "0.9"), (OBJECTIVE, "carbon")]), body).unwrap();
        assert_eq!(asked.overrides.floor, Some(0.9));
        assert_eq!(asked.overrides.objective, Some(Objective::Carbon));
        assert_eq!(asked.overrides.max_joules, Some(Joules(7.0)));
        assert!(asked.overrides.local_only);
        let names = [asked.session, asked.metadata_session, asked.user];
        assert_eq!(names.map(Option::unwrap_or_default), ["s", "m", "u"]);
        assert_eq!(
            read_options(&HeaderMap::new(), b"{}").unwrap().overrides,
            PolicyOverrides::default()
        );
        // Not ours to complain about.
        assert_eq!(
            read_options(&HeaderMap::new(), br#"{"user":7,"metadata":[1]}"#).unwrap().user,
            None
        );
    }

    #[test]
    fn local_only_is_never_loosened() {
        for (header, body, expected) in [
            ("true", "{}", true),
            ("", "{}", true),
            ("FALSE", "{}", false),
            ("false", r#"{"wattgate":{"local_only":true}}"#, true),
            ("true", r#"{"wattgate":{"local_only":false}}"#, true),
        ] {
            let asked = read_options(&headers(&[(LOCAL_ONLY, header)]), body.as_bytes()).unwrap();
            assert_eq!(asked.overrides.local_only, expected, "{header} {body}");
        }
    }

    #[test]
    fn of_several_local_only_headers_one_is_enough() {
        for values in [["false", "true"], ["true", "false"]] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LOCAL_ONLY, value.parse().unwrap());
            }
            assert!(read_options(&headers, b"{}").unwrap().overrides.local_only, "{values:?}");
        }
    }

    #[test]
    fn an_invalid_override_is_refused_with_the_name_of_its_field() {
        for (name, value) in [
            (FLOOR, "1.5"),
            (FLOOR, "high"),
            (FLOOR, "NaN"),
            (OBJECTIVE, "speed"),
            (MAX_JOULES, "-1"),
            (MAX_DOLLARS, "inf"),
            (SESSION, ""),
        ] {
            let error = read_options(&headers(&[(name, value)]), b"{}").unwrap_err();
            assert!(matches!(&error, ApiError::InvalidField { param, .. } if param == name));
        }
        for (body, at) in [
            (r#"{"wattgate":{"floor":2}}"#, "wattgate.floor"),
            (r#"{"wattgate":{"flor":1}}"#, "wattgate.flor"),
            (r#"{"wattgate":{"local_only":"yes"}}"#, "wattgate.local_only"),
            (r#"{"wattgate":{"objective":"speed"}}"#, "wattgate.objective"),
        ] {
            let error = read_options(&HeaderMap::new(), body.as_bytes()).unwrap_err();
            assert!(
                matches!(&error, ApiError::InvalidField { param, .. } if param == at),
                "{error}"
            );
        }
    }
}
