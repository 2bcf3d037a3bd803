//! Settings of one OpenAI-compatible upstream: addresses, prices, energy, limits and timeouts.
//!
//! Holds no secret, only the name of its environment variable.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::patience::Patience;
use crate::energy::grid::rates::validate_zone;
use crate::energy::prediction::cloud_table::{Class, OwnFigures, PerToken};
use crate::locality::Locality;
use crate::openai::Usage;
use crate::units::Dollars;
use crate::validate::{Diagnostic, Diagnostics, Validate};

/// `[models.<name>.openai]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Root of the API with its version, such as `https://api.openai.com/v1`. Required: a default
    /// could send prompts somewhere the operator never named. A query string is kept
    /// (`?api-version=…`).
    pub base_url: String,
    /// The model's name at the upstream. Default: the name of its config entry.
    pub model: Option<String>,
    /// Environment variable that holds the API key. Default: none, for servers that ask for no key.
    pub api_key_env: Option<String>,
    /// Size class for the table of cloud energy: `nano`, `small`, `medium`, `large`, `frontier` or
    /// `frontier_xl`. Default: none, the energy is unknown.
    pub energy_class: Option<Class>,
    /// Figures of the operator's own, which come before the class's. Default: none.
    pub energy: OwnFigures,
    /// Country whose grid feeds the upstream, as in `[energy.carbon]`. Default: none, the world's
    /// average.
    pub carbon_zone: Option<String>,
    /// Price of a million prompt tokens in US dollars. Default: none, the price is unknown (which
    /// is not free).
    pub dollars_per_million_input_tokens: Option<f64>,
    /// Price of a million generated tokens in US dollars. Default: none, unknown.
    pub dollars_per_million_output_tokens: Option<f64>,
    /// Price of a million prompt tokens that the upstream had cached. Default: the price of other
    /// prompt tokens.
    pub dollars_per_million_cached_tokens: Option<f64>,
    /// Whether to ask for the token counts of a streamed answer (`stream_options`), without which
    /// its cost and energy are unknown. An upstream that refuses the field is found out by itself,
    /// at the price of one refused request after each start. Default: true.
    pub stream_usage: bool,
    /// What the model can do; requests that need more are not routed to it. Default: everything.
    pub capabilities: CapabilitiesConfig,
    /// Whether the model gives embeddings; it then answers nothing else. Default: false.
    pub embedding: bool,
    /// Longest prompt plus answer in tokens. Default: none, the upstream refuses what is too long.
    pub context_tokens: Option<u32>,
    /// Requests at the upstream at once; more are refused as overloaded. Default: 256.
    pub max_in_flight: u32,
    /// Longest wait for a connection, TLS included, in milliseconds. Default: 5,000.
    pub connect_timeout_ms: u64,
    /// Longest wait for the headers of a streamed answer, and after them for its first event, in
    /// milliseconds; an upstream's keep-alive comments count as life. Default: 60,000.
    pub first_byte_timeout_ms: u64,
    /// Longest silence within a streamed answer that has begun, in milliseconds; keep-alive
    /// comments count as life. Default: 30,000.
    pub idle_timeout_ms: u64,
    /// Longest wait for a whole answer that is not streamed, in milliseconds. Such an upstream is
    /// silent until it has finished, so this cannot be as short as the others. Default: 600,000, as
    /// OpenAI's own clients wait.
    pub answer_timeout_ms: u64,
    /// How far a prompt travels: `on_host`, `own_network` or `third_party`. Default `third_party`,
    /// also for a server on loopback, which may forward prompts anywhere.
    pub locality: Locality,
    /// More servers of the same model, tried when another one fails or is busier. Default: none.
    pub deployments: Vec<DeploymentConfig>,
}

/// `[models.<name>.openai.capabilities]`: what a model that answers in text can do beyond that.
#[expect(clippy::struct_excessive_bools, reason = "independent yes/no abilities, each named")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilitiesConfig {
    /// Calls tools. Default: true.
    pub tools: bool,
    /// Keeps to a `response_format` other than text. Default: true.
    pub schema: bool,
    /// Reads or gives images, sound or files. Default: true.
    pub media: bool,
    /// Gives log-probabilities. Default: true.
    pub logprobs: bool,
    /// Gives more than one choice (`n`). Default: true.
    pub choices: bool,
}

impl Default for CapabilitiesConfig {
    fn default() -> Self {
        Self { tools: true, schema: true, media: true, logprobs: true, choices: true }
    }
}

