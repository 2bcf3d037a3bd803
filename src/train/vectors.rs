//! Vectors of the rows, made by another program: embeddings, or hidden states of a small model.
//!
//! For comparing designs only: a served router is computed from text alone. The first line of the
//! file describes its origin (`design`, `bytes` of its weights), each other line holds `id`,
//! `vector`, `latency_us` and, if metered, `joules`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::error::{BadLine, TrainError};
use super::metrics::quantile;
use super::outcomes::Data;
use crate::routing::text::fnv1a;

#[derive(Debug)]
pub(super) struct Vectors {
    pub(super) design: String,
    /// Size of the weights that compute the vectors, bytes.
    pub(super) bytes: u64,
    pub(super) width: usize,
    by_id: HashMap<u64, Vec<f32>>,
    /// Median for one text, microseconds.
    pub(super) latency_us: f64,
    /// Mean of the metered texts.
    pub(super) joules: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    design: String,
    bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    vector: Vec<f32>,
    latency_us: f64,
    joules: Option<f64>,
}

impl Vectors {
    pub(super) fn read(path: &Path) -> Result<Self, TrainError> {
        let io = |source| TrainError::Io { path: path.to_owned(), source };
        let bad = |line, problem| TrainError::Line { path: path.to_owned(), line, problem };
        let mut lines = BufReader::new(File::open(path).map_err(io)?).lines();
        let first = lines.next().transpose().map_err(io)?.unwrap_or_default();
        let header: Header = serde_json::from_str(&first).map_err(|error| bad(1, error.into()))?;
        let (mut by_id, mut latencies, mut joules) = (HashMap::new(), Vec::new(), Vec::new());
        let mut width = None;
        for (at, line) in (2..).zip(lines) {
            let line = line.map_err(|error| bad(at, BadLine::Read(error)))?;
            let line: Line = serde_json::from_str(&line).map_err(|error| bad(at, error.into()))?;
            let expected = *width.get_or_insert(line.vector.len());
            if line.vector.len() != expected || line.vector.iter().any(|x| !x.is_finite()) {
                return Err(bad(at, BadLine::Vector { expected }));
            }
            latencies.push(line.latency_us);
            joules.extend(line.joules);
            by_id.insert(fnv1a(line.id.as_bytes()), line.vector);
        }
        latencies.sort_by(f64::total_cmp);
        let mean = joules.iter().sum::<f64>() / joules.len() as f64;
        Ok(Self {
            design: header.design,
            bytes: header.bytes,
            width: width.unwrap_or(0),
            by_id,
            latency_us: quantile(&latencies, 0.5),
            joules: (!joules.is_empty()).then_some(mean),
        })
    }

    /// The vectors of these rows, each component standardised over the rows, of mean length 1.
    pub(super) fn of(&self, data: &Data, rows: &[usize]) -> Vec<Vec<f32>> {
        let zeros = vec![0.0; self.width];
        let raw: Vec<&Vec<f32>> = rows
            .iter()
            .map(|&row| self.by_id.get(&data.rows[row].id_hash).unwrap_or(&zeros))
            .collect();
        let count = rows.len().max(1) as f64;
        let scales: Vec<(f64, f64)> = (0..self.width)
            .map(|at| {
                let mean = raw.iter().map(|v| f64::from(v[at])).sum::<f64>() / count;
                let squares = raw.iter().map(|v| (f64::from(v[at]) - mean).powi(2)).sum::<f64>();
                (mean, (squares / count).sqrt().max(1e-9) * (self.width as f64).sqrt())
            })
            .collect();
        #[expect(clippy::cast_possible_truncation, reason = "features are f32")]
        let standard = |v: &&Vec<f32>| -> Vec<f32> {
            v.iter()
                .zip(&scales)
                .map(|(x, (mean, by))| ((f64::from(*x) - mean) / by) as f32)
                .collect()
        };
        raw.iter().map(standard).collect()
    }

    /// Number of these rows with a vector.
    pub(super) fn known(&self, data: &Data, rows: &[usize]) -> usize {
        rows.iter().filter(|&&row| self.by_id.contains_key(&data.rows[row].id_hash)).count()
    }
}
