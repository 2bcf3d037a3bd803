//! Limit on the prompt rows of a step while answers are being generated. Pure; learns from step
//! times.
//!
//! The cost of a row depends on the machine: nearly nothing on a GPU, milliseconds on two cores. So
//! the limit is a ratio of times, and the number of rows follows from measured steps.

/// Weight of the newest measurement in the running averages.
const NEWEST: f64 = 0.3;

/// Minimum prompt rows of a step, and the limit before any measurement: a prompt must make
/// progress.
pub(crate) const ROWS_MIN: usize = 4;

/// Prompt-row limit from the times of previous steps.
#[derive(Debug)]
pub(crate) struct PrefillBudget {
    /// Allowed duration of a step with prompt rows, relative to one without.
    stretch: f64,
    /// Mean duration of decode-only steps in nanoseconds, by number of rows; 0 if not measured.
    decode_ns: Vec<f64>,
    /// Mean nanoseconds per prompt row; 0 if not measured.
    row_ns: f64,
}

impl PrefillBudget {
    /// `stretch` below 1 counts as 1. `slots` is the most rows that decode at once.
    pub(crate) fn new(stretch: f64, slots: usize) -> Self {
        Self { stretch: stretch.max(1.0), decode_ns: vec![0.0; slots + 1], row_ns: 0.0 }
    }

    /// Maximum prompt rows in a step with `decode_rows`; unlimited without any.
    pub(crate) fn prompt_rows(&self, decode_rows: usize) -> usize {
        if decode_rows == 0 {
            return usize::MAX;
        }
        match self.decode_cost(decode_rows) {
            Some(decode_ns) if self.row_ns > 0.0 => {
                let rows = decode_ns * (self.stretch - 1.0) / self.row_ns;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and a cast from float saturates"
                )]
                let rows = rows as usize;
                rows.max(ROWS_MIN)
            }
            _ => ROWS_MIN,
        }
    }

    /// Records a step of `decode_rows` and `prompt_rows` that took `elapsed_ns`.
    pub(crate) fn observe(&mut self, decode_rows: usize, prompt_rows: usize, elapsed_ns: f64) {
        if prompt_rows == 0 {
            if let Some(average) = self.decode_ns.get_mut(decode_rows) {
                update(average, elapsed_ns);
            }
        } else if decode_rows > 0 {
            let Some(decode_ns) = self.decode_cost(decode_rows) else { return };
            let added = (elapsed_ns - decode_ns).max(0.0) / prompt_rows as f64;
            update(&mut self.row_ns, added);
        } else if self.row_ns <= 0.0 {
            // Rows of large batches cost less than those of the small ones to limit; good enough as
            // a first estimate.
            self.row_ns = elapsed_ns / prompt_rows as f64;
        }
    }

    /// Expected duration of a step with this many decode rows: measured; or that of the nearest
    /// smaller number, which errs towards fewer prompt rows; or scaled from the nearest greater.
    fn decode_cost(&self, rows: usize) -> Option<f64> {
        let known = |index: &usize| self.decode_ns[*index] > 0.0;
        let rows = rows.min(self.decode_ns.len() - 1);
        if let Some(index) = (1..=rows).rev().find(known) {
            return Some(self.decode_ns[index]);
        }
        let greater = (rows + 1..self.decode_ns.len()).find(known)?;
        Some(self.decode_ns[greater] * rows as f64 / greater as f64)
    }
}

fn update(average: &mut f64, newest: f64) {
    *average = if *average > 0.0 { *average + NEWEST * (newest - *average) } else { newest };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps on a machine where a step costs `fixed` and each row `row` nanoseconds.
    fn run(prefill_budget: &mut PrefillBudget, decode_rows: usize, fixed: f64, row: f64) -> f64 {
        let prompt_rows = prefill_budget.prompt_rows(decode_rows).min(512);
        let elapsed = fixed + row * (decode_rows + prompt_rows) as f64;
        prefill_budget.observe(decode_rows, prompt_rows, elapsed);
        elapsed
    }

    #[test]
    fn without_answers_nothing_is_held_back() {
        assert_eq!(PrefillBudget::new(2.5, 8).prompt_rows(0), usize::MAX);
    }

    #[test]
    fn a_stretched_step_stays_within_its_ratio_on_slow_and_fast_machines() {
        for (fixed, row) in [(7e6, 5e6), (3e6, 1e6), (5e6, 2e4)] {
            for decode_rows in [1, 4, 8] {
                let mut prefill_budget = PrefillBudget::new(3.0, 8);
                prefill_budget.observe(0, 100, fixed + 100.0 * row);
                let plain = fixed + row * decode_rows as f64;
                prefill_budget.observe(decode_rows, 0, plain);
                for _ in 0..30 {
                    run(&mut prefill_budget, decode_rows, fixed, row);
                }
                let stretched = run(&mut prefill_budget, decode_rows, fixed, row);
                assert!(stretched <= 3.0 * plain + ROWS_MIN as f64 * row, "{stretched} {plain}");
                // The deviation below is bounded by the batch limit and by rounding to rows.
                let rows = prefill_budget.prompt_rows(decode_rows);
                assert!(rows > 500 || stretched > 2.0 * plain, "{rows} {stretched} {plain}");
            }
        }
    }

    #[test]
    fn an_unknown_number_of_answers_is_guessed_with_care() {
        let mut prefill_budget = PrefillBudget::new(3.0, 8);
        assert_eq!(prefill_budget.prompt_rows(2), ROWS_MIN);
        prefill_budget.observe(0, 100, 100e6);
        prefill_budget.observe(4, 0, 20e6);
        assert_eq!((prefill_budget.prompt_rows(8), prefill_budget.prompt_rows(2)), (40, 20));
    }
}
