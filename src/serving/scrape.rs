//! Gauges and mirrored counters, refreshed at each scrape so that requests do not pay for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateway::Gateway;
use super::models::deployment::Kind;
use super::models::model::Model;
use super::snapshot::Snapshot;
use crate::energy::DeviceSnapshot;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{
    BuildLabels, DeviceLabels, DeviceNameLabels, GridLabels, IdleLabels, LogLabels,
    ModelNameLabels, RouterLabels, mirror, mirror_count,
};
use crate::units::Microjoules;

impl Gateway {
    pub fn refresh_gauges(&self) {
        let metrics = &self.metrics;
        let version = BuildLabels { version: env!("CARGO_PKG_VERSION") };
        metrics.build_info.get_or_create(&version).set(1);
        let snapshot = self.router.snapshot();
        for model in snapshot.models.values() {
            refresh_model(metrics, model);
        }
        let remembered = self.router.conversations.remembered();
        metrics.conversations_remembered.set(i64::try_from(remembered).unwrap_or(i64::MAX));
        self.refresh_drift(&snapshot);
        let books = self.router.meter.snapshot();
        let mut loads: BTreeMap<&Arc<str>, Microjoules> = BTreeMap::new();
        for device in &books.devices {
            refresh_device(metrics, device);
            for (model, &energy) in &device.loads {
                *loads.entry(model).or_default() += energy;
            }
        }
        for (model, energy) in loads {
            let labels = ModelNameLabels { model: Arc::clone(model) };
            mirror(
                &metrics.model_load_energy_joules_total.get_or_create(&labels),
                energy.joules().0,
            );
        }
        // The grid's figure has one basis at a time.
        metrics.grid_carbon_grams_per_kilowatt_hour.clear();
        if let Some(grid) = self.router.meter.rates().here() {
            let labels = GridLabels { zone: grid.zone, basis: grid.basis.label() };
            let gauge = metrics.grid_carbon_grams_per_kilowatt_hour.get_or_create(&labels);
            gauge.set(grid.grams_per_kwh.0);
        }
        let unsettled = i64::try_from(self.receipts.unsettled()).unwrap_or(i64::MAX);
        metrics.unsettled_requests.set(unsettled);
        let longest_gap = books.devices.iter().map(|device| device.gap).max().unwrap_or_default();
        mirror(&metrics.energy_meter_gap_seconds_total, longest_gap.as_secs_f64());
        mirror(&metrics.energy_meter_cpu_seconds_total, books.meter_cpu.as_secs_f64());
        let sink = &self.receipts.sink;
        mirror_count(&metrics.traffic_log_errors_total, sink.errors());
        for (outcome, count) in [("written", sink.written()), ("dropped", sink.dropped())] {
            mirror_count(
                &metrics.traffic_records_total.get_or_create(&LogLabels { outcome }),
                count,
            );
        }
    }
}

impl Gateway {
    fn refresh_drift(&self, snapshot: &Snapshot) {
        let roles = [("router", Some(&snapshot.router)), ("candidate", snapshot.shadow.as_ref())];
        for (role, router) in roles {
            let labels = RouterLabels { role };
            let psi = router.and_then(|router| router.drift.as_ref()?.psi());
            match psi {
                Some(psi) => {
                    self.metrics.router_drift_psi.get_or_create(&labels).set(psi);
                }
                // Too few requests to tell: no sample.
                None => {
                    self.metrics.router_drift_psi.remove(&labels);
                }
            }
        }
    }
}

fn refresh_model(metrics: &Metrics, model: &Model) {
    let labels = model.labels();
    let health = model.health();
    metrics.requests_in_flight.get_or_create(&labels).set(health.in_flight.into());
    let ready = i64::from(model.is_ready());
    metrics.model_ready.get_or_create(&labels).set(ready);
    if let Kind::Local { engine, control } = &model.primary.kind {
        let restarts = u64::from(engine.borrow().restarts);
        let labels = ModelNameLabels { model: Arc::clone(&model.name) };
        mirror_count(&metrics.engine_restarts_total.get_or_create(&labels), restarts);
        let resident = control.resident_bytes().unwrap_or(0);
        let gauge = metrics.model_resident_bytes.get_or_create(&labels);
        gauge.set(i64::try_from(resident).unwrap_or(i64::MAX));
        metrics.engine_queue_depth.get_or_create(&labels).set(health.waiting().into());
    }
}

fn refresh_device(metrics: &Metrics, device: &DeviceSnapshot) {
    let name = Arc::clone(&device.info.name);
    let (source, quality) = (device.info.source.label(), device.info.quality.label());
    let labels = DeviceLabels { device: Arc::clone(&name), source, quality };
    let joules = |amount: Microjoules| amount.joules().0;
    mirror(
        &metrics.device_energy_joules_total.get_or_create(&labels),
        joules(device.account.total),
    );
    if let Some(watts) = device.watts {
        metrics.device_power_watts.get_or_create(&labels).set(watts.0);
    } else {
        // No recent reading: no sample rather than an old one, or a zero.
        metrics.device_power_watts.remove(&labels);
    }
    let idle = [("true", device.account.idle_occupied), ("false", device.account.idle_empty)];
    for (occupied, amount) in idle {
        let labels = IdleLabels { device: Arc::clone(&name), occupied };
        mirror(&metrics.idle_energy_joules_total.get_or_create(&labels), joules(amount));
    }
    let labels = DeviceNameLabels { device: name };
    let unattributed = joules(device.account.unattributed);
    mirror(&metrics.unattributed_energy_joules_total.get_or_create(&labels), unattributed);
    let account = device.account;
    for (counter, amount) in [
        // What attempts have is final once they have settled: a counter must not fall.
        (
            &metrics.attributed_energy_joules_total,
            account.attributed.saturating_sub(device.unsettled),
        ),
        (&metrics.load_energy_joules_total, account.load),
        (&metrics.unknown_energy_joules_total, account.unknown),
    ] {
        mirror(&counter.get_or_create(&labels), joules(amount));
    }
    metrics.unsettled_energy_joules.get_or_create(&labels).set(joules(device.unsettled));
    if let Some(idle) = device.idle {
        metrics.device_idle_watts.get_or_create(&labels).set(idle.0);
    }
    let error = joules(device.conservation_error);
    metrics.energy_conservation_error_joules.get_or_create(&labels).set(error);
    mirror_count(&metrics.energy_meter_resets_total.get_or_create(&labels), device.resets);
    let glitches = metrics.energy_meter_glitches_total.get_or_create(&labels);
    mirror_count(&glitches, device.glitches);
    let errors = metrics.energy_meter_read_errors_total.get_or_create(&labels);
    mirror_count(&errors, device.read_errors);
}
