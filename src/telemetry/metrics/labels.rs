//! Label sets of the metrics. Names come from the config, all other values from enums.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! label_sets {
    ($($name:ident { $($label:ident: $type:ty),+ })+) => {$(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub struct $name {
            $(pub $label: $type,)+
        }
    )+};
}

label_sets! {
    RequestLabels { model: Arc<str>, route: &'static str, outcome: &'static str }
    HttpLabels { path: String, status: u16 }
    DecisionLabels {
        policy: Arc<str>,
        route: &'static str,
        reason: &'static str,
        task: &'static str
    }
    TurnLabels { policy: Arc<str>, turn: &'static str }
    AttemptLabels { model: Arc<str>, route: &'static str, outcome: &'static str }
    ModelLabels { model: Arc<str>, route: &'static str }
    OutcomeLabels {
        model: Arc<str>,
        policy: Arc<str>,
        route: &'static str,
        source: &'static str,
        quality: &'static str
    }
    SignLabels { model: Arc<str>, policy: Arc<str>, route: &'static str, signal: &'static str }
    CalibrationLabels { model: Arc<str>, source: &'static str, decile: &'static str }
    JudgementLabels { model: Arc<str>, outcome: &'static str }
    ShadowLabels { policy: Arc<str>, agrees: &'static str }
    RouterLabels { role: &'static str }
    ModelNameLabels { model: Arc<str> }
    UnloadLabels { model: Arc<str>, reason: &'static str }
    CacheLabels { model: Arc<str>, from: &'static str }
    TokenLabels { model: Arc<str>, route: &'static str, kind: &'static str }
    EnergyLabels {
        model: Arc<str>,
        route: &'static str,
        quality: &'static str,
        source: &'static str,
        purpose: &'static str
    }
    CarbonLabels { model: Arc<str>, route: &'static str, quality: &'static str }
    GridLabels { zone: Arc<str>, basis: &'static str }
    DeviceLabels { device: Arc<str>, source: &'static str, quality: &'static str }
    DeviceNameLabels { device: Arc<str> }
    IdleLabels { device: Arc<str>, occupied: &'static str }
    LogLabels { outcome: &'static str }
    BuildLabels { version: &'static str }
}
