//! The API surface that a request came by: how its answer is written, and in whose words it fails.

use axum::response::Response;

use super::error::ApiError;
use super::formats::format::{ReplyFormat, json};
use super::formats::head::Head;
use super::formats::of_openai;
use super::responses::store::Keep;
use super::translation::words::in_words_of;
use super::{messages, responses};
use crate::openai::ErrorEnvelope;
use crate::serving::execution::Execution;
use crate::serving::options::RequestOptions;
use crate::serving::plan::Plan;
use crate::traffic::Receipt;

/// A surface with what of the request shapes the answer.
pub enum Surface {
    /// Chat, raw prompts and embeddings: the request itself says all.
    Openai,
    Responses {
        asked: Box<responses::reply::Asked>,
        keep: Option<Keep>,
    },
    Messages(messages::reply::Asked),
}

/// A surface without any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Openai,
    Responses,
    Messages,
}

impl Surface {
    /// Takes over what later requests of the conversation inherit.
    pub fn enter(&mut self, options: &RequestOptions, plan: &Plan) {
        if let Self::Responses { keep: Some(keep), .. } = self {
            keep.local_only = plan.rule.local_only;
            keep.session.clone_from(&options.session);
        }
    }

    /// The format of the answer.
    pub fn format(self, execution: &Execution) -> Box<dyn ReplyFormat> {
        match self {
            Self::Openai => of_openai(execution),
            Self::Responses { asked, keep } => {
                let head = Head::new(execution, responses::reply::ID_PREFIX);
                Box::new(responses::reply::Responses::new(head, *asked, keep))
            }
            Self::Messages(asked) => {
                let head = Head::new(execution, messages::reply::ID_PREFIX);
                Box::new(messages::reply::Messages::new(head, asked))
            }
        }
    }
}

impl Dialect {
    /// The reply to a request that failed before anything of an answer left.
    pub fn refusal(
        self,
        error: &ApiError,
        receipt: Option<&Receipt>,
        request_id: &str,
    ) -> Response {
        let body = match self {
            Self::Openai => return error.reply(receipt),
            Self::Responses => {
                let own = in_words_of(responses::words::FIELDS, error.envelope().error);
                json(&ErrorEnvelope { error: own })
            }
            Self::Messages => json(&messages::error::envelope(error, Some(request_id))),
        };
        error.reply_with(&body, receipt)
    }
}