/// `[[models.<name>.openai.deployments]]`: another server of the model. A key that is left out is
/// as in the model's table; only the address, the API key and the locality are never taken from
/// there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeploymentConfig {
    pub base_url: String,
    pub locality: Locality,
    pub api_key_env: Option<String>,
    pub model: Option<String>,
    pub energy_class: Option<Class>,
    pub energy: Option<OwnFigures>,
    pub carbon_zone: Option<String>,
    pub dollars_per_million_input_tokens: Option<f64>,
    pub dollars_per_million_output_tokens: Option<f64>,
    pub dollars_per_million_cached_tokens: Option<f64>,
    pub stream_usage: Option<bool>,
    pub context_tokens: Option<u32>,
    pub max_in_flight: Option<u32>,
    pub connect_timeout_ms: Option<u64>,
    pub first_byte_timeout_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    pub answer_timeout_ms: Option<u64>,
}

impl DeploymentConfig {
    /// All settings of this deployment of `model`.
    fn resolved(&self, model: &Config) -> Config {
        Config {
            base_url: self.base_url.clone(),
            locality: self.locality,
            api_key_env: self.api_key_env.clone(),
            deployments: Vec::new(),
            embedding: model.embedding,
            capabilities: model.capabilities,
            stream_usage: self.stream_usage.unwrap_or(model.stream_usage),
            model: self.model.clone().or_else(|| model.model.clone()),
            energy_class: self.energy_class.or(model.energy_class),
            energy: self.energy.unwrap_or(model.energy),
            carbon_zone: self.carbon_zone.clone().or_else(|| model.carbon_zone.clone()),
            dollars_per_million_input_tokens: self
                .dollars_per_million_input_tokens
                .or(model.dollars_per_million_input_tokens),
            dollars_per_million_output_tokens: self
                .dollars_per_million_output_tokens
                .or(model.dollars_per_million_output_tokens),
            dollars_per_million_cached_tokens: self
                .dollars_per_million_cached_tokens
                .or(model.dollars_per_million_cached_tokens),
            context_tokens: self.context_tokens.or(model.context_tokens),
            max_in_flight: self.max_in_flight.unwrap_or(model.max_in_flight),
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(model.connect_timeout_ms),
            first_byte_timeout_ms: self
                .first_byte_timeout_ms
                .unwrap_or(model.first_byte_timeout_ms),
            idle_timeout_ms: self.idle_timeout_ms.unwrap_or(model.idle_timeout_ms),
            answer_timeout_ms: self.answer_timeout_ms.unwrap_or(model.answer_timeout_ms),
        }
    }
}

/// The addresses of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    pub(super) chat: Url,
    pub(super) completions: Url,
    pub(super) embeddings: Url,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            model: None,
            api_key_env: None,
            energy_class: None,
            energy: OwnFigures::default(),
            carbon_zone: None,
            dollars_per_million_input_tokens: None,
            dollars_per_million_output_tokens: None,
            dollars_per_million_cached_tokens: None,
            stream_usage: true,
            capabilities: CapabilitiesConfig::default(),
            embedding: false,
            context_tokens: None,
            max_in_flight: 256,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 60_000,
            idle_timeout_ms: 30_000,
            answer_timeout_ms: 600_000,
            locality: Locality::ThirdParty,
            deployments: Vec::new(),
        }
    }
}

/// Why no request can be sent to a `base_url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    #[error("`base_url` must be an http(s) URL, as in https://api.openai.com/v1")]
    NotHttp,
    #[error("`base_url` must not hold a user name or password")]
    HoldsSecret,
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        self.validate_base_url(out);
        if let Some(variable) = &self.api_key_env {
            let rule = "must be the name of an environment variable: letters, digits and `_`";
            out.rule("api_key_env", is_variable_name(variable), rule)
                .hint("write the name of the variable that holds the key, never the key itself");
        }
        out.positive([
            ("max_in_flight", u64::from(self.max_in_flight)),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("answer_timeout_ms", self.answer_timeout_ms),
        ]);
        for (key, dollars) in [
            ("dollars_per_million_input_tokens", self.dollars_per_million_input_tokens),
            ("dollars_per_million_output_tokens", self.dollars_per_million_output_tokens),
            ("dollars_per_million_cached_tokens", self.dollars_per_million_cached_tokens),
        ] {
            out.range_if_set(key, dollars, 0.0.., "");
        }
        out.inside("energy", |out| self.energy.validate(self.energy_class, out));
        validate_zone("carbon_zone", self.carbon_zone.as_deref(), out);
        out.positive(self.context_tokens.map(|tokens| ("context_tokens", u64::from(tokens))));
        self.validate_deployments(out);
    }
}

fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Config {
    fn validate_base_url(&self, out: &mut Diagnostics) {
        match self.endpoints() {
            Ok(_) => self.validate_path(out),
            Err(_) if self.base_url.is_empty() => out.reject("base_url", "`base_url` is missing").hint(
                "write `base_url = \"https://api.openai.com/v1\"`, or the address of your own server",
            ),
            Err(error @ BaseUrlError::HoldsSecret) => out
                .reject("base_url", error.to_string())
                .hint("put the key into the variable that `api_key_env` names"),
            Err(error @ BaseUrlError::NotHttp) => {
                out.reject("base_url", error.to_string());
            }
        }
    }

    /// The endpoint is added to the path, so what ends with it already leads nowhere.
    fn validate_path(&self, out: &mut Diagnostics) {
        let Ok(url) = Url::parse(&self.base_url) else { return };
        let path = url.path();
        let whole = path.trim_end_matches('/');
        let endpoint = ["/chat/completions", "/completions", "/embeddings"]
            .into_iter()
            .find(|one| whole.ends_with(one));
        if let Some(endpoint) = endpoint {
            out.reject("base_url", format!("`base_url` must not end with `{endpoint}`"))
                .hint("leave it out: it is added for each kind of request");
        } else if path.contains("//") {
            out.reject("base_url", "`base_url` must not have `//` in its path")
                .hint("write one `/`, as in https://api.openai.com/v1");
        }
    }

    fn validate_deployments(&self, out: &mut Diagnostics) {
        for (deployment, number) in self.resolved().1.into_iter().zip(1..) {
            for Diagnostic { message, hint, .. } in deployment.diagnostics() {
                let rejected = out.reject("deployments", format!("deployment {number}: {message}"));
                if let Some(hint) = hint {
                    rejected.hint(hint);
                }
            }
        }
    }

    /// All settings of the table's own deployment, and of the further ones.
    pub fn resolved(&self) -> (Self, Vec<Self>) {
        let own = Self { deployments: Vec::new(), ..self.clone() };
        (own, self.deployments.iter().map(|deployment| deployment.resolved(self)).collect())
    }

    /// Locality of the nearest deployment.
    pub fn nearest(&self) -> Locality {
        let further = self.deployments.iter().map(|deployment| deployment.locality);
        further.fold(self.locality, Locality::min)
    }

    /// Host and port, to tell deployments apart.
    pub fn deployment_name(&self) -> String {
        let url = Url::parse(&self.base_url).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        match url.as_ref().and_then(Url::port) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Energy per token; `None` without a class or the operator's own figures.
    pub fn per_token(&self) -> Option<PerToken> {
        self.energy.over(self.energy_class)
    }

    /// Price of `usage`; `None` while a price is unknown.
    pub fn dollars(&self, usage: &Usage) -> Option<Dollars> {
        let input = self.dollars_per_million_input_tokens?;
        let output = match usage.generated_tokens() {
            // Embeddings have none, and no price for them.
            0 => 0.0,
            _ => self.dollars_per_million_output_tokens?,
        };
        let cached = self.dollars_per_million_cached_tokens.unwrap_or(input);
        let cached_tokens = usage.cached_tokens().min(usage.prompt_tokens);
        let fresh_tokens = usage.prompt_tokens - cached_tokens;
        let millionths = fresh_tokens as f64 * input
            + cached_tokens as f64 * cached
            + usage.generated_tokens() as f64 * output;
        Some(Dollars(millionths / 1e6))
    }

    /// Addresses for each kind of request.
    pub(super) fn endpoints(&self) -> Result<Endpoints, BaseUrlError> {
        Ok(Endpoints {
            chat: self.endpoint(&["chat", "completions"])?,
            completions: self.endpoint(&["completions"])?,
            embeddings: self.endpoint(&["embeddings"])?,
        })
    }

    fn endpoint(&self, path: &[&str]) -> Result<Url, BaseUrlError> {
        let mut url = Url::parse(&self.base_url).map_err(|_| BaseUrlError::NotHttp)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BaseUrlError::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::HoldsSecret);
        }
        url.path_segments_mut().map_err(|()| BaseUrlError::NotHttp)?.pop_if_empty().extend(path);
        Ok(url)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn patience(&self) -> Patience {
        Patience {
            first: Duration::from_millis(self.first_byte_timeout_ms),
            between: Duration::from_millis(self.idle_timeout_ms),
            whole: Duration::from_millis(self.answer_timeout_ms),
        }
    }

    /// How long to wait for the response's headers.
    pub(super) fn headers_timeout(&self, streams: bool) -> Duration {
        let wait_ms = if streams { self.first_byte_timeout_ms } else { self.answer_timeout_ms };
        Duration::from_millis(wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::chat::PromptTokensDetails;

    fn at(base_url: &str) -> Config {
        Config { base_url: base_url.into(), ..Config::default() }
    }

    #[test]
    fn the_endpoint_keeps_path_and_query() {
        let endpoint = |base_url| at(base_url).endpoints().map(|urls| urls.chat.to_string());
        for base_url in ["http://h:8000/v1", "http://h:8000/v1/"] {
            assert_eq!(endpoint(base_url).unwrap(), "http://h:8000/v1/chat/completions");
        }
        assert_eq!(
            endpoint("https://h/openai/v1?api-version=2").unwrap(),
            "https://h/openai/v1/chat/completions?api-version=2"
        );
        let others = at("https://h/v1?a=b").endpoints().unwrap();
        assert_eq!(others.completions.as_str(), "https://h/v1/completions?a=b");
        assert_eq!(others.embeddings.as_str(), "https://h/v1/embeddings?a=b");
    }

    #[test]
    fn every_problem_is_reported_with_its_field() {
        let config = Config {
            max_in_flight: 0,
            idle_timeout_ms: 0,
            dollars_per_million_output_tokens: Some(-1.0),
            ..at("https://me:secret@h/v1")
        };
        let fields: Vec<String> = config.diagnostics().iter().map(Diagnostic::key).collect();
        assert_eq!(
            fields,
            ["base_url", "max_in_flight", "idle_timeout_ms", "dollars_per_million_output_tokens"]
        );
        assert!(!config.diagnostics()[0].message.contains("secret"));
        for base_url in ["", "h:80", "ftp://h/v1", "data:text/plain,x"] {
            let keys: Vec<String> =
                at(base_url).diagnostics().iter().map(Diagnostic::key).collect();
            assert_eq!(keys, ["base_url"], "{base_url}");
        }
        assert_eq!(at("http://127.0.0.1:8000/v1").diagnostics(), []);
    }

    #[test]
    fn an_address_that_leads_nowhere_is_refused_with_a_hint() {
        for (base_url, word) in [
            ("http://h/v1/chat/completions", "/chat/completions"),
            ("http://h/v1/completions/?key=sk-secret", "/completions"),
            ("http://h/v1/embeddings", "/embeddings"),
            ("http://h/v1//", "//"),
            ("http://h//v1", "//"),
        ] {
            let problems = at(base_url).diagnostics();
            assert_eq!((problems.len(), &*problems[0].key()), (1, "base_url"), "{base_url}");
            assert!(problems[0].message.contains(word) && problems[0].hint.is_some(), "{base_url}");
            assert!(!problems[0].message.contains("secret"));
        }
        for base_url in [
            "http://h",
            "http://h/",
            "http://h/v1/",
            "http://h/v1?a=//",
            "http://h/my-completions/v1",
        ] {
            assert_eq!(at(base_url).diagnostics(), [], "{base_url}");
        }
    }

    #[test]
    fn a_deployment_inherits_all_but_address_key_and_locality_and_is_checked_alike() {
        let model = Config {
            model: Some("m".into()),
            api_key_env: Some("KEY".into()),
            locality: Locality::OnHost,
            max_in_flight: 7,
            deployments: vec![DeploymentConfig {
                base_url: "http://h:8000/v1".into(),
                idle_timeout_ms: Some(5),
                ..DeploymentConfig::default()
            }],
            ..at("https://api/v1")
        };
        assert_eq!(model.diagnostics(), []);
        let (own, further) = model.resolved();
        assert_eq!((own.deployment_name(), own.locality), ("api".to_owned(), Locality::OnHost));
        let [further] = &further[..] else { panic!("one is listed") };
        assert_eq!((further.model.as_deref(), further.max_in_flight), (Some("m"), 7));
        assert_eq!((further.idle_timeout_ms, &*further.deployment_name()), (5, "h:8000"));
        assert_eq!((&further.api_key_env, further.locality), (&None, Locality::ThirdParty));

        let wrong = DeploymentConfig {
            api_key_env: Some("sk-secret".into()),
            max_in_flight: Some(0),
            ..DeploymentConfig::default()
        };
        let problems = Config { deployments: vec![wrong], ..at("https://api/v1") }.diagnostics();
        let told: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.iter().all(|line| line.starts_with("deployment 1: ") && !line.contains("sk-"))
        );
    }

    #[test]
    fn cached_tokens_have_their_own_price_and_no_price_is_not_free() {
        let usage = Usage {
            prompt_tokens: 1_000_000,
            completion_tokens: 500_000,
            total_tokens: 1_500_000,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: Some(400_000) }),
            ..Usage::default()
        };
        let priced = Config {
            dollars_per_million_input_tokens: Some(1.0),
            dollars_per_million_output_tokens: Some(4.0),
            ..Config::default()
        };
        assert_eq!(priced.dollars(&usage), Some(Dollars(3.0)));
        let discounted = Config { dollars_per_million_cached_tokens: Some(0.5), ..priced };
        assert_eq!(discounted.dollars(&usage), Some(Dollars(2.8)));
        assert_eq!(Config::default().dollars(&usage), None);
    }
}
