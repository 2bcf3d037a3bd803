"""The binary runs on other processors than this one: those without AVX2, and without AVX at all, answer too.

QEMU emulates SSE, AVX, AVX2 and FMA, but no AVX-512: it leaves it out of the processors that have it.
"""

from pathlib import Path

import pytest

from rig.emulator import EmulatedGateway, emulator, version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(emulator() is None, reason="qemu-x86_64-static is missing, which `scripts/setup test` fetches"),
]

QUESTION = {"prompt": "The capital of France is", "max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module")
def answer_here(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The answer that this machine's processor gives."""
    return answer_of(EmulatedGateway(tmp_path_factory.mktemp("here") / "gateway", None))


def answer_of(starting: EmulatedGateway) -> str:
    with starting as gateway:
        status, answer = gateway.complete(QUESTION)
        assert status == 200, f"{answer}\nThe gateway's log:\n{gateway.log()}"
        return answer["choices"][0]["text"]


@pytest.mark.parametrize(
    "processor",
    [
        pytest.param("qemu64", id="SSE3 only"),
        pytest.param("Nehalem", id="SSE4.2"),
        pytest.param("SandyBridge", id="AVX"),
        pytest.param("Haswell", id="AVX2"),
        pytest.param("Skylake-Server", id="AVX2 of a server"),
    ],
)
def test_a_processor_without_the_newest_instructions_gives_the_same_answer(
    processor: str, answer_here: str, tmp_path: Path
) -> None:
    told = version(processor)
    assert told.returncode == 0, f"{told.returncode}: {told.stderr}"
    assert told.stdout.startswith("wattgate ")
    assert answer_of(EmulatedGateway(tmp_path / "gateway", processor)) == answer_here
