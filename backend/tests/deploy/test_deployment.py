"""Image, compose file and manifests: linted, consistent with the program, and of ordinary users.

They are not run here, because there is neither Docker nor Kubernetes: what the linters and these laws see is all that
is known of them, and the documents say so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from packaging.requirements import Requirement

from app.cli.tree import app
from app.settings import Settings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
IMAGE_USER = 10001
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for path in (DEPLOY / "kubernetes" / "nova.yaml", DEPLOY / "offload" / "cronjob.yaml")
    for manifest in yaml.safe_load_all(path.read_text())
]
VARIABLES = {name.upper() for name in Settings.model_fields} | {"PYTHONPATH"}


def linted(tool: str, *arguments: str) -> None:
    """Run a linter of the project's environment, which must find nothing."""
    program = shutil.which(tool, path=sysconfig.get_path("scripts"))
    assert program is not None, f"{tool} is not installed: make install"
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_linted() -> None:
    """By hadolint, with every rule."""
    linted("hadolint", "deploy/docker/Dockerfile")


def test_the_scripts_are_linted() -> None:
    """By shellcheck."""
    linted("shellcheck", ".ci/run", *(str(path) for path in sorted(DEPLOY.rglob("*.sh"))))


def test_the_compose_file_is_of_the_specification() -> None:
    """By the schema of the Compose specification."""
    linted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yml")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_manifest_is_of_its_kind(manifest: dict[str, Any]) -> None:
    """By Kubernetes' own schemas, strictly: no field that there is not."""
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the specification of every pod."""
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
        if template:
            yield manifest["metadata"]["name"], template["spec"]


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=lambda each: each if isinstance(each, str) else "")
def test_every_pod_is_of_an_ordinary_user_who_can_change_nothing(name: str, pod: dict[str, Any]) -> None:
    """The image's user, no more rights, a root file system that is read only, and bounded memory."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {pod["securityContext"][name] for name in ("runAsUser", "fsGroup")} == {IMAGE_USER}
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_the_image_is_of_an_ordinary_user() -> None:
    """The last USER is a number, which Kubernetes can tell from root."""
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()

    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE) == [str(IMAGE_USER)]
    assert f"useradd --uid {IMAGE_USER} " in dockerfile
    assert f"runs as user {IMAGE_USER}" in (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    # Nothing else in the files of the deployment chooses another.
    chosen = re.findall(
        r"\b(?:runAsUser|runAsGroup|fsGroup|user): *['\"]?(\d+)",
        "".join(path.read_text() for path in DEPLOY.rglob("*.y*ml")),
    )
    assert set(chosen) == {str(IMAGE_USER)}


def test_every_variable_is_one_that_nova_reads() -> None:
    """A typing error in a manifest would be a silent default."""
    given = set(next(each["data"] for each in MANIFESTS if each["kind"] == "ConfigMap"))
    for service in COMPOSE["services"].values():
        if service.get("image") == "nova:local":
            given |= set(service["environment"])
    for _, pod in pods():
        given |= {each["name"] for container in pod["containers"] for each in container.get("env", ())}

    assert given - VARIABLES == set()


def commands() -> Iterator[list[str]]:
    """Return every command of Nova's that a container runs."""
    containers = [container for _, pod in pods() for container in pod["containers"]]
    services = [service for service in COMPOSE["services"].values() if service.get("image") == "nova:local"]
    for each in [*containers, *services]:
        words = " ".join([*each["command"], *each.get("args", ())])
        for call in re.findall(r"\bnova ([^;&]+)", words):
            yield call.split()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_one_of_novas(words: list[str]) -> None:
    """It is parsed as the program would, without being run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("nova", ["--tenant", "t", *words], resilient_parsing=False)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    assert command.callback is not None


def loops() -> Iterator[Any]:
    """Return every script that a container runs, as its shell gets it."""
    for name, pod in pods():
        for container in pod["containers"]:
            if container["command"][0] == "sh":
                yield pytest.param(container["command"][-1], id=name)
    for name, service in COMPOSE["services"].items():
        if service.get("image") == "nova:local" and service["command"][0] == "sh":
            yield pytest.param(service["command"][-1].replace("$$", "$"), id=f"compose-{name}")


@pytest.mark.parametrize("script", list(loops()))
def test_who_stops_a_container_stops_what_works_in_it(script: str, tmp_path: Path) -> None:
    """SIGTERM goes to the shell alone, and it waits until the program has finished what is under way."""
    for name in ("nova", "python3"):
        program = tmp_path / name
        program.write_text(
            "#!/bin/sh\ntrap 'sleep 0.3; echo finished; exit 143' TERM\n"
            "echo begun\nfor _ in $(seq 400); do sleep 0.05; done\n"
        )
        program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    with subprocess.Popen(["sh", "-c", script], env={"PATH": path}, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "begun\n"
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(20) == 143
        assert shell.stdout.read() == "finished\n"


def test_prometheus_and_grafana_find_what_the_compose_file_runs() -> None:
    """Targets are services with those ports; the dashboard and the rules are where they are mounted."""
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target
        for job in configuration["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    ]
    for target in targets:
        service, port = target.split(":")
        found = COMPOSE["services"][service]
        assert port in {*map(str, found["command"]), found["environment"].get("NOVA_METRICS_PORT")}
    provided = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "dashboards" / "nova.yml").read_text())
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert provided["providers"][0]["options"]["path"] == mounted["./grafana/dashboards"]
    source = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert all((DEPLOY / path).exists() for path in mounted if path.startswith("./"))


def test_no_port_is_open_to_the_network() -> None:
    """What the compose file publishes is on loopback."""
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_images_constraints_are_the_lock_files_versions() -> None:
    """What the image's ``sed`` leaves of the lock file is a list of requirements, each with its version."""
    script = re.search(r"RUN (sed .*) > constraints.txt", (DEPLOY / "docker" / "Dockerfile").read_text())
    assert script is not None
    left = subprocess.run(["sh", "-c", script[1]], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    requirements = [Requirement(line) for line in left.splitlines() if line.strip()]

    assert len(requirements) > 50
    assert all(next(iter(each.specifier)).operator == "==" for each in requirements)


def test_the_passwords_of_the_compose_file_have_no_default() -> None:
    """Each must be set; the example names all of them, and gives none."""
    text = (DEPLOY / "compose.yml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    example = (DEPLOY / "compose.env.example").read_text()

    assert needed == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD"}
    assert all(re.search(rf"^{name}=$", example, re.MULTILINE) for name in needed)
