//! Shortening of conversations that exceed the context: drops the oldest turns, as few as possible.
//!
//! Pure. Always keeps instructions (system turns) and everything from the last question on.

use crate::backends::llama::wire::conversation::Turn;
use crate::openai::Role;

/// Maximum prompt tokens that leave room for the answer: its limit, or a quarter of the context if
/// less.
pub(crate) fn roomy_tokens(context_tokens: usize, output_limit: usize) -> usize {
    context_tokens - output_limit.min(context_tokens / 4)
}

/// Renders the conversation without its oldest turns, as few as possible, and returns their number.
/// Renders it whole if even the last question does not fit.
///
/// Fewer turns are never longer, so a binary search finds the number in a few renderings.
pub(crate) fn shorten<P, E>(
    turns: &[Turn],
    render: impl Fn(&[Turn]) -> Result<P, E>,
    fits: impl Fn(&P) -> bool,
) -> Result<(P, usize), E> {
    let whole = render(turns)?;
    if fits(&whole) {
        return Ok((whole, 0));
    }
    let starts = later_starts(turns);
    let (mut low, mut high) = (0, starts.len());
    let mut shortest_cut = None;
    while low < high {
        let middle = usize::midpoint(low, high);
        let kept = from(turns, starts[middle]);
        let prompt = render(&kept)?;
        if fits(&prompt) {
            shortest_cut = Some((prompt, turns.len() - kept.len()));
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(shortest_cut.unwrap_or((whole, 0)))
}

/// Possible first turns of a shortened conversation: user turns, because templates require it, and
/// because an answer or a tool's result is meaningless without its question. Excludes the first.
fn later_starts(turns: &[Turn]) -> Vec<usize> {
    let of_user = turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::User);
    let spoken = turns.iter().position(|turn| !is_instruction(turn));
    of_user.map(|(index, _)| index).filter(|&index| Some(index) != spoken).collect()
}

fn from(turns: &[Turn], start: usize) -> Vec<Turn> {
    let instructions = turns[..start].iter().filter(|turn| is_instruction(turn));
    instructions.chain(&turns[start..]).cloned().collect()
}

fn is_instruction(turn: &Turn) -> bool {
    matches!(turn.role, Role::System | Role::Developer)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A conversation from words: `s` system, `u` user, `a` assistant, `t` tool; the word is the
    /// text.
    fn conversation(words: &str) -> Vec<Turn> {
        let role = |word: &str| match &word[..1] {
            "s" => Role::System,
            "u" => Role::User,
            "a" => Role::Assistant,
            _ => Role::Tool,
        };
        let turn = |word: &str| Turn::new(role(word), word);
        words.split(' ').map(turn).collect()
    }

    /// The turns left if at most `most` fit, and the number dropped.
    fn shortened(words: &str, most: usize) -> (String, usize) {
        let render = |turns: &[Turn]| {
            Ok::<_, Infallible>(turns.iter().map(|turn| turn.text.clone()).collect::<Vec<_>>())
        };
        let turns = conversation(words);
        let Ok((kept, dropped)) = shorten(&turns, render, |kept| kept.len() <= most);
        (kept.join(" "), dropped)
    }

    #[test]
    fn a_conversation_that_fits_is_unchanged() {
        assert_eq!(shortened("s u1 a1 u2", 4), ("s u1 a1 u2".into(), 0));
    }

    #[test]
    fn the_oldest_exchanges_go_first_and_no_more_than_needed() {
        assert_eq!(shortened("s u1 a1 u2 a2 u3", 5), ("s u2 a2 u3".into(), 2));
        assert_eq!(shortened("s u1 a1 u2 a2 u3", 3), ("s u3".into(), 4));
        assert_eq!(shortened("u1 a1 u2 a2 u3", 4), ("u2 a2 u3".into(), 2));
    }

    #[test]
    fn instructions_are_kept_at_any_position() {
        assert_eq!(shortened("s1 u1 s2 a1 u2", 3), ("s1 s2 u2".into(), 2));
    }

    #[test]
    fn a_tools_result_goes_with_its_question() {
        assert_eq!(shortened("u1 a1 t1 a2 u2", 4), ("u2".into(), 4));
        assert_eq!(shortened("u1 a1 u2 a2 t2", 3), ("u2 a2 t2".into(), 2));
    }

    #[test]
    fn the_last_question_is_never_dropped() {
        assert_eq!(shortened("s u1 a1 u2", 1), ("s u1 a1 u2".into(), 0));
        assert_eq!(shortened("u1", 0), ("u1".into(), 0));
    }

    #[test]
    fn room_is_left_for_the_answer() {
        assert_eq!(roomy_tokens(1000, 100), 900);
        assert_eq!(roomy_tokens(1000, 5000), 750);
    }
}
