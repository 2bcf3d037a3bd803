"""Fixtures of all Python tests."""

from collections.abc import Iterator

import openai
import pytest

pytest.register_assert_rewrite("rig.gateway", "rig.receipts")

from rig.gateway import Gateway  # noqa: E402
from rig.upstream import MockUpstream  # noqa: E402


@pytest.fixture(scope="session")
def upstream() -> Iterator[MockUpstream]:
    """The upstream that the shared gateway forwards to."""
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def gateway(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests that do not change its state; others start their own."""
    with Gateway(tmp_path_factory.mktemp("gateway"), upstream.base_url) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with gateway.openai() as client:
        yield client
