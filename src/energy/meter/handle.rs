//! The handle through which engines and requests report to the meter and read it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::{AttemptObserver, OpenAttempt};
use super::state::MeterState;
use crate::energy::attribution::MeterSnapshot;
use crate::energy::figure::EnergyFigure;
use crate::energy::grid::rates::Rates;
use crate::energy::prediction::estimate::ExpectedTime;
use crate::energy::work::{Tokens, WorkSpan};
use crate::units::{AttemptId, MonotonicNs};

/// Reports to the meter and reads it. Cheap to clone. Every call holds a lock for microseconds and
/// waits neither for the network nor for a model; only starting and stopping an engine read a
/// (virtual) file.
#[derive(Clone, Debug)]
pub struct MeterHandle {
    state: Arc<MeterState>,
}

impl MeterHandle {
    pub(super) fn new(state: Arc<MeterState>) -> Self {
        Self { state }
    }

    /// Reports a new engine process. Must be called directly after the spawn: energy since then is
    /// booked.
    pub fn engine_started(&self, model: &Arc<str>, pid: u32) {
        self.state.add_engine(model, pid);
        self.state.attribution.lock().load_started(model, MonotonicNs::now());
    }

    /// Sets whether the model's engine uses the cards of this machine, for which the energy of one
    /// that it does not use is not its own. Before, all cards count.
    pub fn uses_cards(&self, model: &Arc<str>, uses: bool) {
        self.state.uses_cards(model, uses);
    }

    /// Reports that the engine has loaded its model: its energy so far was the load.
    pub fn engine_ready(&self, model: &Arc<str>) {
        self.state.engine_ready(model);
        self.state.attribution.lock().load_ended(model, true, MonotonicNs::now());
    }

    /// Reports the end of an engine process. Must be called before the child is reaped, while its
    /// CPU time can still be read; otherwise its energy since the last tick is unknown, and so is
    /// that of the attempts it worked on.
    pub fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        self.state.remove_engine(model, pid);
        self.state.attribution.lock().load_ended(model, false, MonotonicNs::now());
    }

    /// Whether a model that runs on another machine is metered from here, so that its attempts and
    /// work must be reported.
    pub fn meters_elsewhere(&self, model: &str) -> bool {
        self.state.attribution.lock().meters_elsewhere(model)
    }

    /// Opens an attempt at an engine on another machine. Must be called before the upstream
    /// receives it; the guard closes it.
    pub fn open(&self, model: &Arc<str>, attempt: AttemptId) -> OpenAttempt {
        OpenAttempt::new(Arc::new(self.clone()), Arc::clone(model), attempt)
    }

    /// Marginal energy of an attempt so far; unknown once it has settled.
    pub fn provisional(&self, attempt: AttemptId) -> EnergyFigure {
        self.state.attribution.lock().provisional(attempt)
    }

    /// Expected marginal energy of an answer by a local model, for routing.
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        self.state.attribution.lock().expected(model, tokens)
    }

    /// Expected time of an answer on an idle machine; `None` unless `wattgate measure` has measured
    /// the model.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        self.state.attribution.lock().expected_time(model, tokens)
    }

    /// Expected energy of loading a local model from a file of `bytes`.
    pub fn load_energy(&self, model: &str, bytes: u64) -> EnergyFigure {
        self.state.attribution.lock().load_energy(model, bytes)
    }

    /// Carbon intensity and price of energy, on this machine and elsewhere.
    pub fn rates(&self) -> &Rates {
        &self.state.rates
    }

    pub fn snapshot(&self) -> MeterSnapshot {
        let meter_cpu = Duration::from_nanos(self.state.busy_ns.load(Ordering::Relaxed));
        let snapshot = self.state.attribution.lock().snapshot(MonotonicNs::now());
        MeterSnapshot { meter_cpu, ..snapshot }
    }
}

impl AttemptObserver for MeterHandle {
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        self.state.attribution.lock().open(model, attempt, MonotonicNs::now());
    }

    fn work(&self, model: &Arc<str>, span: &WorkSpan) {
        self.state.attribution.lock().work(model, span.clone(), MonotonicNs::now());
    }

    /// A step reported after the attempt has settled is counted as dropped, and its energy goes to
    /// other attempts or stays unattributed.
    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        self.state.attribution.lock().close(model, attempt, MonotonicNs::now());
    }

    fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId) {
        self.state.attribution.lock().unserved(model, attempt, MonotonicNs::now());
    }
}
