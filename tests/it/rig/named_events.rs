//! Streams of named events, as `/v1/responses` and `/v1/messages` write them.

use serde_json::Value;

use crate::rig::app::TestApp;

/// A stream read to its end.
#[derive(Debug)]
pub struct NamedEvents {
    /// Names and data.
    pub events: Vec<(String, Value)>,
    /// The bytes as they came.
    pub text: String,
}

impl NamedEvents {
    pub async fn of(app: &TestApp, path: &str, body: &Value) -> Self {
        let response = app.send(path, body).await;
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let text = response.text().await.unwrap();
        assert_eq!(kind, "text/event-stream", "{text}");
        Self::parse(text)
    }

    fn parse(text: String) -> Self {
        let mut events = Vec::new();
        for event in text.split("\n\n").filter(|event| !event.is_empty()) {
            let Some(named) = event.strip_prefix("event: ") else {
                assert!(event.starts_with(':'), "neither an event nor a comment: {event}");
                continue;
            };
            let (name, data) = named.split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            events.push((name.to_owned(), data));
        }
        Self { events, text }
    }

    /// The names in order, those in a row once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.events.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        names
    }

    /// Data of the events with this name.
    pub fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Value> {
        self.events.iter().filter(move |(own, _)| own == name).map(|(_, data)| data)
    }

    pub fn last(&self) -> &Value {
        &self.events.last().expect("a stream has events").1
    }
}
