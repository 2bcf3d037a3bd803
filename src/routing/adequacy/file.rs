//! Router files: magic, version, SHA-256, then the model in postcard form. Every part is verified
//! on loading.
//!
//! Layout of `model.bin`: 8 bytes magic, 4 bytes version (little-endian), 32 bytes SHA-256 of the
//! rest, payload.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::model::{AdequacyModel, Head};
use crate::files;
use crate::routing::text::{BUCKETS, FeatureSchema, STRUCTURE};

/// Name of the weights within a router's folder.
pub const MODEL_FILE: &str = "model.bin";

const MAGIC: &[u8; 8] = b"WGROUTER";
/// Raised when the layout or the meaning of the payload changes.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 44;
/// Upper limit of the file size; a router is far smaller.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The router that `wattgate train` made from the project's data; see its `card.md`.
static BUILT_IN: &[u8] = include_bytes!("../../../router-models/default/model.bin");

impl AdequacyModel {
    /// The router compiled into the binary.
    pub fn built_in() -> Result<Self, AdequacyError> {
        decode(BUILT_IN)
    }

    /// Reads and verifies `dir/model.bin`.
    pub fn load(dir: &Path) -> Result<Self, AdequacyError> {
        let path = dir.join(MODEL_FILE);
        let io = |source| AdequacyError::Io { path: path.clone(), source };
        if fs::metadata(&path).map_err(io)?.len() > FILE_BYTES_MAX {
            return Err(AdequacyError::File { path, source: Box::new(AdequacyError::NotARouter) });
        }
        let bytes = fs::read(&path).map_err(io)?;
        decode(&bytes).map_err(|source| AdequacyError::File { path, source: Box::new(source) })
    }

    /// Writes `dir/model.bin`, creating `dir`.
    pub fn save(&self, dir: &Path) -> Result<(), AdequacyError> {
        let path = dir.join(MODEL_FILE);
        let io = |source| AdequacyError::Io { path: path.clone(), source };
        let bytes = encode(self)?;
        fs::create_dir_all(dir).map_err(io)?;
        files::replace(&path, bytes).map_err(io)
    }
}

/// Why a router cannot be used.
#[derive(Debug, Error)]
pub enum AdequacyError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: Box<AdequacyError> },
    #[error("not a router file: use one made by `wattgate train`")]
    NotARouter,
    #[error(
        "the router has format version {found}, this binary reads version {VERSION}: train it again"
    )]
    Version { found: u32 },
    #[error("the router file is corrupt: its SHA-256 does not match its contents")]
    Checksum,
    #[error("the router file cannot be decoded: {0}")]
    Decode(#[from] postcard::Error),
    #[error(
        "the router was trained on text features {found:?}, this binary computes others: train it again"
    )]
    Schema { found: Box<FeatureSchema> },
    #[error("the router file holds too few weights, or one that is not finite")]
    Weights,
}

fn encode(model: &AdequacyModel) -> Result<Vec<u8>, AdequacyError> {
    let payload = postcard::to_stdvec(model)?;
    Ok([&MAGIC[..], &VERSION.to_le_bytes(), &Sha256::digest(&payload), &payload].concat())
}

fn decode(bytes: &[u8]) -> Result<AdequacyModel, AdequacyError> {
    let (header, payload) =
        bytes.split_at_checked(HEADER_BYTES).ok_or(AdequacyError::NotARouter)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (version, checksum) = rest.split_at(4);
    if magic != MAGIC {
        return Err(AdequacyError::NotARouter);
    }
    let found = version.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
    if found != VERSION {
        return Err(AdequacyError::Version { found });
    }
    if Sha256::digest(payload)[..] != *checksum {
        return Err(AdequacyError::Checksum);
    }
    verified(postcard::from_bytes(payload)?)
}

/// The checksum proves that the file is complete; this proves that it can be used.
fn verified(model: AdequacyModel) -> Result<AdequacyModel, AdequacyError> {
    if model.schema != FeatureSchema::current() {
        return Err(AdequacyError::Schema { found: Box::new(model.schema) });
    }
    let sound = model.slope.is_finite()
        && model.slope > 0.0
        && model.abilities.values().all(|ability| ability.is_finite())
        && heads(&model).all(is_sound);
    if sound { Ok(model) } else { Err(AdequacyError::Weights) }
}

fn heads(model: &AdequacyModel) -> impl Iterator<Item = &Head> {
    let labelled = model.labelled.iter();
    let own = labelled.flat_map(|own| own.heads.values().chain(std::iter::once(&own.familiarity)));
    std::iter::once(&model.easiness).chain(own)
}

fn is_sound(head: &Head) -> bool {
    let finite = |weights: &[f32]| weights.iter().all(|weight| weight.is_finite());
    head.ngrams.len() == BUCKETS
        && head.structure.len() == STRUCTURE
        && head.intercept.is_finite()
        && finite(&head.ngrams)
        && finite(&head.structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> AdequacyModel {
        let easiness =
            Head { intercept: 0.5, structure: vec![0.1; STRUCTURE], ngrams: vec![0.25; BUCKETS] };
        AdequacyModel {
            schema: FeatureSchema::current(),
            slope: 0.9,
            easiness,
            abilities: [("llama-2-7b".to_owned(), -2.0)].into(),
            labelled: vec![],
        }
    }

    #[test]
    fn a_saved_router_loads_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        model().save(&target).unwrap();
        assert_eq!(AdequacyModel::load(&target).unwrap(), model());
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let bytes = encode(&model()).unwrap();
        for at in (0..bytes.len()).step_by(97).chain(0..HEADER_BYTES) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode(&flipped).is_err(), "byte {at}");
        }
        assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(AdequacyError::Checksum)));
        assert!(matches!(decode(b"short"), Err(AdequacyError::NotARouter)));
    }

    #[test]
    fn another_version_schema_or_a_nan_has_an_error_of_its_own() {
        let mut other = encode(&model()).unwrap();
        other[8] = 1;
        assert!(matches!(decode(&other), Err(AdequacyError::Version { found: 1 })));
        let mut schema = model();
        schema.schema.version += 1;
        assert!(matches!(decode(&encode(&schema).unwrap()), Err(AdequacyError::Schema { .. })));
        let mut nan = model();
        nan.easiness.ngrams[7] = f32::NAN;
        assert!(matches!(decode(&encode(&nan).unwrap()), Err(AdequacyError::Weights)));
    }

    #[test]
    fn the_error_names_a_missing_router() {
        let error = AdequacyModel::load(Path::new("/no/such/router")).unwrap_err().to_string();
        assert!(error.contains("/no/such/router/model.bin"), "{error}");
    }
}
