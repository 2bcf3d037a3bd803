//! Conversations in the shapes that templates accept.
//!
//! Pure. Clients send system turns anywhere, several of them, and several turns of one side in a
//! row. Templates refuse what their family was not trained on, and some leave it out without a
//! word. Each shape here changes more than the one before, so that a template gets the conversation
//! as it is, or as little changed as possible.

use std::mem;

use crate::backends::llama::wire::conversation::Turn;
use crate::openai::Role;

/// What a template leaves out without refusing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// System turns.
    pub(super) system: bool,
    /// One of two system turns at the beginning.
    pub(super) second_system: bool,
    /// System turns after another one.
    pub(super) later_system: bool,
}

impl Dropped {
    /// Whether part of the conversation would be left out.
    pub(super) fn concerns(self, turns: &[Turn]) -> bool {
        let leading = turns.iter().take_while(|turn| is_system(turn)).count();
        let later = turns[leading..].iter().any(is_system);
        self.system && (leading > 0 || later)
            || self.second_system && leading > 1
            || self.later_system && later
    }
}

/// A conversation's shapes, from the least to the most changed; empty if none applies.
/// `one_call` if the template takes one call a turn.
pub(super) fn shapes(turns: &[Turn], one_call: bool) -> impl Iterator<Item = Vec<Turn>> {
    let calls_apart = one_call && turns.iter().any(|turn| turn.calls.len() > 1);
    let given = if calls_apart { single_calls(turns) } else { turns.to_vec() };
    let one_system = with_one_system(&given);
    let system_first = with_system_first(&one_system);
    let alternating = alternating(&system_first);
    let without_system = self::alternating(&without_system(&system_first));
    let all = [given, one_system, system_first, alternating, without_system];
    let mut last = turns.to_vec();
    all.into_iter().filter(move |shape| {
        let differs = *shape != last;
        last.clone_from(shape);
        differs
    })
}

fn is_system(turn: &Turn) -> bool {
    matches!(turn.role, Role::System | Role::Developer)
}

fn is_result(turn: &Turn) -> bool {
    matches!(turn.role, Role::Tool | Role::Function)
}

/// Whether two turns in a row are of one side and of text only.
fn joins(first: &Turn, second: &Turn) -> bool {
    let same = is_system(first) && is_system(second) || first.role == second.role;
    same && !is_result(first) && first.calls.is_empty()
}

fn join(first: &mut Turn, second: Turn) {
    first.text = paragraphs(&first.text, &second.text);
    first.calls = second.calls;
    first.reasoning = first.reasoning.take().or(second.reasoning);
}

fn paragraphs(first: &str, second: &str) -> String {
    match (first, second) {
        ("", text) | (text, "") => text.to_owned(),
        _ => format!("{first}\n\n{second}"),
    }
}

/// The system turns at the beginning as one.
fn with_one_system(turns: &[Turn]) -> Vec<Turn> {
    let mut shaped: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        match shaped.as_mut_slice() {
            [only] if is_system(only) && is_system(turn) => join(only, turn.clone()),
            _ => shaped.push(turn.clone()),
        }
    }
    shaped
}

/// Later system turns as the beginning of the next user's turn, or as one of their own.
fn with_system_first(turns: &[Turn]) -> Vec<Turn> {
    let mut shaped: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut pending = String::new();
    for (place, turn) in turns.iter().enumerate() {
        if place > 0 && is_system(turn) {
            pending = paragraphs(&pending, &turn.text);
        } else if turn.role == Role::User && !pending.is_empty() {
            let text = paragraphs(&mem::take(&mut pending), &turn.text);
            shaped.push(Turn { text, ..turn.clone() });
        } else {
            // Results must follow their calls.
            if !pending.is_empty() && !is_result(turn) {
                shaped.push(Turn::new(Role::User, mem::take(&mut pending)));
            }
            shaped.push(turn.clone());
        }
    }
    if !pending.is_empty() {
        shaped.push(Turn::new(Role::User, pending));
    }
    shaped
}

/// The user first, and no two turns of one side in a row.
fn alternating(turns: &[Turn]) -> Vec<Turn> {
    let mut shaped: Vec<Turn> = Vec::with_capacity(turns.len() + 1);
    for turn in turns {
        let begins = shaped.iter().all(is_system);
        if begins && !is_system(turn) && turn.role != Role::User {
            shaped.push(Turn::new(Role::User, ""));
        }
        match shaped.last_mut() {
            Some(last) if joins(last, turn) => join(last, turn.clone()),
            _ => shaped.push(turn.clone()),
        }
    }
    shaped
}

/// The system turn at the beginning of the first user's turn.
fn without_system(turns: &[Turn]) -> Vec<Turn> {
    let Some((system, rest)) = turns.split_first().filter(|(first, _)| is_system(first)) else {
        return turns.to_vec();
    };
    let mut rest = rest.to_vec();
    match rest.first_mut().filter(|first| first.role == Role::User) {
        Some(user) => user.text = paragraphs(&system.text, &user.text),
        None => rest.insert(0, Turn::new(Role::User, system.text.clone())),
    }
    rest
}

