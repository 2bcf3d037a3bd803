"""Fixtures that every Python test may use."""

from collections.abc import Iterator

import openai
import pytest

pytest.register_assert_rewrite("rig.gateway", "rig.receipts")

from rig.cloud import Cloud  # noqa: E402
from rig.gateway import Gateway  # noqa: E402


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """The cloud stand-in that the shared gateway forwards to."""
    with Cloud() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def gateway(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests that leave it as they found it; others start their own."""
    with Gateway(tmp_path_factory.mktemp("gateway"), cloud.base_url) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with gateway.openai() as client:
        yield client
