# SPDX-License-Identifier: Apache-2.0
"""What deploy/ says agrees with itself: image, command line, pod, service and their tables."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import container, image
from tests.kernel.container import Settings
from tests.paths import ROOT

yaml: Any = import_module("yaml")

DEPLOY = ROOT / "deploy"
CONTAINERFILE = DEPLOY / "Containerfile"
README = (DEPLOY / "README.md").read_text()
UNIT = DEPLOY / "systemd" / "probetop.service"


def settings() -> Settings:
    return Settings.parse(container.documented(CONTAINERFILE, "and run it"))


def resources() -> dict[str, dict[str, Any]]:
    """The Kubernetes resources by kind."""
    text = (DEPLOY / "kubernetes" / "daemonset.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = resources()["DaemonSet"]["spec"]["template"]["spec"]
    return spec


def unit() -> dict[str, str]:
    """The settings of the service."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_the_command_line_is_the_same_everywhere() -> None:
    line = container.documented(CONTAINERFILE, "and run it")
    written = re.search(r"podman run (?:.*\\\n)+ +probetop$", README, re.M)
    assert written is not None
    assert re.sub(r"\\\s+", " ", written[0]) == line


def test_the_table_has_every_capability_and_no_other() -> None:
    first, _, second = README.partition("More, for those who want it")
    given, more = (re.findall(r"^\| `(CAP_\w+)`", text, re.M) for text in (first, second))
    assert sorted(given) == sorted(settings().capabilities)
    extra = container.documented(CONTAINERFILE, "To see what probes cost")
    assert {f"CAP_{name}" for name in re.findall(r"--cap-add (\w+)", extra)} <= set(more)
    assert not set(given) & set(more)


def test_pods_have_what_containers_have() -> None:
    (main,) = pod()["containers"]
    security = main["securityContext"]
    assert [f"CAP_{name}" for name in security["capabilities"]["add"]] == settings().capabilities
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["readOnlyRootFilesystem"] is settings().read_only is True
    assert security["allowPrivilegeEscalation"] is not settings().no_new_privileges
    assert (security["privileged"], security["runAsUser"]) == (False, 0)
    assert pod()["hostPID"] is True
    assert not pod().get("hostNetwork")
    mounts = {mount["name"]: mount for mount in main["volumeMounts"]}
    hosts = {v["hostPath"]["path"]: v["name"] for v in pod()["volumes"] if "hostPath" in v}
    # A pod cannot be in the node's cgroup namespace, so that is mounted too.
    volumes = {volume[0] for volume in settings().volumes} - {container.TOKENS}
    assert set(hosts) == volumes | {"/sys/fs/cgroup"}
    assert all(mounts[name]["mountPath"] == path for path, name in hosts.items())
    assert set(mounts) == {volume["name"] for volume in pod()["volumes"]}
    assert all(mount["readOnly"] is True for mount in mounts.values())


def test_pods_answer_those_who_know_a_token_over_tls_only() -> None:
    (main,) = pod()["containers"]
    options = dict(word.split("=", 1) for word in main["args"][1:])
    assert main["args"][0] == "serve"
    assert options["--listen"] == "$(POD_IP):9435"
    assert "--insecure" not in options
    places = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    for option, name in (("--token-file", "tokens"), ("--tls-cert", "tls"), ("--tls-key", "tls")):
        assert options[option].startswith(f"{places[name]}/")
    secrets = [volume["secret"] for volume in pod()["volumes"] if "secret" in volume]
    assert {secret["defaultMode"] for secret in secrets} == {0o400}
    assert pod()["automountServiceAccountToken"] is False
    assert resources()["ServiceAccount"]["automountServiceAccountToken"] is False


