#!/usr/bin/env python3
"""Greedy answers of Wattgate's kernels beside llama.cpp's own code, for files of any format.

For each file two gateways with `[engines] kernels` "auto" and "off" answer the same prompts at temperature 0. Up to the
first token that differs, the log-probabilities of both are compared; where one differs, how much less likely the other
token was there: rounding chooses between neighbours only. Further settings of the model (`--options 'kv_type = "q8_0"'`)
may be given to the first gateway, to compare them instead.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import tempfile

from report import table_of
from servers import ANSWER_WITHIN_S, user, wattgate
from shapes import Maker

PROMPTS = ("Tell me a story.", "Name three colours of the sea.", "Why is grass green?", "word " * 300 + "Go on.")
HEAD = ("file", "equal answers", "equal tokens", "greatest difference of log-probabilities", "where answers part: lead of the first's token")


def logprobs(server, prompt, max_tokens):
    """The tokens of an answer, each with its log-probability and those of its two likeliest rivals."""
    body = {
        "model": "bench", "messages": user(prompt), "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
        "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_WITHIN_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        server.fail(f"answered HTTP {response.status}: {text}")
    return json.loads(text)["choices"][0]["logprobs"]["content"]


def compare(first, second):
    """Tokens before the answers part, greatest difference of log-probabilities there, and the lead where they part."""
    most = 0.0
    for count, (one, other) in enumerate(zip(first, second)):
        if one["token"] != other["token"]:
            rivals = {rival["token"]: rival["logprob"] for rival in one["top_logprobs"]}
            return count, most, one["logprob"] - rivals.get(other["token"], float("-inf"))
        most = max(most, abs(one["logprob"] - other["logprob"]))
    return len(first), most, None


def row(file, servers, max_tokens):
    compared = [compare(*(logprobs(server, prompt, max_tokens) for server in servers)) for prompt in PROMPTS]
    leads = [lead for _, _, lead in compared if lead is not None]
    return (
        file.label,
        f"{len(PROMPTS) - len(leads)} of {len(PROMPTS)}",
        f"{sum(count for count, _, _ in compared)} of {len(PROMPTS) * max_tokens}",
        f"{max(most for _, most, _ in compared):.3f}",
        ", ".join(f"{lead:.3f}" for lead in leads),
    )


def main():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wattgate", required=True, metavar="BINARY")
    parser.add_argument("--model", action="append", required=True, metavar="FILE", help="a GGUF or SHAPE[@LAYERS]:FORMAT[,FORMAT…]")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("models"), help="folder of models (default models)")
    parser.add_argument("--llama-quantize", type=pathlib.Path, metavar="BINARY")
    parser.add_argument("--kernels", default="auto,off", help="settings of the two, with a CPU variant: auto:cascadelake,off:haswell")
    parser.add_argument("--options", default="", help="settings of the model of the first, separated by semicolons")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute (default 2)")
    parser.add_argument("--max-tokens", type=int, default=32, help="tokens of an answer (default 32)")
    args = parser.parse_args()
    maker = Maker(args.models, args.llama_quantize)
    rows = [HEAD]
    for file in (file for names in args.model for file in maker.files(names)):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            servers = []
            for kernels, options in zip(args.kernels.split(","), (args.options, "")):
                options = options.replace(";", "\n") + "\n"
                servers.append(wattgate(args.wattgate, str(file.path), args.threads, folder, kernels, options, kernels))
                running.callback(servers[-1].stop)
            rows.append(row(file, servers, args.max_tokens))
    print(table_of(rows))


if __name__ == "__main__":
    main()
