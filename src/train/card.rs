//! Model card of a router: data, method, quality, scale and limits.
//!
//! Pure text from a [`Report`]; holds no date and no path, so the same training gives the same
//! card.

use std::fmt::Write;

use super::calibrate::Calibration;
use super::calibration_plot::CALIBRATION_PLOT_FILE;
use super::metrics::{Ranking, Reliability};
use super::pair_eval::{FewLabels, PairReport};
use super::report::Report;

/// Name of the card within a router's folder.
pub const CARD_FILE: &str = "card.md";

/// Origin and licence of the sources of the project's own data.
const LICENCES: [(&str, &str); 4] = [
    ("mmlu_pro", "TIGER-AI-Lab/MMLU-Pro evaluation results, Apache-2.0"),
    ("llmrouter", "ulab-uiuc/LLMRouter, MIT"),
    ("zeroeval", "WildEval/ZeroEval, Apache-2.0"),
    ("mmlu", "lm-sys/RouteLLM responses to MMLU questions, Apache-2.0"),
];

/// The card, in Markdown. `command` is the command line that trains the router again.
pub fn card(report: &Report, command: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail, so the results are ignored.
    let _ = write_intro(&mut text, command);
    let _ = write_data(&mut text, report);
    let _ = write_quality(&mut text, report);
    let _ = write_scale(&mut text, report);
    text.push_str(LIMITS);
    text
}

const INTRO: &str = "\
Predicts, from the text of a request alone, the probability that a model's answer is good enough:
`p = σ(easiness(text) + slope · ability)` for any model with an ability number. A model that the data labels directly
has a head of its own; log-odds move to it from the general ones as far as the text is familiar, that is like the head's source.
Features: hashed character 4- and 5-grams (n-grams of words with their spaces) and sixteen numbers of structure.
Abilities: a Rasch model over all outcomes. Easiness: ridge regression on the mean score of the stronger models, joined with structure
and ability by a logistic regression on every outcome, the ridge out of fold. Own heads: logistic
regression on the model's own labels, each drawn towards its task's mean. Familiarity: logistic regression of the source against
the others.
";

fn write_intro(text: &mut String, command: &str) -> std::fmt::Result {
    writeln!(text, "# Router card\n\n{INTRO}\nMade by:\n\n```sh\n{command}\n```\n")
}

fn write_data(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "## Data\n\n| source | rows | models | SHA-256 of the file | origin and licence |"
    )?;
    writeln!(text, "| --- | ---: | ---: | --- | --- |")?;
    for source in &report.sources {
        let licence = LICENCES.iter().find(|(name, _)| *name == source.name);
        let licence = licence.map_or("not stated", |(_, licence)| licence);
        let (name, rows, models, hash) =
            (&source.name, source.rows, source.models, &source.file_sha256);
        writeln!(text, "| `{name}` | {rows} | {models} | `{hash}` | {licence} |")?;
    }
    let (seed, duplicates) = (report.seed, report.duplicates);
    let (contradictions, unsampled) = (report.contradictions, report.unsampled);
    writeln!(
        text,
        "\nSeed {seed}; {duplicates} rows repeated an earlier one, {contradictions} of them with other scores: averaged."
    )?;
    if unsampled > 0 {
        writeln!(
            text,
            "{unsampled} more rows were not drawn into the sample that training takes."
        )?;
    }
    if !report.format_failures.is_empty() {
        writeln!(
            text,
            "\nLeft out as failures of the answer's format, not of ability (the model's other answers"
        )?;
        writeln!(
            text,
            "foretell far better):\n\n| task | model | answers | mean score | foretold |"
        )?;
        writeln!(text, "| --- | --- | ---: | ---: | ---: |")?;
    }
    for failure in &report.format_failures {
        let (task, model, answers) = (&failure.task, &failure.model, failure.answers);
        let (observed, expected) = (failure.observed, failure.expected);
        writeln!(text, "| {task} | {model} | {answers} | {observed:.2} | {expected:.2} |")?;
    }
    writeln!(text)
}

fn write_quality(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "## Quality\n\nEvery figure is from rows that the scoring weights have not seen.\n\n\
         ![Predicted against observed]({CALIBRATION_PLOT_FILE})\n"
    )?;
    match &report.calibration {
        Some(calibration) => write_calibration(text, calibration)?,
        None => writeln!(text, "Ability and difficulty are those of the router that was refined.")?,
    }
    for pair in &report.pairs {
        write_pair(text, pair)?;
        write_few(text, &pair.few_labels)?;
    }
    writeln!(text)
}

fn write_calibration(text: &mut String, calibration: &Calibration) -> std::fmt::Result {
    let (rows, folds) = (calibration.rows, calibration.folds);
    writeln!(text, "Calibration of the general model over {rows} rows, {folds} folds:\n")?;
    writeln!(text, "| outcomes of models with ability | n | ECE | Brier | Brier of the mean |")?;
    writeln!(text, "| --- | ---: | ---: | ---: | ---: |")?;
    writeln!(text, "| any | {}", columns(&calibration.all))?;
    for band in &calibration.by_ability {
        let (from, to) = (band.ability_from, band.ability_to);
        writeln!(text, "| {from:.2} to {to:.2} | {}", columns(&band.reliability))?;
    }
    Ok(())
}

