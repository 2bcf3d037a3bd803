//! Logged request as an estimator sees it: two probabilities, an outcome and two predictions. Pure.

/// One request with a known outcome, for one quantity and one policy to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Probability with which the logged rule chose the model it chose, above 0 to 1.
    pub logged_propensity: f64,
    /// Probability with which the evaluated policy chooses that model, 0 to 1.
    pub target_propensity: f64,
    /// Probability mass, 0 to 1, that the evaluated policy puts on models which the logged rule
    /// could not have chosen.
    pub unsupported: f64,
    /// Distance of the two policies on this request, 0 (the same) to 1: the probability mass that
    /// the evaluated one puts elsewhere (total variation).
    pub disagreement: f64,
    /// What happened: a label from 0 to 1, joules or dollars.
    pub outcome: f64,
    /// The quantity as predicted at the time; `None` where a model of either policy had no
    /// prediction.
    pub predicted: Option<Predicted>,
}

/// Predictions of the quantity at the time of the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// For the model that was chosen.
    pub logged: f64,
    /// Mean over the models that the evaluated policy chooses, by their probabilities.
    pub target: f64,
}

impl Sample {
    /// Importance weight: how many requests of the evaluated policy this one stands for, 0 or more.
    pub fn weight(&self) -> f64 {
        self.target_propensity / self.logged_propensity
    }
}
