"""The files in cluster/, as far as they can be checked without a cluster."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = ("local", "aws", "gcp")
SCHEMA = ROOT / "tests" / "cluster" / "kuberay" / "rayjob.schema.json"


def found_in(pattern: str, name: str) -> str:
    """The first group of the pattern in a file of the repository. (Python 3.10 cannot read TOML by itself.)"""
    match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"{name} has no {pattern}"
    return match[1]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# --- job.py ----------------------------------------------------------------------------------------------


def test_a_bad_config_ends_the_job_with_one_line() -> None:
    done = run(sys.executable, CLUSTER / "job.py", "run", "--set", "unlearn.layers=-1")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "unlearn.layers" in done.stderr


def test_an_installed_package_is_taken_as_it_is(tmp_path: Path) -> None:
    for folder in ("", "cli"):
        script(tmp_path / "site" / "fused_ray" / folder / "__init__.py", "")
    script(
        tmp_path / "site" / "fused_ray" / "cli" / "app.py", "def main():\n    import sys\n    print(*sys.argv[1:])\n"
    )
    copy = shutil.copy(CLUSTER / "job.py", tmp_path)
    done = run(sys.executable, "-S", copy, "run", "a.yaml", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert (done.returncode, done.stdout.strip()) == (0, "run a.yaml")


def test_workers_find_a_package_that_is_not_installed(tmp_path: Path) -> None:
    """Without `site` (-S) nothing is installed; then the repository around job.py is taken, here a made-up one."""
    for folder in ("", "cli"):
        script(tmp_path / "fused_ray" / folder / "__init__.py", "")
    script(
        tmp_path / "fused_ray" / "cli" / "app.py",
        "import os\ndef main():\n    print(os.environ['PYTHONPATH'])\n    return 7\n",
    )
    script(tmp_path / "cluster" / "job.py", (CLUSTER / "job.py").read_text())
    done = run(sys.executable, "-S", tmp_path / "cluster" / "job.py", cwd=CLUSTER, PYTHONPATH="/elsewhere")
    assert (done.returncode, done.stdout.strip()) == (7, f"{tmp_path}:/elsewhere"), done.stderr


# --- the cluster launchers -------------------------------------------------------------------------------


def loaded(name: str) -> dict[str, Any]:
    found = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    return loaded("local")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_the_launcher_files_and_no_wrong_ones(name: str) -> None:
    # Private to Ray, and only here: there is no public way to validate without starting machines.
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(loaded(name)))
    with pytest.raises(Exception, match="head_start_rays"):
        validate_config(prepare_config({**loaded(name), "head_start_rays": []}))


@pytest.mark.parametrize("name", LAUNCHERS[1:])
def test_a_cloud_has_workers_of_both_kinds_between_its_bounds(name: str) -> None:
    cloud = loaded(name)
    kinds = cloud["available_node_types"]
    assert set(kinds) == {cloud["head_node_type"], "cpu", "gpu"}
    assert kinds["head"]["resources"] == {"CPU": 0}  # the driver needs none
    assert kinds["cpu"]["min_workers"] > 0
    assert kinds["gpu"]["min_workers"] == 0  # they cost most
    assert kinds["gpu"]["resources"]["GPU"] == 1
    workers = [kinds["cpu"], kinds["gpu"]]
    assert cloud["max_workers"] == sum(kind["max_workers"] for kind in workers)
    # the same image everywhere, without which nodes have different versions of Python
    assert len(set(re.findall(r"(?:ImageId|sourceImage): (\w+)", (CLUSTER / f"{name}.yaml").read_text()))) == 1


@pytest.mark.parametrize("name", LAUNCHERS[1:])
def test_the_clouds_set_up_and_start_nodes_as_the_local_launcher_does(name: str, launcher: dict[str, Any]) -> None:
    """So that what the tests below say of it is true of them."""
    cloud = loaded(name)
    alike = set(launcher) - {"provider", "auth"}
    assert {key: cloud[key] for key in alike} == {key: launcher[key] for key in alike}


def test_the_launcher_carries_what_an_install_needs(launcher: dict[str, Any]) -> None:
    mounts = launcher["file_mounts"]
    assert {"fused_ray", "pyproject.toml", "constraints.txt", "README.md"} <= set(mounts.values())
    for remote, here in mounts.items():
        assert remote == f"~/fused_ray_src/{Path(here).name}"
        assert here.startswith("~") or (ROOT / here).exists(), here
    installs = [command for command in launcher["setup_commands"] if "pip install" in command]
    assert installs
    for command in installs:
        assert "constraints.txt" in command or "--no-deps" in command


def test_whatever_starts_ray_or_talks_to_it_has_the_token(launcher: dict[str, Any], tmp_path: Path) -> None:
    """Also where a machine has a token of its own, and however often it is set up."""
    (place,) = [remote for remote, here in launcher["file_mounts"].items() if here == "~/.ray/auth_token"]
    script(tmp_path / ".ray" / "auth_token", "0" * 32)
    script(Path(place.replace("~", str(tmp_path))), "1" * 32)
    for command in [line for line in launcher["setup_commands"] if ".bashrc" in line] * 2:
        assert run("bash", "-c", command, HOME=str(tmp_path)).returncode == 0
    assert len((tmp_path / ".bashrc").read_text().splitlines()) == 2
    show = "from ray._raylet import AuthenticationTokenLoader as tokens, get_authentication_mode as mode\n"
    show += "print(tokens.instance().get_raw_token(), mode())"
    line = f"unset RAY_AUTH_MODE; source ~/.bashrc; {shlex.quote(sys.executable)} -c {shlex.quote(show)}"
    assert run("bash", "-c", line, HOME=str(tmp_path)).stdout.split() == ["1" * 32, "1"]


def test_the_launcher_stops_no_other_ray(launcher: dict[str, Any]) -> None:
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert launcher[key]  # an empty list would bring Ray's defaults back, which stop
        for command in launcher[key]:
            assert "ray stop" not in command
            assert run("bash", "-n", "-c", command).returncode == 0


@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("running", [False, True])
def test_a_node_is_started_once(launcher: dict[str, Any], tmp_path: Path, role: str, running: bool) -> None:
    ray = tmp_path / "fused_ray_env" / "bin" / "ray"
    script(ray, '#!/bin/sh\necho "$@"\n')
    script(tmp_path / "bin" / "pgrep", f"#!/bin/sh\nexit {0 if running else 1}\n")
    (command,) = launcher[f"{role}_start_ray_commands"]
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    log = tmp_path / "fused_ray_start.log"
    done = run("bash", "-c", f"set -e; {command}", HOME=str(tmp_path), PATH=path, RAY_HEAD_IP="10.0.0.1")
    assert done.returncode == 0, done.stderr
    # The tilde is left to Ray: bash expands one only at the start of a word.
    started = {
        "head": "start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml",
        "worker": "start --address=10.0.0.1:6379 --block",
    }
    deadline = time.monotonic() + 20
    while role == "worker" and not running and not (log.exists() and log.read_text()):  # it goes on by itself
        assert time.monotonic() < deadline
        time.sleep(0.02)
    said = done.stdout + (log.read_text() if log.exists() else "")
    assert said.strip() == ("" if running else started[role])


# --- KubeRay ---------------------------------------------------------------------------------------------


def manifest(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What KubeRay makes, and the volume beside it."""
    claim, found = yaml.safe_load_all((CLUSTER / f"kuberay-{name}.yaml").read_text())
    return found, claim


