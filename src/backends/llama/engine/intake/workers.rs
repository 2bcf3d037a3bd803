//! Threads that prepare requests: render, tokenise and compile in parallel with evaluation.

use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use super::lanes::{Job, Lane, Lanes, Overflow};
use crate::backends::llama::engine::command::EngineCommand;
use crate::backends::llama::engine::grammar::trials::Patience;
use crate::backends::llama::engine::prompt::builder::{PromptBuilder, RenderTime};
use crate::backends::llama::engine::prompt::unprepared::Unprepared;
use crate::backends::llama::wire::outcome::Outcome;
use crate::backends::llama::wire::protocol::{Embed, Submission};
use crate::units::AttemptId;

/// Threads of each lane. Two where a request may take seconds.
const THREADS: [(Lane, usize); 4] =
    [(Lane::Short, 1), (Lane::Long, 2), (Lane::Constrained, 2), (Lane::Hard, 2)];

/// Compiling recurses as deep as a schema and its references; unused stack is never mapped.
const STACK_BYTES: usize = 32 << 20;

/// CPU time in which nearly all conversations are rendered and nearly all schemas compile, and time
/// on the clock for all schemas of a request.
const USUAL: (Duration, Duration, Duration) =
    (Duration::from_millis(300), Duration::from_millis(200), Duration::from_secs(2));
/// Those in which they must.
const LONGEST: (Duration, Duration, Duration) =
    (Duration::from_secs(2), Duration::from_secs(2), Duration::from_secs(20));

/// The way of requests through preparation.
#[derive(Clone)]
pub(crate) struct Intake(Arc<Lanes>);

impl Intake {
    /// Starts the threads. `end` is called if one of them cannot go on.
    pub(crate) fn start(
        builder: &Arc<OnceLock<PromptBuilder>>,
        commands: SyncSender<EngineCommand>,
        most: usize,
        end: fn(&str),
    ) -> io::Result<Self> {
        let lanes = Arc::new(Lanes::new(commands, most));
        for (lane, threads) in THREADS {
            for _ in 0..threads {
                let (lanes, builder) = (Arc::clone(&lanes), Arc::clone(builder));
                let work = move || end(&work(lane, &lanes, &builder));
                let named = thread::Builder::new().name(format!("prepare-{lane:?}"));
                named.stack_size(STACK_BYTES).spawn(work)?;
            }
        }
        Ok(Self(lanes))
    }

    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Overflow> {
        self.push(Job::Submit(Box::new(submission)))
    }

    pub(crate) fn embed(&self, embed: Embed) -> Result<(), Overflow> {
        self.push(Job::Embed(embed))
    }

    pub(crate) fn cancel(&self, attempt: AttemptId) -> Result<(), Overflow> {
        self.0.cancel(attempt)
    }

    fn push(&self, job: Job) -> Result<(), Overflow> {
        self.0.push(Lane::of(&job), job)
    }
}

/// Prepares the requests of a lane. Returns the reason why the process must end.
fn work(lane: Lane, lanes: &Lanes, builder: &OnceLock<PromptBuilder>) -> String {
    loop {
        let (job, interrupt) = lanes.next(lane);
        // The reader refuses requests before the model is loaded.
        let Some(builder) = builder.get() else { return "no model".to_owned() };
        lanes.report();
        let attempt = job.attempt();
        let prepared = match job {
            Job::Embed(embed) => builder.embedding(embed, &interrupt),
            Job::Submit(mut submission) => {
                match prepare(lane, lanes, builder, &mut submission, &interrupt) {
                    // Usual requests do not wait for it.
                    Err(Unprepared::TooLong) if lane.slower() != lane => {
                        lanes.defer(lane.slower(), Job::Submit(submission));
                        continue;
                    }
                    prepared => prepared,
                }
            }
        };
        let command = match prepared {
            Ok(command) => command,
            Err(Unprepared::Refused(refusal)) => {
                EngineCommand::Close(attempt, Outcome::Refused(refusal))
            }
            Err(Unprepared::Stopped(stopped)) => EngineCommand::Close(attempt, stopped.into()),
            Err(Unprepared::TooLong) => EngineCommand::Close(attempt, Outcome::Expired),
            Err(Unprepared::Fault(reason)) => return reason,
        };
        if let Err(overflow) = lanes.done(attempt, command) {
            return overflow.to_string();
        }
    }
}

fn prepare(
    lane: Lane,
    lanes: &Lanes,
    builder: &PromptBuilder,
    submission: &mut Submission,
    interrupt: &Interrupt,
) -> Result<EngineCommand, Unprepared> {
    let is_final = lane.slower() == lane;
    let (rendering, each, all) = if is_final { LONGEST } else { USUAL };
    let patience = Patience { each, until: Instant::now() + all, is_final };
    builder.try_out(submission, patience, interrupt)?;
    lanes.report();
    let time = RenderTime { cpu: rendering, is_final };
    builder.command(submission, time, interrupt)
}