fn columns(found: &Reliability) -> String {
    let Reliability { predictions, ece, brier, brier_of_mean } = found;
    format!("{predictions} | {ece:.3} | {brier:.3} | {brier_of_mean:.3} |")
}

fn write_pair(text: &mut String, pair: &PairReport) -> std::fmt::Result {
    let (weak, strong, source) = (&pair.weak, &pair.strong, &pair.source);
    writeln!(
        text,
        "\nRanking by gain, `{weak}` ({:.3} right) to `{strong}` ({:.3} right), on the {} rows",
        pair.weak_accuracy, pair.strong_accuracy, pair.rows
    )?;
    writeln!(
        text,
        "of `{source}` (APGR and CPT as RouteLLM's code computes them; by chance 0.5, 50 %, 80 %):\n"
    )?;
    writeln!(text, "| weights | APGR | CPT50 | CPT80 | ECE | Brier |")?;
    writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
    let (folds, repeats, sd) = (pair.folds, pair.repeats, pair.in_domain_apgr_sd);
    let name = format!("own heads, {folds}-fold × {repeats} (APGR ± {sd:.3} between splits)");
    writeln!(text, "{}", ranking_row(&name, &pair.in_domain, &pair.in_domain_reliability))?;
    if let (Some(ranking), Some(reliability)) =
        (&pair.out_of_domain, &pair.out_of_domain_reliability)
    {
        let name = "ability (from all outcomes) and difficulty (other sources only)";
        writeln!(text, "{}", ranking_row(name, ranking, reliability))?;
    }
    writeln!(
        text,
        "\nThe folds chose how labels become heads each for themselves; all rows chose: {}.",
        pair.recipe
    )
}

fn write_few(text: &mut String, few: &[FewLabels]) -> std::fmt::Result {
    if few.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\nWith only some rows labelled, on top of ability and difficulty from the other sources, judged on the rest:\n"
    )?;
    writeln!(text, "| labelled rows | APGR | CPT50 | CPT80 | ECE | Brier |")?;
    writeln!(text, "| ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for FewLabels { labels, ranking, apgr_sd, reliability } in few {
        let Ranking { apgr, cpt50, cpt80 } = ranking;
        let Reliability { ece, brier, .. } = reliability;
        writeln!(
            text,
            "| {labels} | {apgr:.3} ± {apgr_sd:.3} | {cpt50:.1} % | {cpt80:.1} % | {ece:.3} | {brier:.3} |"
        )?;
    }
    Ok(())
}

fn ranking_row(name: &str, ranking: &Ranking, reliability: &Reliability) -> String {
    let Ranking { apgr, cpt50, cpt80 } = ranking;
    let Reliability { ece, brier, .. } = reliability;
    format!("| {name} | {apgr:.3} | {cpt50:.1} % | {cpt80:.1} % | {ece:.3} | {brier:.3} |")
}

fn write_scale(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "## The ability scale\n\n{SCALE}")?;
    writeln!(text, "| model | ability |\n| --- | ---: |")?;
    for (model, ability) in &report.abilities {
        writeln!(text, "| {model} | {ability:.2} |")?;
    }
    writeln!(text)
}

const SCALE: &str = "\
Logits: 0 is the average model of this data. Set `ability` of a model that is not listed by the listed model it is known to be
about as good as. The models are of 2023 and 2024 and none has fewer than two billion parameters: a model of 135 to 500 million belongs
to the end of the list (SmolLM2-135M: −2.5; its answers to our own, easier questions say −2.9 to −1.5, a line through the larger models
−4), a frontier model of today at its upper end (3 to 4).
A model that one source alone asked is placed by that source's kind of question.
";

const LIMITS: &str = "\
## Use and limits

For choosing among models before any of them runs. Not for grading answers, and not for judging people by their questions.

- Mostly English questions with one right answer: exams, mathematics, code reasoning, short facts. Open chat, other languages, tools
  and long documents are extrapolation; there, fit a router to your own outcomes.
- Adequate means right, scored automatically; unparsed answers of some models count as wrong.
- A source's multiple-choice rows can be answered by chance; probabilities of weak models include that.
- Other sources' figures are for one pair on one benchmark, which was also used to choose the design. Expect less elsewhere.
- An own head is right for prompts in the form of its source; elsewhere familiarity leaves the word to ability.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::outcomes::Source;

    #[test]
    fn the_card_names_data_licence_scale_and_command() {
        let source = |name: &str| Source {
            name: name.into(),
            rows: 9,
            models: 7,
            file_sha256: "ab12".into(),
        };
        let report = Report {
            seed: 3,
            sources: vec![source("zeroeval"), source("mine")],
            duplicates: 1,
            contradictions: 0,
            unsampled: 0,
            format_failures: vec![],
            abilities: vec![("small".into(), -1.25)],
            calibration: None,
            pairs: vec![],
            designs: vec![],
        };
        let card = card(&report, "wattgate train --seed 3");
        for expected in
            ["ab12", "WildEval/ZeroEval, Apache-2.0", "not stated", "| small | -1.25 |", "--seed 3"]
        {
            assert!(card.contains(expected), "{expected} in\n{card}");
        }
    }
}
