//! `wattgate models search`: the catalogue as a table.

use clap::Args;
use indicatif::HumanBytes;

use crate::cli::console::{note, say};
use crate::cli::table::{align_right, wrapped};
use crate::models::{Confidence, Entry, catalogue};

/// Search the catalogue of models that can be pulled by name
#[derive(Args, Debug)]
pub(super) struct SearchArgs {
    /// Only models whose name, kind, licence or note contains each word
    #[arg(value_name = "WORDS")]
    words: Vec<String>,
    /// Only files up to this size, as in 4GiB or 500MB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Write the models as JSON to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SearchArgs) -> anyhow::Result<u8> {
    let small_enough = |entry: &&Entry| args.max_size.is_none_or(|max| entry.size_bytes <= max);
    let entries = catalogue().iter().filter(small_enough);
    let found: Vec<&Entry> = entries.filter(|entry| entry.matches(&args.words)).collect();
    if args.json {
        say(&serde_json::to_string_pretty(&found)?);
    } else if found.is_empty() {
        note("no model of the catalogue matches; run the command without words to list all");
    } else {
        say(&format!("{}\n{LEGEND}", table(&found)));
    }
    Ok(0)
}

const LEGEND: &str = "ability: a prior on the router's logit scale, 0 is the average model of its data; ~ marks a guess\n\
    ? after a name: the exact file name is not certain\n\
    fetch one with `wattgate models pull NAME`; let `wattgate init` choose one for this machine";

fn table(found: &[&Entry]) -> String {
    let header = ["name", "kind", "parameters", "size", "context", "ability", "licence", "note"];
    let mut table = wrapped(header);
    for entry in found {
        let mark = if entry.confidence == Confidence::Likely { " ?" } else { "" };
        let guess = if entry.mmlu_pro.is_none() { "~" } else { "" };
        table.add_row([
            format!("{}{mark}", entry.name),
            entry.kind.label().to_owned(),
            parameters(entry),
            HumanBytes(entry.size_bytes).to_string(),
            entry.context_tokens.to_string(),
            entry.ability.map_or(String::new(), |ability| format!("{guess}{ability:.1}")),
            entry.licence.clone(),
            entry.note.clone(),
        ]);
    }
    align_right(&mut table, &[2, 3, 4, 5]);
    table.trim_fmt()
}

fn parameters(entry: &Entry) -> String {
    let count = |billions: f64| {
        if billions < 1.0 { format!("{:.0} M", billions * 1e3) } else { format!("{billions:.1} B") }
    };
    let active = entry.active_parameters_b.map_or(String::new(), |b| format!(" ({})", count(b)));
    count(entry.parameters_b) + &active
}

/// Parses a size: a number with a decimal (`MB`) or binary (`MiB`) unit, or without one.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size as in 4GiB, 500MB or 1073741824".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024_f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000.0),
    };
    let power = match (prefix, unit.is_empty() || unit.ends_with('b')) {
        ("", true) if unit != "ib" => 0,
        ("k", true) => 1,
        ("m", true) => 2,
        ("g", true) => 3,
        ("t", true) => 4,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse::<f64>().map_err(|_| wrong())? * base.powi(power);
    if !(0.0..1e18).contains(&bytes) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e18")]
    let bytes = bytes as u64;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("4 gib", 4 << 30),
            ("1.5GB", 1_500_000_000),
            ("500MB", 500_000_000),
            ("0", 0),
            ("12B", 12),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "4G", "4 apples", "-1GB", "nan", "inf", "1e99", "4XiB", "4iB", "é"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_model_has_its_row() {
        let shown = table(&catalogue().iter().collect::<Vec<_>>());
        assert!(catalogue().iter().all(|entry| shown.contains(&entry.name)));
        assert!(shown.contains("30.5 B (3.3 B)") && shown.contains("135 M"), "{shown}");
    }
}