/// Each call in a turn of its own, followed by its result.
fn single_calls(turns: &[Turn]) -> Vec<Turn> {
    let mut shaped = Vec::with_capacity(turns.len());
    let mut rest = turns.iter().peekable();
    while let Some(turn) = rest.next() {
        if turn.calls.len() < 2 {
            shaped.push(turn.clone());
            continue;
        }
        let mut results = Vec::new();
        while let Some(result) = rest.next_if(|next| is_result(next)) {
            results.push(result);
        }
        let mut text = Some(turn.text.clone());
        for call in &turn.calls {
            let calls = vec![call.clone()];
            let text = text.take().unwrap_or_default();
            shaped.push(Turn { text, calls, ..turn.clone() });
            let answers = |result: &&Turn| result.answers.as_deref() == Some(call.id.as_str());
            if let Some(place) = results.iter().position(answers) {
                shaped.push(results.remove(place).clone());
            }
        }
        shaped.extend(results.into_iter().cloned());
    }
    shaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::llama::wire::conversation::PastCall;

    /// A conversation from words: `s` system, `u` user, `a` assistant, `c` assistant with calls,
    /// `t` tool; the word is the text.
    fn turns(words: &str) -> Vec<Turn> {
        let turn = |word: &str| match &word[..1] {
            "s" => Turn::new(Role::System, word),
            "u" => Turn::new(Role::User, word),
            "c" => {
                let call = |id: char| PastCall {
                    id: id.to_string(),
                    name: "f".into(),
                    arguments: "{}".into(),
                };
                let calls = word[1..].chars().map(call).collect();
                Turn { calls, ..Turn::new(Role::Assistant, "") }
            }
            "t" => Turn { answers: Some(word[1..].into()), ..Turn::new(Role::Tool, word) },
            _ => Turn::new(Role::Assistant, word),
        };
        words.split(' ').filter(|word| !word.is_empty()).map(turn).collect()
    }

    fn written(turns: &[Turn]) -> String {
        let role = |turn: &Turn| match turn.role {
            Role::System | Role::Developer => "s",
            Role::User => "u",
            Role::Assistant => "a",
            Role::Tool | Role::Function => "t",
            Role::Other => "o",
        };
        let turn = |turn: &Turn| {
            let calls: String = turn.calls.iter().map(|call| call.id.as_str()).collect();
            format!("{}:{}{calls}", role(turn), turn.text.replace("\n\n", "+"))
        };
        turns.iter().map(turn).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn shapes_change_as_little_as_possible_at_first() {
        for (given, expected) in [
            ("u1 a1 u2", vec![]),
            ("s1 u1", vec!["u:s1+u1"]),
            ("s1 s2 u1", vec!["s:s1+s2 u:u1", "u:s1+s2+u1"]),
            ("s1 u1 a1 s2 u2", vec!["s:s1 u:u1 a:a1 u:s2+u2", "u:s1+u1 a:a1 u:s2+u2"]),
            ("s1 u1 s2", vec!["s:s1 u:u1 u:s2", "s:s1 u:u1+s2", "u:s1+u1+s2"]),
            ("u1 u2 a1 a2 u3", vec!["u:u1+u2 a:a1+a2 u:u3"]),
            ("a1 u1", vec!["u: a:a1 u:u1"]),
            ("s1 a1 u1", vec!["s:s1 u: a:a1 u:u1", "u:s1 a:a1 u:u1"]),
            ("s1", vec!["u:s1"]),
            // A system turn between a call and its result waits.
            ("u1 c1 s1 t1", vec!["u:u1 a:1 t:t1 u:s1"]),
            ("u1 a1 c1 t1 t2", vec!["u:u1 a:a11 t:t1 t:t2"]),
        ] {
            let found: Vec<String> =
                shapes(&turns(given), false).map(|shape| written(&shape)).collect();
            assert_eq!(found, expected, "{given}");
        }
    }

    #[test]
    fn calls_come_one_by_one_with_their_results() {
        let shape = shapes(&turns("u1 c12 t2 t1 u2"), true).next().unwrap();
        assert_eq!(written(&shape), "u:u1 a:1 t:t1 a:2 t:t2 u:u2");
        let lacking = shapes(&turns("u1 c12 t9"), true).next().unwrap();
        assert_eq!(written(&lacking), "u:u1 a:1 a:2 t:t9");
        assert_eq!(shapes(&turns("u1 c1 t1"), true).count(), 0);
    }

    #[test]
    fn what_is_left_out_in_silence_is_known() {
        let dropped =
            |system, second_system, later_system| Dropped { system, second_system, later_system };
        for (dropped, conversation, concerned) in [
            (dropped(true, false, false), "s1 u1", true),
            (dropped(true, false, false), "u1", false),
            (dropped(false, true, false), "s1 s2 u1", true),
            (dropped(false, true, false), "s1 u1 s2", false),
            (dropped(false, false, true), "s1 u1 s2", true),
            (dropped(false, false, true), "s1 s2 u1", false),
            (dropped(true, true, true), "", false),
        ] {
            assert_eq!(dropped.concerns(&turns(conversation)), concerned, "{conversation}");
        }
    }
}
