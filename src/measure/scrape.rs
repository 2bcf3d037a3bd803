//! Single figures from the text of `/metrics`. Pure.

/// Returns the sum of the samples of `name` (with its `_total`, without labels) whose labels pass;
/// `None` without samples.
pub fn sum(metrics: &str, name: &str, wanted: impl Fn(&str) -> bool) -> Option<f64> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        wanted(labels).then(|| value.trim().parse::<f64>().ok()).flatten()
    });
    samples.fold(None, |sum, sample| Some(sum.unwrap_or(0.0) + sample))
}

/// Whether `labels` contain this one.
pub fn has(labels: &str, label: &str, value: &str) -> bool {
    let wanted = format!("{label}=\"{value}\"");
    labels.split(',').any(|each| each == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let metrics = "# TYPE a counter\na_total{device=\"x\",source=\"s\"} 1.5\na_total{device=\"y\",source=\"s\"} 2\nab_total 9\nplain 4\n";
        assert_eq!(sum(metrics, "a_total", |_| true), Some(3.5));
        assert_eq!(sum(metrics, "a_total", |labels| has(labels, "device", "y")), Some(2.0));
        assert_eq!(sum(metrics, "a_total", |labels| has(labels, "device", "z")), None);
        assert_eq!(
            (sum(metrics, "plain", |_| true), sum(metrics, "a", |_| true)),
            (Some(4.0), None)
        );
    }
}