def cluster_of(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]["rayClusterSpec"] if found["kind"] == "RayJob" else found["spec"]
    return spec


def refusing(schema: Any) -> Any:
    """The schema with fields that it does not name refused, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [refusing(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: refusing(part) for key, part in schema.items()}
    known = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return strict | {"additionalProperties": False} if known else strict


@pytest.fixture(scope="module")
def schemas() -> dict[str, jsonschema.Draft202012Validator]:
    """By kind. A RayJob has the whole spec of a RayCluster in it."""
    job = refusing(json.loads(SCHEMA.read_text()))
    spec = job["properties"]["spec"]["properties"]["rayClusterSpec"]
    cluster = {**job, "properties": {**job["properties"], "spec": spec}}
    return {
        kind: jsonschema.Draft202012Validator(schema) for kind, schema in (("RayJob", job), ("RayCluster", cluster))
    }


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
def test_kuberay_has_every_field_of_the_manifests(
    name: str, schemas: dict[str, jsonschema.Draft202012Validator]
) -> None:
    found, _ = manifest(name)
    assert found["apiVersion"] == "ray.io/v1"
    assert [error.message for error in schemas[found["kind"]].iter_errors(found)] == []


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rayVersions",), "2.60.0", "'rayVersions' was unexpected"),
        (("workerGroupSpecs", 0, "replica"), 2, "'replica' was unexpected"),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0, "0 is not of type 'string'"),
        (("headGroupSpec", "template", "spec", "containers", 0, "imagee"), "x", "'imagee' was unexpected"),
    ],
)
def test_what_it_has_not_is_refused(
    name: str, place: tuple[Any, ...], value: Any, message: str, schemas: dict[str, jsonschema.Draft202012Validator]
) -> None:
    """So that the test above can fail."""
    found = copy.deepcopy(manifest(name)[0])
    part: Any = cluster_of(found)
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (error,) = schemas[found["kind"]].iter_errors(found)
    assert message in error.message


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
def test_the_manifests_fit_this_version_and_the_image(name: str) -> None:
    found, claim = manifest(name)
    cluster = cluster_of(found)
    assert cluster["rayVersion"] == found_in(r"^ray==(\S+)", "constraints.txt")
    workers = cluster["workerGroupSpecs"]
    for group in workers:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    cards = {group["groupName"]: "nvidia.com/gpu" in limits(group) for group in workers}
    assert cards == {"clients": False, "gpus": True}
    groups = [cluster["headGroupSpec"], *workers]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {"fused-ray:" + found_in(r'^version = "(.+)"', "pyproject.toml")}
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def limits(group: dict[str, Any]) -> dict[str, Any]:
    """What the only container of a group may use; it asks for as much."""
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    return dict(container["resources"]["limits"])


def test_the_rayjob_runs_what_the_image_holds() -> None:
    _, job, command, config, *_ = shlex.split(manifest("rayjob")[0]["spec"]["entrypoint"])
    assert command == "run"
    for path in (job, config):  # the image holds a part of the repository under /app
        assert (ROOT / Path(path).relative_to("/app")).is_file()


def test_the_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (.+)$", (CLUSTER / "Dockerfile").read_text(), re.M)
    names = [name for line in copied for name in line.split()[:-1]]
    assert "constraints.txt" in names
    kept = re.findall(r"^!(\S+)$", (CLUSTER / "Dockerfile.dockerignore").read_text(), re.M)
    for name in names:
        assert (ROOT / name).exists(), name
        assert name in kept, name


# --- linters ---------------------------------------------------------------------------------------------


def linted(linter: str, *arguments: str | Path, text: str | None = None) -> str:
    """What a linter says, of files or of a text on its standard input; nothing where all is well."""
    command = [str(Path(sys.executable).with_name(linter)), *map(str, arguments)]
    done = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


def test_shellcheck_finds_nothing_in_scripts_and_launchers(launcher: dict[str, Any]) -> None:
    assert linted("shellcheck", ".ci/run", "cluster/slurm.sh") == ""
    commands = "\n".join(command for key in sorted(launcher) if key.endswith("_commands") for command in launcher[key])
    assert "pgrep" in commands
    assert "venv" in commands
    # what is written into ~/.bashrc is for the shells to come to expand
    assert linted("shellcheck", "--shell=bash", "--exclude=SC2016", "-", text=commands) == ""
    assert "SC2086" in linted("shellcheck", "--shell=bash", "-", text="rm $1\n")


def test_hadolint_finds_nothing_in_the_image() -> None:
    assert linted("hadolint", "cluster/Dockerfile") == ""
    assert "DL3007" in linted("hadolint", "-", text="FROM python:latest\n")


# --- Slurm -----------------------------------------------------------------------------------------------


def test_the_slurm_script_runs_the_job_and_returns_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for Slurm and Ray: `srun` drops its own options, `ray` keeps what follows the `--`."""
    bin = tmp_path / ".venv" / "bin"
    script(bin / "scontrol", "#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    script(bin / "hostname", "#!/bin/sh\necho '10.0.0.1 172.17.0.1'\n")
    srun = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [ "$1" = -w ] && shift; shift; done\nexec "$@"\n'
    script(bin / "srun", srun)
    script(bin / "ray", '#!/bin/bash\necho "ray $*"\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    script(
        bin / "python",
        '#!/bin/sh\necho "python $*"\necho "joins $RAY_ADDRESS"\necho "$RAY_AUTH_MODE $RAY_AUTH_TOKEN"\nexit 2\n',
    )
    slurm = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }
    monkeypatch.delenv("RAY_AUTH_MODE")
    done = run("bash", CLUSTER / "slurm.sh", "run", "a.yaml", "--set", "forget.classes=[0]", **slurm)
    assert done.returncode == 2, done.stderr
    ray, python, joins, token = done.stdout.splitlines()
    assert ray.startswith("ray symmetric-run --address 10.0.0.1:6379 --min-nodes 2 --num-cpus=8 -- ")
    assert python == "python cluster/job.py run a.yaml --set forget.classes=[0]"
    assert joins == "joins 10.0.0.1:6379"
    assert re.fullmatch("token [0-9a-f]{32}", token)
