//! Other spellings of the paths: without `/v1`, as llama-server has them, and with slashes too
//! many, as base URLs that end with one give them. Pure.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Paths that exist without `/v1`.
const BARE: [&str; 4] = ["/chat/completions", "/completions", "/embeddings", "/models"];

/// The path as the route table spells it; `None` if it is spelled so.
fn spelled(path: &str) -> Option<String> {
    // Nearly all are.
    let has_prefix = path.starts_with("/v1/") && path != "/v1/health";
    if has_prefix && !path.ends_with('/') && !path.contains("//") {
        return None;
    }
    let mut spelled = path.trim_end_matches('/').to_owned();
    let leading = spelled.len() - spelled.trim_start_matches('/').len();
    spelled.drain(..leading.saturating_sub(1));
    // The id of a model may hold anything, also two slashes.
    if !spelled.contains("/models/") {
        while spelled.contains("//") {
            spelled = spelled.replace("//", "/");
        }
    }
    if BARE.contains(&spelled.as_str()) || spelled.starts_with("/models/") {
        spelled.insert_str(0, "/v1");
    } else if spelled == "/health" || spelled == "/v1/health" {
        "/healthz".clone_into(&mut spelled);
    }
    (spelled != path && !spelled.is_empty()).then_some(spelled)
}

/// The address with the path as the route table spells it.
pub fn normal(uri: Uri) -> Uri {
    let Some(path) = spelled(uri.path()) else { return uri };
    let with_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let Ok(path_and_query) = PathAndQuery::try_from(with_query) else { return uri };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_path() {
        for (given, expected) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("///v1///chat//completions//", "/v1/chat/completions"),
            ("/models", "/v1/models"),
            ("/models/", "/v1/models"),
            ("/models/org/name", "/v1/models/org/name"),
            ("/v1/models/hf:a//b", "/v1/models/hf:a//b"),
            ("/health", "/healthz"),
            ("/v1/health/", "/healthz"),
            ("/embeddings?x=/", "/v1/embeddings?x=/"),
            ("/admin/models/m/unload?drain=true", "/admin/models/m/unload?drain=true"),
            ("/", "/"),
            ("//", "//"),
            ("/v1/nothing", "/v1/nothing"),
            ("*", "*"),
        ] {
            assert_eq!(normal(given.parse().unwrap()).to_string(), expected, "{given}");
        }
        let absolute: Uri = "http://host:1/models/?a=1".parse().unwrap();
        assert_eq!(normal(absolute).to_string(), "http://host:1/v1/models?a=1");
    }
}
