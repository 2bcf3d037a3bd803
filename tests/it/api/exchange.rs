//! One exchange as a state machine: an upstream that does anything at any moment, beside a healthy
//! one, and a client that stays or leaves.
//!
//! Whatever happens: one answer, one bill, no text lost, repeated or out of order, none held back,
//! and an end within the deadlines.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wattgate::traffic::{AttemptOutcome, Outcome, Record};

use crate::rig::app::{TestApp, ask, cloud_model, cloud_model_at, eventually};
use crate::rig::led_upstream::{Exchange, LedUpstream};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::unruly_upstream::Step;

/// Silence after which an upstream has failed. Far longer than a test takes between two steps.
const SILENCE: Duration = Duration::from_millis(1_500);

/// From the last step to the end of the exchange: a silence, the wait for the usage of a finished
/// answer, and slack for a busy machine.
const END_IN: Duration = Duration::from_millis(1_500 + 2_000 + 4_000);

/// How soon text that an upstream sent must reach the client.
const TEXT_IN: Duration = Duration::from_secs(1);

const PROMPT: &str = "hello";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// What the led upstream or the client does next.
#[derive(Clone, Debug)]
enum Move {
    /// An HTTP status other than 200, without a body.
    Status(u16),
    Head,
    Opening(Opening),
    Word(String),
    /// Text and the end of the choice in one chunk.
    LastWord(String),
    Finish,
    /// Token counts of prompt and completion, in a chunk without choices.
    Usage(u32, u32),
    Done,
    Error,
    /// The end of the connection.
    Cut,
    /// Nothing more, on an open connection.
    Hang,
    /// A whole answer with these words.
    Whole(String),
    HalfOfAWhole,
    ClientLeaves,
    /// After the end.
    Rest,
}

/// Events that say nothing.
#[derive(Clone, Copy, Debug)]
enum Opening {
    Role,
    EmptyText,
    Filter,
    Comment,
    EmptyData,
}

/// The exchange so far.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, in any combination")]
struct Model {
    streams: bool,
    wants_usage: bool,
    head: bool,
    /// A choice has been named.
    begun: bool,
    text: String,
    finished: bool,
    usage: Option<(u32, u32)>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The led upstream has answered.
    Answered,
    Failed,
    ClientLeft,
}

