//! Conversations in memory: identifies them by keyed hashes and keeps their state behind one short
//! lock.
//!
//! No text is kept, only hashes, whose key is made at the start of the process and never leaves it.

use std::hash::{BuildHasher, RandomState};
use std::mem::discriminant;

use parking_lot::{Mutex, MutexGuard};

use crate::openai::{Content, Message, Request, Role};
use crate::routing::config::Identifier;
use crate::routing::session::{Fingerprint, SessionState, Turn};
use crate::routing::{EvaluatedCandidate, SessionId, Sessions, SessionsConfig};
use crate::serving::options::RequestOptions;
use crate::traffic::Record;
use crate::units::MonotonicNs;

/// Shortest message that identifies a conversation, bytes: equal ones are unlikely by chance.
const TELLING_BYTES: usize = 32;

pub struct Conversations {
    key: RandomState,
    identify_by: Vec<Identifier>,
    sessions: Mutex<Sessions>,
}

impl Conversations {
    pub fn new(config: &SessionsConfig) -> Self {
        Self {
            key: RandomState::new(),
            identify_by: config.identify_by.clone(),
            sessions: Mutex::new(Sessions::new(config.limits())),
        }
    }

    /// Hashes by which the request's conversation is found; `None` if nothing identifies one.
    pub fn fingerprint(&self, request: &Request, options: &RequestOptions) -> Option<Fingerprint> {
        // One client cannot speak in another's conversation.
        let client = self.key.hash_one(&options.credentials);
        for by in &self.identify_by {
            let name = match by {
                Identifier::Header => &options.session,
                Identifier::Metadata => &options.metadata_session,
                Identifier::User => &options.user,
                Identifier::Prefix => {
                    let Request::Chat(request) = request else { return None };
                    return Some(self.chain(client, &request.messages));
                }
            };
            if let Some(name) = name {
                let id = SessionId(self.key.hash_one((client, discriminant(by), name)));
                return Some(Fingerprint {
                    named: Some(id),
                    ..self.chain(client, &request.messages())
                });
            }
        }
        None
    }

    /// Hashes each message together with all before it.
    fn chain(&self, client: u64, messages: &[Message]) -> Fingerprint {
        let mut fingerprint = Fingerprint { full_hash: client, ..Fingerprint::default() };
        for message in messages {
            if message.role == Role::Assistant {
                fingerprint.prefix_hashes.push(fingerprint.full_hash);
                fingerprint.history_hashes.append(&mut fingerprint.new_hashes);
            }
            let text = message.content.as_ref().map(Content::text).unwrap_or_default();
            // Every conversation of an application has the same system turn.
            let of_system = matches!(message.role, Role::System | Role::Developer);
            if text.len() >= TELLING_BYTES && !of_system {
                let told = self.key.hash_one((client, &text));
                let of_answer = message.role == Role::Assistant;
                if of_answer {
                    &mut fingerprint.history_hashes
                } else {
                    &mut fingerprint.new_hashes
                }
                .push(told);
            }
            fingerprint.full_hash =
                self.key.hash_one((fingerprint.full_hash, discriminant(&message.role), text));
        }
        fingerprint
    }

    /// State of the conversation; changes nothing.
    pub fn known(&self, fingerprint: &Fingerprint) -> SessionState {
        self.lock().known(fingerprint, MonotonicNs::now())
    }

    /// A request of the conversation is being answered.
    pub fn enter(&self, fingerprint: &Fingerprint, local_only: bool) -> SessionId {
        self.lock().enter(fingerprint, local_only, MonotonicNs::now())
    }

    pub fn answered(&self, id: SessionId, turn: Turn) {
        self.lock().answered(id, turn);
    }

    /// An answer was no good: the floor of its conversation rises above what let it pass. False if
    /// the conversation is not remembered.
    pub fn failed(&self, record: &Record) -> bool {
        let predicted = |judged: &EvaluatedCandidate| {
            let answered = Some(&judged.candidate.model) == record.receipt.model.as_ref();
            answered.then_some(judged.candidate.p)
        };
        let p = record.receipt.candidates.iter().find_map(predicted).unwrap_or(0.0);
        let passed = p.max(record.rule.floor);
        record.session.is_some_and(|id| self.lock().failed(id, passed))
    }

    pub fn remembered(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(messages: &str) -> Request {
        let body = format!(r#"{{"model":"auto","messages":{messages}}}"#);
        Request::Chat(serde_json::from_str(&body).unwrap())
    }

    const FIRST: &str = r#"[{"role":"user","content":"hi"}]"#;
    const SECOND: &str = r#"[{"role":"user","content":"hi"},{"role":"assistant","content":"Hello"},
        {"role":"user","content":"and now?"}]"#;

    #[test]
    fn a_second_turn_is_recognised_by_the_hash_of_the_first() {
        let conversations = Conversations::new(&SessionsConfig::default());
        let fingerprint = |messages, options: &RequestOptions| {
            conversations.fingerprint(&request(messages), options).unwrap()
        };
        let anybody = RequestOptions::default();
        let first = fingerprint(FIRST, &anybody);
        assert_eq!(fingerprint(SECOND, &anybody).prefix_hashes, [first.full_hash]);
        assert!(first.prefix_hashes.is_empty());
        let other =
            RequestOptions { credentials: b"Bearer other".to_vec(), ..RequestOptions::default() };
        assert_ne!(fingerprint(FIRST, &other).full_hash, first.full_hash);
        let key = Conversations::new(&SessionsConfig::default());
        assert_ne!(key.fingerprint(&request(FIRST), &anybody).unwrap().full_hash, first.full_hash);
    }

    #[test]
    fn identify_by_selects_what_identifies_a_conversation() {
        let fingerprint = |identify_by: &[Identifier], options: &RequestOptions| {
            let identify_by = identify_by.to_vec();
            let config = SessionsConfig { identify_by, ..SessionsConfig::default() };
            Conversations::new(&config).fingerprint(&request(FIRST), options)
        };
        let user = RequestOptions { user: Some("ada".to_owned()), ..RequestOptions::default() };
        assert!(fingerprint(&Identifier::ALL, &user).unwrap().named.is_some());
        let by_prefix = [Identifier::Header, Identifier::Prefix];
        assert!(fingerprint(&by_prefix, &user).unwrap().named.is_none());
        assert_eq!(fingerprint(&[Identifier::Header], &user), None);
    }
}