def test_the_options_of_pods_and_images_are_known() -> None:
    from tui.cli import build_parser

    (main,) = pod()["containers"]
    parsed = build_parser().parse_args(
        [word.replace("$(POD_IP)", "10.0.0.1") for word in main["args"]]
    )
    assert parsed.command == "serve"
    words = dict(image.instructions(CONTAINERFILE.read_text()))
    assert build_parser().parse_args(yaml.safe_load(words["CMD"])).command == "serve"


def test_pods_are_asked_how_they_are() -> None:
    (main,) = pod()["containers"]
    (port,) = main["ports"]
    for name in ("readinessProbe", "livenessProbe"):
        assert main[name]["httpGet"] == {
            "path": "/healthz",
            "port": port["name"],
            "scheme": "HTTPS",
        }
    notes = resources()["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(port["containerPort"])
    assert {"operator": "Exists"} in pod()["tolerations"]
    assert main["resources"]["limits"]["memory"] == unit()["MemoryMax"] + "i"


def test_labels_select_the_pods() -> None:
    daemons = resources()["DaemonSet"]["spec"]
    assert (
        daemons["selector"]["matchLabels"].items()
        <= daemons["template"]["metadata"]["labels"].items()
    )
    names = {each["metadata"].get("namespace", "probetop") for each in resources().values()}
    assert names == {"probetop"}


def test_the_image_is_made_of_what_is_there() -> None:
    """Every COPY has its source, also in the list of what the build is given."""
    words = image.instructions(CONTAINERFILE.read_text())
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    given = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest.split() for word, rest in words if word == "COPY"]
    sources = {name for *names, _ in copied for name in names if not names[0].startswith("--")}
    assert sources == given
    assert all((ROOT / name).exists() for name in sources)
    assert [rest for word, rest in words if word == "FROM"][-1].endswith("-slim")
    assert not any("gcc" in rest or "headers" in rest for _, rest in words)


def test_the_service_gets_what_it_may_have_and_no_more() -> None:
    assert unit()["AmbientCapabilities"] == unit()["CapabilityBoundingSet"]
    # It is never root, so nothing changes its user; what only root reads it reads by this.
    changes = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}
    wanted = set(settings().capabilities) - changes
    wanted |= {"CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"}
    assert set(unit()["AmbientCapabilities"].split()) == wanted
    assert unit()["NoNewPrivileges"] == "yes"
    sysusers = (DEPLOY / "systemd" / "probetop.sysusers").read_text()
    assert f"u {unit()['User']} - " in sysusers
    assert unit()["ExecStart"].split()[:2] == ["/opt/probetop/bin/probetop", "serve"]


def test_nothing_that_is_deployed_trusts_everybody_on_the_machine() -> None:
    """A token or a socket: not what `serve` alone does on a loopback address."""
    from tui.cli import build_parser

    words = dict(image.instructions(CONTAINERFILE.read_text()))
    made = build_parser().parse_args(yaml.safe_load(words["CMD"]))
    assert made.token_file == container.TOKENS
    assert (container.TOKENS, container.TOKENS, True) in settings().volumes
    service = build_parser().parse_args(unit()["ExecStart"].split()[1:-1])
    assert service.listen == f"unix:/run/{unit()['RuntimeDirectory']}/probetop.sock"
    assert unit()["RuntimeDirectoryMode"] == "0750"
    # What the settings file adds comes last and holds.
    assert unit()["ExecStart"].endswith(" $PROBETOP_OPTIONS")
    more = ["serve", "--listen", "a", "--listen", "127.0.0.1:9435"]
    assert build_parser().parse_args(more).listen == "127.0.0.1:9435"


def systemd(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: install the package systemd")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_systemd_understands_the_service(tmp_path: Path) -> None:
    # What it starts is not installed here.
    there = tmp_path / "probetop.service"
    there.write_text(UNIT.read_text().replace("/opt/probetop/bin/probetop", "/bin/true"))
    done = systemd("verify", there)
    assert "probetop.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_service_is_confined() -> None:
    done = systemd("security", "--offline=true", "--threshold=40", UNIT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
