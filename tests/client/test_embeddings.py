"""Embeddings as the official client sees them, against the same network computed here with numpy."""

import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy
import openai
import pytest

from rig.build import REPOSITORY
from rig.gateway import Gateway
from rig.receipts import receipt_of
from rig.upstream import MockUpstream

MODEL = REPOSITORY / "models/test/all-MiniLM-L6-v2.F32.gguf"
HEADS = 12
TEXTS = [
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "Überraschung: naïve café-goers don't pay €3.50 …",
    "def add(a, b):\n    return a + b  # 中文 too",
    " ".join(f"Paragraph {number} speaks of rivers, bridges and the price of bread." for number in range(12)),
]


@pytest.fixture(scope="module")
def embedder(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    config = f'[models.minilm.llama]\nsource = "file:{MODEL}"\nembedding = true\n'
    with Gateway(tmp_path_factory.mktemp("embedder"), upstream.base_url, more_config=config) as gateway:
        with gateway.openai() as client:
            gateway.wait_until_ready("minilm")
            yield client


def test_vectors_equal_the_reference(embedder: openai.OpenAI) -> None:
    reference = Reference(MODEL)
    # The client requests base64 by default and decodes it.
    answer = embedder.embeddings.create(model="minilm", input=TEXTS)
    assert answer.usage.prompt_tokens == sum(len(reference.tokens(text)) for text in TEXTS)
    for text, item in zip(TEXTS, answer.data, strict=True):
        difference = numpy.abs(numpy.array(item.embedding) - reference.embed(text)).max()
        assert difference < 3e-4, f"{text[:40]!r}: {difference}"


def test_floats_and_the_receipt(embedder: openai.OpenAI) -> None:
    answer = embedder.embeddings.create(model="minilm", input="hello", dimensions=128, encoding_format="float")
    assert len(answer.data[0].embedding) == 128
    assert math.isclose(sum(x * x for x in answer.data[0].embedding), 1.0, abs_tol=1e-5)
    assert receipt_of(answer)["model"] == "minilm"


def test_a_chat_model_gives_none(embedder: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="minilm"):
        embedder.embeddings.create(model="smollm2-135m", input="hello")


class Reference:
    """BERT with mean pooling, from its definition."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.weights = {tensor.name: numpy.array(tensor.data) for tensor in reader.tensors}
        words = reader.get_field("tokenizer.ggml.tokens").contents()
        self.ids = {word: index for index, word in enumerate(words)}

    def embed(self, text: str) -> numpy.ndarray:
        tokens = self.tokens(text)
        w = self.weights
        x = w["token_embd.weight"][tokens] + w["position_embd.weight"][: len(tokens)] + w["token_types.weight"][0]
        x = self.norm(x, "token_embd_norm")
        for layer in range(6):
            x = self.layer(x, f"blk.{layer}")
        mean = x.mean(axis=0)
        return mean / numpy.linalg.norm(mean)

    def layer(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        def heads(part: str) -> numpy.ndarray:
            y = self.linear(x, f"{name}.attn_{part}")
            return y.reshape(len(x), HEADS, -1).swapaxes(0, 1)

        q, k, v = heads("q"), heads("k"), heads("v")
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
        scores = numpy.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (scores / scores.sum(axis=2, keepdims=True)) @ v
        mixed = mixed.swapaxes(0, 1).reshape(len(x), -1)
        x = self.norm(x + self.linear(mixed, f"{name}.attn_output"), f"{name}.attn_output_norm")
        up = self.linear(x, f"{name}.ffn_up")
        # ggml uses this approximation of GELU; the exact one moves the vectors of long texts by up to 5e-4.
        gelu = up * 0.5 * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        return self.norm(x + self.linear(gelu, f"{name}.ffn_down"), f"{name}.layer_output_norm")

    def linear(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: numpy.ndarray, name: str) -> numpy.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / numpy.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def tokens(self, text: str) -> list[int]:
        pieces = [self.ids["[CLS]"]]
        for word in words(text):
            pieces += self.pieces("\u2581" + word)
        return [*pieces, self.ids["[SEP]"]]

    def pieces(self, word: str) -> list[int]:
        """Longest known prefix, repeatedly; one unknown piece makes the word unknown."""
        found = []
        while word:
            end = next((end for end in range(len(word), 0, -1) if word[:end] in self.ids), None)
            if end is None:
                return [self.ids["[UNK]"]]
            found.append(self.ids[word[:end]])
            word = word[end:]
        return found


def words(text: str) -> list[str]:
    """BERT's split: lower case without accents, at white space, around punctuation and Chinese characters."""
    spaced = ""
    for char in unicodedata.normalize("NFD", text.lower()):
        if unicodedata.category(char) == "Mn":
            continue
        ascii_symbol = char.isascii() and not char.isalnum() and not char.isspace()
        alone = ascii_symbol or unicodedata.category(char).startswith("P") or "\u4e00" <= char <= "\u9fff"
        spaced += f" {char} " if alone else char
    return spaced.split()