impl Model {
    /// The healthy upstream answers instead.
    fn falls_back(&self) -> bool {
        self.end == Some(End::Failed) && self.text.is_empty()
    }
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Model;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Model> {
        let model = |(streams, wants_usage)| Model {
            streams,
            wants_usage,
            head: false,
            begun: false,
            text: String::new(),
            finished: false,
            usage: None,
            end: None,
        };
        (prop::bool::weighted(0.8), any::<bool>()).prop_map(model).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Move> {
        if model.end.is_some() {
            return Just(Move::Rest).boxed();
        }
        let word = || "[a-zé😀\n\" ]{1,6}";
        let opening = prop::sample::select(vec![
            Opening::Role,
            Opening::EmptyText,
            Opening::Filter,
            Opening::Comment,
            Opening::EmptyData,
        ]);
        let before_the_head = || {
            prop_oneof![
                1 => prop::sample::select(vec![401, 429, 500, 503]).prop_map(Move::Status),
                1 => Just(Move::Cut),
                1 => Just(Move::Hang),
                1 => Just(Move::ClientLeaves),
            ]
        };
        if !model.streams {
            let whole = word().prop_map(Move::Whole);
            return prop_oneof![2 => before_the_head(), 2 => whole, 1 => Just(Move::HalfOfAWhole)]
                .boxed();
        }
        if !model.head {
            return prop_oneof![1 => before_the_head(), 8 => Just(Move::Head)].boxed();
        }
        let usage = (1_u32..99, 1_u32..99).prop_map(|(prompt, answer)| Move::Usage(prompt, answer));
        let rest = prop_oneof![
            4 => opening.prop_map(Move::Opening),
            2 => usage,
            2 => Just(Move::Done),
            2 => Just(Move::Cut),
            1 => Just(Move::Hang),
            1 => Just(Move::ClientLeaves),
        ];
        if model.finished {
            return rest.boxed();
        }
        prop_oneof![
            6 => rest,
            8 => word().prop_map(Move::Word),
            2 => word().prop_map(Move::LastWord),
            3 => Just(Move::Finish),
            1 => Just(Move::Error),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Move) -> bool {
        if model.end.is_some() {
            return matches!(step, Move::Rest);
        }
        match step {
            Move::Rest => false,
            Move::Status(_) => !model.head,
            Move::Head => model.streams && !model.head,
            Move::Opening(_) | Move::Usage(..) | Move::Done => model.head,
            Move::Word(_) | Move::LastWord(_) | Move::Finish | Move::Error => {
                model.head && !model.finished
            }
            Move::Whole(_) | Move::HalfOfAWhole => !model.streams,
            Move::Cut | Move::Hang | Move::ClientLeaves => true,
        }
    }

    fn apply(mut model: Model, step: &Move) -> Model {
        match step {
            Move::Head => model.head = true,
            Move::Opening(Opening::Role | Opening::EmptyText) => model.begun = true,
            Move::Opening(_) | Move::Rest => {}
            Move::Word(word) => {
                model.begun = true;
                model.text.push_str(word);
            }
            Move::LastWord(word) => {
                (model.begun, model.finished) = (true, true);
                model.text.push_str(word);
            }
            Move::Finish => (model.begun, model.finished) = (true, true),
            Move::Usage(prompt, answer) => model.usage = Some((*prompt, *answer)),
            Move::Whole(word) => {
                model.text.push_str(word);
                model.end = Some(End::Answered);
            }
            Move::Done if model.begun => model.end = Some(End::Answered),
            Move::Cut | Move::Hang if model.finished => model.end = Some(End::Answered),
            Move::Done
            | Move::Cut
            | Move::Hang
            | Move::Status(_)
            | Move::Error
            | Move::HalfOfAWhole => model.end = Some(End::Failed),
            Move::ClientLeaves => model.end = Some(End::ClientLeft),
        }
        model
    }
}

/// A gateway in the middle of a request, with a led upstream that is chosen first and a healthy
/// one.
struct System {
    app: TestApp,
    exchange: Exchange,
    _healthy: MockUpstream,
    _led: LedUpstream,
    client: Client,
}

/// The client's side: what has arrived, and the task that receives it.
struct Client {
    received: Arc<Mutex<Vec<u8>>>,
    /// One task, which ends with the status of the reply.
    receiving: JoinSet<u16>,
}

impl Client {
    fn start(app: &TestApp, body: &Value) -> Self {
        let request = app.request("/v1/chat/completions").json(body);
        let received = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&received);
        let mut receiving = JoinSet::new();
        receiving.spawn(async move {
            let mut response = request.send().await.unwrap();
            while let Ok(Some(piece)) = response.chunk().await {
                into.lock().unwrap().extend_from_slice(&piece);
            }
            response.status().as_u16()
        });
        Self { received, receiving }
    }

    fn body(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }

    /// The objects of the stream, as far as they have arrived whole.
    fn chunks(&self) -> Vec<Value> {
        let body = self.body();
        let data = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    fn text(&self) -> String {
        let chunks = self.chunks();
        let pieces = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["content"]);
        pieces.filter_map(Value::as_str).collect()
    }
}

async fn begin(model: &Model) -> System {
    let (led, healthy) = (LedUpstream::start().await, MockUpstream::start().await);
    let silence_ms = SILENCE.as_millis();
    let first = cloud_model_at("led", 3.0, &led.base_url())
        + &format!("idle_timeout_ms = {silence_ms}\nfirst_byte_timeout_ms = {silence_ms}\n")
        + &format!("answer_timeout_ms = {silence_ms}\n");
    let second = cloud_model("healthy", 3.0, &healthy).replace("\"small\"", "\"frontier\"");
    let app = TestApp::start(&(first + &second)).await;
    let mut body = ask("auto", PROMPT);
    body["stream"] = json!(model.streams);
    if model.streams {
        body["stream_options"] = json!({"include_usage": model.wants_usage});
    }
    let client = Client::start(&app, &body);
    let exchange = led.accept().await;
    System { app, exchange, _healthy: healthy, _led: led, client }
}

impl Opening {
    fn step(self) -> Step {
        match self {
            Self::Role => Step::role(),
            Self::EmptyText => Step::text(""),
            Self::Filter => Step::data(json!({"choices": [], "prompt_filter_results": [{}]})),
            Self::Comment => Step::Say(": still here\n\n".to_owned()),
            Self::EmptyData => Step::data(""),
        }
    }
}

/// The bytes of a whole answer.
fn whole(text: &str) -> String {
    let answer = json!({"id": "c", "object": "chat.completion", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    let answer = answer.to_string();
    let length = answer.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}"
    )
}

impl System {
    async fn play(&mut self, step: Move) {
        let exchange = &mut self.exchange;
        match step {
            Move::Status(status) => {
                let head = format!("HTTP/1.1 {status} No\r\nconnection: close\r\n\r\n");
                exchange.play(&Step::Say(head)).await;
                exchange.play(&Step::Close).await;
            }
            Move::Head => exchange.play(&Step::head()).await,
            Move::Opening(opening) => exchange.play(&opening.step()).await,
            Move::Word(word) => exchange.play(&Step::text(&word)).await,
            Move::LastWord(word) => {
                let last = Step::chunk(&json!({"content": word}), &json!("stop"));
                exchange.play(&last).await;
            }
            Move::Finish => exchange.play(&Step::finish()).await,
            Move::Usage(prompt, answer) => {
                let usage = json!({"prompt_tokens": prompt, "completion_tokens": answer,
                    "total_tokens": prompt + answer});
                let chunk = json!({"id": "c", "choices": [], "usage": usage});
                exchange.play(&Step::data(chunk)).await;
            }
            Move::Done => exchange.play(&Step::done()).await,
            Move::Error => exchange.play(&Step::error("overloaded", 503)).await,
            Move::Cut => exchange.play(&Step::Close).await,
            Move::Hang | Move::Rest => {}
            Move::Whole(text) => exchange.play(&Step::Say(whole(&text))).await,
            Move::HalfOfAWhole => {
                let whole = whole("never seen");
                exchange.play(&Step::Say(whole[..whole.len() - 20].to_owned())).await;
                exchange.play(&Step::Close).await;
            }
            Move::ClientLeaves => {
                self.client.receiving.abort_all();
                exchange.until_closed().await;
            }
        }
    }

