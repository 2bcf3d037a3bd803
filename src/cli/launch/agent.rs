//! How each coding agent is pointed at a gateway. Pure.

use clap::ValueEnum;

/// Agents are content with any key; a gateway on this machine asks for none.
const ANY_KEY: &str = "wattgate";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Agent {
    /// Claude Code, over /v1/messages
    Claude,
    /// Codex, over /v1/responses
    Codex,
    /// aider, over /v1/chat/completions
    Aider,
}

/// A command and its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Agent {
    /// Starts the agent with `model` of the gateway at `url`.
    pub(super) fn start(self, url: &str, model: &str) -> Start {
        let (key, model) = (ANY_KEY.to_owned(), model.to_owned());
        match self {
            Self::Claude => Start {
                program: "claude",
                arguments: vec![],
                variables: vec![
                    ("ANTHROPIC_BASE_URL", url.to_owned()),
                    ("ANTHROPIC_AUTH_TOKEN", key),
                    // Another key would go first.
                    ("ANTHROPIC_API_KEY", String::new()),
                    ("ANTHROPIC_MODEL", model.clone()),
                    ("ANTHROPIC_DEFAULT_OPUS_MODEL", model.clone()),
                    ("ANTHROPIC_DEFAULT_SONNET_MODEL", model.clone()),
                    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model),
                    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
                ],
            },
            Self::Codex => {
                let provider = format!(
                    "{{name=\"Wattgate\",base_url=\"{url}/v1\",env_key=\"WATTGATE_API_KEY\",\
                     wire_api=\"responses\",supports_websockets=false}}"
                );
                let settings = [
                    "model_provider=\"wattgate\"".to_owned(),
                    format!("model_providers.wattgate={provider}"),
                    // OpenAI's own searches: no model here has them.
                    "web_search=\"disabled\"".to_owned(),
                ];
                let settings = settings.into_iter().flat_map(|set| ["-c".to_owned(), set]);
                Start {
                    program: "codex",
                    arguments: settings.chain(["-m".to_owned(), model]).collect(),
                    variables: vec![("WATTGATE_API_KEY", key)],
                }
            }
            Self::Aider => Start {
                program: "aider",
                arguments: vec!["--model".to_owned(), format!("openai/{model}")],
                variables: vec![("OPENAI_API_BASE", format!("{url}/v1")), ("OPENAI_API_KEY", key)],
            },
        }
    }
}

impl Start {
    /// Lines for a shell.
    pub(super) fn script(&self) -> String {
        let variables = self.variables.iter();
        let mut lines: Vec<String> =
            variables.map(|(name, value)| format!("export {name}={}", quoted(value))).collect();
        let words = self.arguments.iter().map(|word| quoted(word));
        let words: Vec<String> = std::iter::once(self.program.to_owned()).chain(words).collect();
        lines.push(words.join(" "));
        lines.join("\n")
    }
}

/// One word for any shell of POSIX's kind.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:8080";

    #[test]
    fn every_agent_gets_the_gateways_address_and_the_model() {
        let script = |agent: Agent| agent.start(URL, "auto/good").script();
        let claude = script(Agent::Claude);
        assert!(claude.starts_with("export ANTHROPIC_BASE_URL=http://127.0.0.1:8080\n"));
        assert!(claude.contains("export ANTHROPIC_API_KEY=''\n"));
        assert!(claude.contains("ANTHROPIC_DEFAULT_HAIKU_MODEL=auto/good\n"));
        assert!(claude.ends_with("\nclaude"));
        let codex = script(Agent::Codex);
        assert!(
            codex.contains("base_url=\"http://127.0.0.1:8080/v1\"")
                && codex.ends_with("-m auto/good")
        );
        let aider = script(Agent::Aider);
        assert!(aider.contains("OPENAI_API_BASE=http://127.0.0.1:8080/v1\n"));
        assert!(aider.ends_with("aider --model openai/auto/good"));
    }

    #[test]
    fn words_survive_a_shell() {
        for (word, wanted) in [("a-b", "a-b"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(word), wanted);
        }
    }
}
