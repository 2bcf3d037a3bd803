//! The real wrapper and dynamic loader, with a library built from `stub.c`.

use std::fs;
use std::process::Command;

use super::*;

/// A stub driver whose cards are lines of a file.
struct Driver {
    dir: tempfile::TempDir,
}

impl Driver {
    fn with(cards: &str) -> Self {
        let driver = Self { dir: tempfile::tempdir().unwrap() };
        driver.set(cards);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/energy/sensors/library/nvml/stub.c");
        let built = Command::new("gcc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(driver.library())
            .arg(format!("-DCARDS=\"{}\"", driver.cards().display()))
            .arg(source)
            .status()
            .unwrap();
        assert!(built.success());
        driver
    }

    fn cards(&self) -> PathBuf {
        self.dir.path().join("cards")
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    /// Each line: energy in mJ or -1, power in mW or -1, MIG mode or -1, result of every call.
    fn set(&self, cards: &str) {
        // Replaced atomically: a half-written line would be a lost card.
        let next = self.dir.path().join("next");
        fs::write(&next, cards).unwrap();
        fs::rename(next, self.cards()).unwrap();
    }

    fn find(&self) -> Vec<Discovered> {
        let idle_watts = Some(Watts(20.0));
        find(&Config { library: self.library(), idle_watts, ..Config::default() })
    }

    fn only(&self) -> Box<dyn Sensor> {
        self.find().remove(0).sensor.unwrap()
    }
}

#[test]
fn cards_with_a_counter_without_one_and_with_mig_are_distinguished() {
    let driver = Driver::with("5000 70000 0 0\n-1 60000 -1 0\n7000 1 1 0\n-1 -1 -1 0\n");
    let found = driver.find();
    let shown: Vec<(&str, &str, Quality)> =
        found.iter().map(|c| (&*c.info.name, c.at.as_str(), c.info.quality)).collect();
    assert_eq!(
        shown,
        [
            ("nvidia-0", "card 0, Stub 0", Quality::Measured),
            ("nvidia-1", "card 1, Stub 1", Quality::Estimated),
            ("nvidia-2", "card 2, Stub 2", Quality::Measured),
            ("nvidia-3", "card 3, Stub 3", Quality::Estimated),
        ]
    );
    assert_eq!(found[0].info.idle, Some(Watts(20.0)));
    assert!(found[0].sensor.is_ok() && found[1].sensor.is_ok());
    assert!(matches!(found[2].sensor, Err(SkipReason::Mig)));
    let Err(SkipReason::Driver(why)) = &found[3].sensor else { panic!("{:?}", found[3]) };
    assert!(why.contains("not available on the target device"), "{why}");
}

#[test]
fn the_counter_counts_millijoules_and_a_driver_reload_is_a_reset() {
    let driver = Driver::with("5000 0 0 0\n");
    let mut sensor = driver.only();
    driver.set("5250 0 0 0\n");
    let sample = sensor.read().unwrap();
    assert_eq!((sample.total.0, sample.whole, sensor.resets()), (250_000, true, 0));
    driver.set("30 0 0 0\n");
    let sample = sensor.read().unwrap();
    assert_eq!((sample.total.0, sample.whole, sensor.resets()), (250_000, false, 1));
}

#[test]
fn a_lost_card_is_an_error_and_counts_again_when_it_is_back() {
    let driver = Driver::with("5000 0 0 0\n");
    let mut sensor = driver.only();
    driver.set("5000 0 0 15\n");
    let error = sensor.read().unwrap_err();
    assert_eq!(error.label(), "refused");
    assert!(error.to_string().starts_with("nvidia-0: NVIDIA driver error"), "{error}");
    driver.set("5100 0 0 0\n");
    assert_eq!(sensor.read().unwrap().total.0, 100_000);
}

#[test]
fn the_power_of_a_card_without_a_counter_is_integrated() {
    let driver = Driver::with("-1 60000 -1 0\n");
    let mut sensor = driver.only();
    let first = sensor.read().unwrap();
    let later = loop {
        let sample = sensor.read().unwrap();
        if sample.at - first.at > 20_000_000 {
            break sample;
        }
    };
    let watts = (later.total.0 - first.total.0) as f64 / ((later.at - first.at) as f64 / 1e3);
    assert!((59.9..60.1).contains(&watts), "{watts}");
}

/// Other meters report 0 W, or take the card for one that is off.
#[test]
fn a_card_that_reads_0_w_is_an_error() {
    let driver = Driver::with("-1 60000 -1 0\n");
    let mut sensor = driver.only();
    driver.set("-1 0 -1 0\n");
    assert_eq!(sensor.read().unwrap_err().label(), "no_power");
    assert!(matches!(driver.find().remove(0).sensor, Err(SkipReason::Unreadable(_))));
}

#[test]
fn mig_enabled_later_makes_the_card_unknown() {
    let driver = Driver::with("5000 70000 0 0\n");
    let mut sensor = driver.only();
    driver.set("-1 -1 1 0\n");
    assert_eq!(sensor.read().unwrap_err().label(), "refused");
}

#[test]
fn a_missing_driver_and_a_failing_one_are_reported() {
    let config = Config { library: "/nonexistent/libnvidia-ml.so.1".into(), ..Config::default() };
    let Err(SkipReason::NoDriver(why)) = find(&config).remove(0).sensor else { panic!() };
    assert!(why.contains("no NVIDIA driver") && why.contains("--gpus all"), "{why}");
    let driver = Driver::with("");
    let Err(SkipReason::NoDriver(why)) = driver.find().remove(0).sensor else { panic!() };
    assert_eq!(why, "the driver lists no card");
    fs::remove_file(driver.cards()).unwrap();
    let Err(SkipReason::NoDriver(why)) = driver.find().remove(0).sensor else { panic!() };
    assert!(why.contains("driver is not loaded"), "{why}");
}