    /// Text that was sent arrives at once.
    async fn check_text(&self, model: &Model) {
        if !model.streams || model.end.is_some() || model.text.is_empty() {
            return;
        }
        let arrives = eventually(|| async { (self.client.text() == model.text).then_some(()) });
        if timeout(TEXT_IN, arrives).await.is_err() {
            assert_eq!(self.client.text(), model.text, "text was held back");
        }
    }

    async fn check_end(mut self, model: &Model) {
        if model.end == Some(End::ClientLeft) {
            let records = self.app.until_logged(1).await;
            assert_eq!(records[0].outcome, Outcome::Cancelled);
            assert_eq!((records.len(), records[0].receipt.attempts.len()), (1, 1));
            return;
        }
        let ended = timeout(END_IN, self.client.receiving.join_next()).await;
        let status = ended.expect("the exchange ends in time").unwrap().unwrap();
        let answered = model.end == Some(End::Answered) || model.falls_back();
        assert_eq!(status == 200, answered || model.streams, "{}", self.client.body());
        let text =
            if model.falls_back() { MockUpstream::reply_to(PROMPT) } else { model.text.clone() };
        assert_eq!(self.client.body().matches("\"wattgate\":").count(), 1, "one receipt");
        if model.streams {
            self.check_stream(model, answered, &text);
        } else if answered {
            let answer: Value = serde_json::from_str(&self.client.body()).unwrap();
            assert_eq!(answer["choices"][0]["message"]["content"], text);
        }
        let records = self.app.until_logged(1).await;
        assert_eq!(records.len(), 1, "one bill");
        check_record(&records[0], model, answered);
    }

    fn check_stream(&self, model: &Model, answered: bool, text: &str) {
        let (body, chunks) = (self.client.body(), self.client.chunks());
        assert_eq!(self.client.text(), text);
        assert_eq!(body.matches("data: [DONE]").count(), usize::from(answered), "{body}");
        let errors = chunks.iter().filter(|chunk| chunk["error"].is_object()).count();
        assert_eq!(errors, usize::from(!answered), "{body}");
        let finished = |chunk: &&Value| chunk["choices"][0]["finish_reason"].is_string();
        if answered {
            assert_eq!(chunks.iter().filter(finished).count(), 1, "{body}");
        }
        let counted = chunks.iter().filter(|chunk| chunk["usage"].is_object()).count();
        let is_counted = model.usage.is_some() || model.falls_back();
        if answered {
            assert_eq!(counted, usize::from(model.wants_usage && is_counted), "{body}");
        }
    }
}

fn check_record(record: &Record, model: &Model, answered: bool) {
    let outcomes: Vec<AttemptOutcome> =
        record.receipt.attempts.iter().map(|attempt| attempt.outcome).collect();
    let expected = match (answered, model.falls_back()) {
        (true, true) => vec![AttemptOutcome::Failed, AttemptOutcome::Answered],
        (true, false) => vec![AttemptOutcome::Answered],
        (false, _) => vec![AttemptOutcome::Failed],
    };
    assert_eq!(outcomes, expected);
    let outcome = if answered { Outcome::Answered } else { Outcome::Failed };
    assert_eq!(record.outcome, outcome);
    if !model.falls_back() {
        let counts = record.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens));
        let sent = model.usage.map(|(prompt, answer)| (prompt.into(), answer.into()));
        assert_eq!(counts, sent, "the bill is by the upstream's count");
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = System;
    type Reference = Self;

    fn init_test(model: &Model) -> System {
        RUNTIME.block_on(begin(model))
    }

    fn apply(mut system: System, model: &Model, step: Move) -> System {
        RUNTIME.block_on(async {
            system.play(step).await;
            system.check_text(model).await;
        });
        system
    }

    fn teardown(mut system: System, mut model: Model) {
        RUNTIME.block_on(async {
            if model.end.is_none() {
                model = <Self as ReferenceStateMachine>::apply(model, &Move::Cut);
                system.play(Move::Cut).await;
            }
            system.check_end(&model).await;
        });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("WATTGATE_EXCHANGES").map_or(48, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    #[ignore = "slow"]
    fn an_exchange_ends_with_one_answer_and_one_bill(sequential 1..14 => Machine);
}
