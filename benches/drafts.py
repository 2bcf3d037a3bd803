#!/usr/bin/env python3
"""What guessing ahead is worth: tokens/s with `draft_tokens` and without, on answers that repeat and on one that does not.

`make bench-drafts` runs this. Two gateways with the same model are up at the same time, one that guesses and one that does
not, and each task is given to one and then to the other, who is first changing from round to round. The ratio is the
median of the rounds' ratios. The answers of both must be the same, or the run fails. Nothing else should run.
"""

import argparse
import contextlib
import pathlib
import re
import tempfile

from report import median_ratio, spread, table_of
from servers import user, wattgate

PASSAGE = (
    "The red fox runs over the green hill. The blue bird sings in the old tree. A quiet river turns the wooden wheel of the mill. "
    "The miller opens the window and looks at the clouds above the fields."
)
# SmolLM2 copies text that it is told to repeat, and falls into loops in long lists; its stories seldom repeat themselves.
TASKS = {
    "repeat a text": f"Repeat this text word for word, and then once more: {PASSAGE}",
    "write a list": "Write the numbers from 1 to 40, each as: number N.",
    "tell a story": "Tell me a story about a lighthouse and a storm.",
}
GUESSED = re.compile(r"^wattgate_engine_(drafted|accepted)_tokens_total\{[^}]*\} (\d+)", re.MULTILINE)


def guessed(server):
    """Tokens guessed so far, and those of them that held."""
    found = dict(GUESSED.findall(server.get("/metrics")))
    return int(found.get("drafted", 0)), int(found.get("accepted", 0))


def measure(plain, guessing, rounds, max_tokens):
    """For each task the speed of each side in each round, and the share of the guesses that held."""
    speeds = {task: {plain.name: [], guessing.name: []} for task in TASKS}
    held = {}
    for turn in range(rounds):
        for task, prompt in TASKS.items():
            # A word of the round's own, so that nothing is found in the cache of the round before.
            prompt = f"({turn}) {prompt}"
            texts = set()
            before = guessed(guessing)
            for server in (plain, guessing) if turn % 2 == 0 else (guessing, plain):
                answer = server.answer(user(prompt), max_tokens)
                texts.add(answer.text)
                speeds[task][server.name].append(answer.tokens_per_s())
            if len(texts) > 1:
                raise SystemExit(f"guessing changed an answer ({task}): {texts}")
            tokens, accepted = (after - earlier for after, earlier in zip(guessed(guessing), before))
            held.setdefault(task, []).append((tokens, accepted))
    return speeds, held


def main():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wattgate", required=True, metavar="BINARY")
    parser.add_argument("--model", required=True, metavar="GGUF")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute (default 2)")
    parser.add_argument("--draft-tokens", type=int, default=8, help="`draft_tokens` of the side that guesses (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--max-tokens", type=int, default=128, help="tokens of an answer (default 128)")
    args = parser.parse_args()
    model = str(pathlib.Path(args.model).resolve(strict=True))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        sides = []
        for name, draft_tokens in (("plain", 0), ("guessing", args.draft_tokens)):
            sides.append(wattgate(args.wattgate, model, args.threads, folder, name, f"draft_tokens = {draft_tokens}\n"))
            running.callback(sides[-1].stop)
        speeds, held = measure(*sides, args.rounds, args.max_tokens)
    rows = [("tokens/s, median (least–most)", "plain", "guessing", "ratio", "guesses that held")]
    for task, of in speeds.items():
        tokens, accepted = map(sum, zip(*held[task]))
        share = f"{accepted} of {tokens}"
        rows.append((task, spread(of["plain"]), spread(of["guessing"]), f"{median_ratio(of['guessing'], of['plain']):.2f}", share))
    print(table_of(rows))


if __name__ == "__main__":
    main()
