"""Tables of what was measured: one in detail for a file, and a summary with a line for each file and server."""

import statistics

from figures import (
    ALONE,
    ANSWER_CPU,
    ANSWER_JOULES,
    BEHIND_STEPS,
    COLD,
    GAP,
    MEMORY,
    SECOND_TURN,
    STREAMS,
    speed,
    work,
)

PEER = "llama-server"
# Least tokens/s by streams, as a multiple of llama-server's; CPU per token in the same proportion.
SPEED_TARGETS = {1: 1.1, 8: 1.5, 16: 1.5}


def median_ratio(ours, theirs):
    return statistics.median(a / b for a, b in zip(ours, theirs))


def verdicts(ours, theirs):
    """For each figure that has one: its target, and whether it is met."""

    def at_most(figure, most):
        return f"≤ {most:.2f} ×", median_ratio(ours[figure], theirs[figure]) <= most

    found = {}
    for streams, least in SPEED_TARGETS.items():
        if speed(streams) in ours:
            ratio = median_ratio(ours[speed(streams)], theirs[speed(streams)])
            found[speed(streams)] = (f"≥ {least:.2f} ×", ratio >= least)
            found[work(streams)] = at_most(work(streams), 1 / least)
    if COLD in ours:
        found[COLD] = at_most(COLD, 1.0)
        to_cold = median_ratio(ours[SECOND_TURN], ours[COLD])
        text, met = at_most(SECOND_TURN, 1.0)
        found[SECOND_TURN] = (f"{text}, ≤ 0.10 × own cold ({to_cold:.2f})", met and to_cold <= 0.1)
    for figure, most in ((GAP, 3), (BEHIND_STEPS, 2)):
        if figure in ours:
            found[figure] = (f"≤ {most}", statistics.median(ours[figure]) <= most)
    excess_mib = ours[MEMORY][0] - theirs[MEMORY][0]
    found[MEMORY] = (f"≤ theirs + 40 ({excess_mib:+.0f})", excess_mib <= 40)
    return found


def detail(figures):
    """A line for each figure of a file; targets are of the first server."""
    ours = next(name for name in figures if name != PEER)
    theirs = figures[PEER]
    targets = verdicts(figures[ours], theirs)
    rows = [("median (least–most of the rounds)", *figures, *(f"{name} ×" for name in figures if name != PEER), "target", "")]
    for figure in figures[ours]:
        target, met = targets.get(figure, ("", None))
        cells = [spread(of[figure]) if figure in of else "" for of in figures.values()]
        ratios = [
            f"{median_ratio(of[figure], theirs[figure]):.2f}" if figure in theirs else ""
            for name, of in figures.items()
            if name != PEER
        ]
        rows.append((figure, *cells, *ratios, target, {True: "pass", False: "MISS", None: ""}[met]))
    return table_of(rows)


SUMMARY_HEAD = (
    "file", "server", "tokens/s, 1 / 8 / 16", "× theirs", "CPU per token ×", "cold ×", "second turn ×", "CPU of an answer ×",
    "joules of an answer", "memory read alone", "MiB", "missed",
)


def summary(results, bandwidth_gb_per_s):
    """A line for each file and server; × is the ratio to llama-server."""
    rows = [SUMMARY_HEAD]
    for result in results:
        for name, of in result["figures"].items():
            theirs = result["figures"][PEER]

            def ratio(figure, of=of, theirs=theirs):
                return f"{median_ratio(of[figure], theirs[figure]):.2f}" if figure in of else ""

            ours = name != PEER
            missed = [figure for figure, (_, met) in verdicts(of, theirs).items() if not met] if ours else []
            rows.append((
                result["label"],
                name,
                " / ".join(number(statistics.median(of[speed(n)])) for n in STREAMS if speed(n) in of),
                " / ".join(ratio(speed(n)) for n in STREAMS) if ours else "",
                " / ".join(ratio(work(n)) for n in STREAMS) if ours else "",
                *(ratio(figure) if ours else "" for figure in (COLD, SECOND_TURN, ANSWER_CPU)),
                spread(of[ANSWER_JOULES]) if ANSWER_JOULES in of else "",
                memory_read(result, of, bandwidth_gb_per_s),
                number(of[MEMORY][0]),
                str(len(missed)) if ours else "",
            ))  # fmt: skip
    return table_of(rows)


def memory_read(result, figures, bandwidth_gb_per_s):
    """Weights that an answer alone read a second, and their share of what the cores can read."""
    if ALONE not in figures:
        return ""
    gb_per_s = statistics.median(figures[ALONE]) * result["bytes_per_token"] / 1e9
    return f"{gb_per_s:.1f} GB/s, {gb_per_s / bandwidth_gb_per_s:.0%}"


def table_of(rows):
    """Rows, the first one the heads, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def spread(values):
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}–{number(max(values))})"
