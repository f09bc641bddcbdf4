"""The files in cluster/, as far as they can be checked without a cluster."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"


def found(pattern: str, name: str) -> str:
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


# --- the cluster launcher --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    loaded = yaml.safe_load((CLUSTER / "local.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_ray_accepts_the_launcher_file(launcher: dict[str, Any]) -> None:
    # Private to Ray, and only here: there is no public way to validate without starting machines.
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))


def test_ray_refuses_a_wrong_launcher_file(launcher: dict[str, Any]) -> None:
    """So that the test above can fail."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="head_start_rays"):
        validate_config(prepare_config({**launcher, "head_start_rays": []}))


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
    done = run("bash", "-c", command, HOME=str(tmp_path), PATH=path, RAY_HEAD_IP="10.0.0.1")
    assert done.returncode == 0, done.stderr
    # The tilde is left to Ray: bash expands one only at the start of a word.
    started = {
        "head": "start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml",
        "worker": "start --address=10.0.0.1:6379",
    }
    assert done.stdout.strip() == ("" if running else started[role])


# --- KubeRay ---------------------------------------------------------------------------------------------

# The fields of ray.io/v1 that a file for this project may reasonably use.
JOB_FIELDS = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata"),
    *("rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"),
    *("submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}
CLUSTER_FIELDS = {
    *("autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
    *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs"),
}
HEAD_FIELDS = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKER_FIELDS = {
    *("groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"),
    *("replicas", "scaleStrategy", "suspend", "template"),
}
CONTAINER_FIELDS = {"env", "image", "imagePullPolicy", "name", "ports", "resources", "volumeMounts"}


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((CLUSTER / "kuberay-rayjob.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def test_the_rayjob_uses_only_known_fields(manifests: dict[str, Any]) -> None:
    job = manifests["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert set(spec) <= JOB_FIELDS
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert set(cluster) <= CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) <= HEAD_FIELDS
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # the API takes strings only
        for container in group["template"]["spec"]["containers"]:
            assert set(container) <= CONTAINER_FIELDS


def test_the_rayjob_fits_this_version_and_the_image(manifests: dict[str, Any]) -> None:
    spec = manifests["RayJob"]["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == found(r"^ray==(\S+)", "constraints.txt")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {"fused-ray:" + found(r'^version = "(.+)"', "pyproject.toml")}
    _, job, command, config, *_ = shlex.split(spec["entrypoint"])
    assert command == "run"
    for path in (job, config):  # the image holds a part of the repository under /app
        assert (ROOT / Path(path).relative_to("/app")).is_file()
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    claim = manifests["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim


def test_the_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (.+)$", (CLUSTER / "Dockerfile").read_text(), re.M)
    names = [name for line in copied for name in line.split()[:-1]]
    assert "constraints.txt" in names
    kept = re.findall(r"^!(\S+)$", (CLUSTER / "Dockerfile.dockerignore").read_text(), re.M)
    for name in names:
        assert (ROOT / name).exists(), name
        assert name in kept, name


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
