"""A real Prometheus scrapes a real scorer process; the rules are loaded, and silent."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from tests.end_to_end import runs
from tests.services.test_metrics import get

CONFIG = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: streamlstm-score
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(port: int, path: str, **parameters: str) -> list[Any]:
    """Return what Prometheus answers; nothing while it starts."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            data = json.load(answer)["data"]
    except (urllib.error.URLError, ConnectionError):
        return []
    return list(data["result"] if "result" in data else data["groups"])


def test_prometheus_scrapes_a_scorer(tmp_path: Path) -> None:
    """Counters arrive as they are in the log, the rules are evaluated, and the process answers its probes."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus (Debian: apt-get install prometheus)")
    path, port, own = runs.write_input(tmp_path / "log.db"), free_port(), free_port()
    scorer = runs.start_scorer(path, runs.write_model(tmp_path), "--metrics-port", str(port))
    (tmp_path / "p.yml").write_text(CONFIG.format(port=port, rules=runs.ROOT / "deploy" / "alert-rules.yml"))
    options = [f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "prometheus.log").open("w") as out:
        prometheus = subprocess.Popen(
            [program, *options, f"--web.listen-address=127.0.0.1:{own}"], stdout=out, stderr=out
        )
    try:
        log = SqliteLog(path)
        records = sum(log.topic(runs.TOPIC).end_offsets)
        query = 'sum(streamlstm_events_total) + sum(streamlstm_dead_letters_total{job="streamlstm-score"})'

        def arrived() -> bool:
            found = ask(own, "query", query=query)
            return bool(found) and float(found[0]["value"][1]) == records

        runs.wait_until(arrived, scorer)
        log.close()
        assert [get(port, page) for page in ("/startupz", "/livez", "/readyz")] == [(200, "ok\n")] * 3
        assert [float(found["value"][1]) for found in ask(own, "query", query="up")] == [1.0]
        rules = [rule for group in ask(own, "rules") for rule in group["rules"]]
        assert len(rules) == 7
        runs.wait_until(lambda: all(r["health"] == "ok" for g in ask(own, "rules") for r in g["rules"]), scorer)
        scorer.send_signal(signal.SIGTERM)
        assert runs.finish(scorer)[0] == 0
    finally:
        scorer.kill()
        prometheus.terminate()
        prometheus.wait(runs.TIMEOUT_S)
