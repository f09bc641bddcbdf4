"""`ray up`, `ray submit`, `ray rsync-down` and `ray down` as cluster/README.md says, from one machine to three others.

The machines are namespaces (tests/cluster/machines.py) without a way out: what they install comes from a folder of
wheels. All but the first test belong together, in this order; run with -s they tell what happened and when.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fused_ray import RunConfig, run
from tests.cluster.machines import HOME, PREFIX, Machine, Network, missing, network, reachable
from tests.cluster.wheels import needed, wheels
from tests.docs.blocks import blocks
from tests.processes import start

ROOT = Path(__file__).parents[2]
NAMES = ("submitter", "head", "one", "two")
COPIED = ("fused_ray", "examples", "cluster", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE")
LESS = ("retrain.rounds=0", "audit.enabled=false", "output.plots=none")
RAYLET = "raylet/raylet "
OURS = f"{HOME}/fused_ray_env/"
"""What the command lines of the cluster's processes have in them."""
STATUS = "ray exec cluster/local.yaml 'fused_ray_env/bin/ray status'"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def documented() -> dict[str, str]:
    """The commands of the README's block by their names: `export`, `up`, `submit` and so on."""
    (block,) = (block for block in blocks("cluster/README.md") if block.text.startswith("export RAY_UP"))
    lines = block.text.replace("\\\n", " ").splitlines()
    return {line.split()[line.startswith("ray ")]: line.partition("  #")[0] for line in lines}


@dataclass
class Site:
    """The machines, and the place from which the cluster is used."""

    net: Network
    submitter: Machine
    head: Machine
    workers: list[Machine]
    commands: dict[str, str]
    began: float = field(default_factory=time.monotonic)

    def say(self, *words: object) -> None:
        print(f"[{time.monotonic() - self.began:5.0f} s]", *words, flush=True)

    def run(self, command: str, timeout: float = 120) -> str:
        """At the submitter, told with the seconds that it took."""
        started = time.monotonic()
        said = self.submitter.run(command, timeout)
        self.say(f"{command} ({time.monotonic() - started:.0f} s)")
        return said

    def until(self, true: Callable[[], bool], seconds: float, every: float = 0.1) -> float:
        """The seconds until it is true. Raises AssertionError where that takes too long."""
        started = time.monotonic()
        while not true():
            assert time.monotonic() < started + seconds, f"not within {seconds} s: {true}"
            time.sleep(every)
        return time.monotonic() - started

    def all_there(self) -> bool:
        return f"{len(self.workers) + 1} local.cluster.node" in self.submitter.run(STATUS, 120)

    def has_new_files(self, machine: Machine) -> bool:
        new = self.submitter.home / "fused_ray" / "README.md"
        return (machine.home / "fused_ray_src" / "README.md").read_text() == new.read_text()

    def submit(self, name: str) -> str:
        """The README's command for a smaller run into another folder."""
        return self.commands["submit"].replace("fused_ray_runs/demo", f"fused_ray_runs/{name}") + "".join(
            f" --set {setting}" for setting in LESS
        )

    def rounds(self, name: str) -> int:
        return len(list((self.head.home / "fused_ray_runs" / name / "rounds.parquet").glob("*-pretrain-*")))

    def result(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.head.home / "fused_ray_runs" / name / "result.json").read_text())
        return found

    def run_with_a_cut(self, name: str, worker: Machine, seconds: float) -> str:
        """What `ray submit` printed of a run in which a worker's link was cut after the second round."""
        running = self.submitter.start(self.submit(name))
        self.until(lambda: self.rounds(name) >= 2 or running.poll() is not None, 200)
        assert running.poll() is None, running.communicate()[0]
        self.net.cut(worker)
        done = self.rounds(name)
        self.say(f"{name}: {worker.name} is cut off after {done} rounds")
        time.sleep(seconds)
        self.say(f"{name}: {worker.name} is back after {seconds:g} s, in which {self.rounds(name) - done} rounds ended")
        self.net.mend(worker)
        said, _ = running.communicate(timeout=400)
        assert running.returncode == 0, said
        self.say(f"{name}: over, after {self.result(name)['wall_seconds']:.0f} s")
        return said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The machines with sshd and nothing of Ray, and a copy of the repository with its cluster/local.yaml filled in."""
    if reason := missing():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("machines")
    folder = wheels({*needed("fused-ray"), "pip", "setuptools"} - {"fused-ray"}, place / "wheels")
    hosts = "".join(f"{PREFIX}.{number} {name}\n" for number, name in enumerate(NAMES, 1))
    try:
        with network(place) as net:
            submitter, *others = (net.add(name, number, folder, hosts) for number, name in enumerate(NAMES, 1))
            submitter.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
            for machine in others:
                reachable(machine, submitter)
            here, commands = submitter.home / "fused_ray", documented()
            here.mkdir()
            for name in COPIED:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, here / name)
            capitals = {
                "HEAD_IP": others[0].address,
                "WORKER_IP_1": others[1].address,
                "WORKER_IP_2": others[2].address,
            }
            capitals |= {"SSH_USER": "root", "# ssh_private_key": "ssh_private_key"}
            text = (here / "cluster" / "local.yaml").read_text()
            for capital, value in capitals.items():
                text = re.sub(rf"(?<![$\w]){capital}\b", value, text)
            (here / "cluster" / "local.yaml").write_text(text)
            shell = f"export PATH={sys.prefix}/bin:$PATH\n{commands['export']}\ncd {HOME}/fused_ray\n"
            (submitter.home / ".bashrc").write_text(shell)
            yield Site(net, submitter, others[0], others[1:], commands)
    finally:
        shutil.rmtree(place)  # gigabytes


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of the same run in one process."""
    demo = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())
    path = tmp_path_factory.mktemp("local") / "run"
    found = run(RunConfig.from_dict(demo, [*LESS, "engine.backend=local", f"output.dir={path}"]))
    return dict(found["hash"])


ALONE = """
import sys, time
from pathlib import Path
from tests.cluster.machines import network
place = Path(sys.argv[1])
with network(place) as net:
    machine = net.add("alone", 9, place, "")
    machine.run("setsid --fork sleep 4321 < /dev/null > /dev/null 2>&1")
    print(*machine.processes("sleep 4321"), flush=True)
    time.sleep(600)
"""


def test_a_machine_goes_with_who_made_it_even_if_killed(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    maker = start([sys.executable, "-c", ALONE, str(tmp_path)], cwd=ROOT)
    assert maker.stdout is not None
    (inside,) = map(int, maker.stdout.readline().split())
    assert psutil.pid_exists(inside)
    maker.kill()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(inside):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    maker.communicate()


def test_the_main_job_spans_the_machines_and_its_results_come_back(site: Site, expected: dict[str, str]) -> None:
    site.run(site.commands["get-auth-token"])
    site.run(site.commands["up"], 900)
    site.say(f"all nodes are there {site.until(site.all_there, 900, every=5):.0f} s after the head")
    said = site.run(site.commands["submit"], 600)
    print(said[said.index("note:") :])
    site.run(site.commands["rsync-down"])
    found = json.loads((site.submitter.home / "fused_ray" / "runs" / "demo" / "result.json").read_text())
    assert found["hash"] == expected
    site.say("same hash as in one process:", expected["unlearned"])
    assert found["verdict"] == "forgotten"
    assert found["placement"]["nodes"] == 3
    site.say("placement:", [(worker["node"][:8], worker["actors"]) for worker in found["placement"]["workers"]])


def test_what_runs_already_is_left_as_it_is(site: Site) -> None:
    """By `ray up` with newer files, which reach the head alone, and by what starts Ray on a worker."""
    machines = [site.head, *site.workers]
    before = [machine.processes(RAYLET) for machine in machines]
    assert [len(found) for found in before] == [1, 1, 1]
    with (site.submitter.home / "fused_ray" / "README.md").open("a") as readme:
        readme.write("One more line.\n")
    site.run(site.commands["up"], 600)
    assert [site.has_new_files(machine) for machine in machines] == [True, False, False]
    (command,) = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())["worker_start_ray_commands"]
    for worker in site.workers:
        worker.run(f"export RAY_HEAD_IP={site.head.address}; {command}")
    assert [machine.processes(RAYLET) for machine in machines] == before


def test_nothing_is_lost_where_a_link_is_cut_for_5_seconds(site: Site, expected: dict[str, str]) -> None:
    nodes = [machine.processes(RAYLET) for machine in site.workers]
    site.run_with_a_cut("five", site.workers[0], 5)
    found = site.result("five")
    assert found["hash"] == expected
    assert (found["failures"], found["retries"], found["placement"]["nodes"]) == (0, 0, 3)
    assert [machine.processes(RAYLET) for machine in site.workers] == nodes


def test_a_node_cut_off_for_60_seconds_is_dead_its_clients_move_and_it_comes_back(
    site: Site, expected: dict[str, str]
) -> None:
    lost = site.workers[0]
    (node,) = lost.processes(RAYLET)
    said = site.run_with_a_cut("sixty", lost, 60)
    told = " ".join(said.split())
    dead = re.search(rf"The node with node id: \w+ and address: {lost.address} .*? has been marked dead", told)
    assert dead, said
    site.say(dead[0])
    found = site.result("sixty")
    assert found["hash"] == expected
    assert found["failures"] == 0
    assert found["retries"] > 0
    site.say("retries:", found["retries"], "placement:", found["placement"]["workers"])
    again = site.until(lambda: bool(lost.processes(RAYLET) - {node}) and site.all_there(), 300, every=5)
    site.say(f"all nodes are there again, {again:.0f} s after the run")


def down(site: Site) -> None:
    """`ray down`, until no process of the cluster is left."""
    site.run(site.commands["down"], 300)
    machines = [site.head, *site.workers]
    took = site.until(lambda: not any(machine.processes(OURS) for machine in machines), 200, every=1)
    site.say(f"no process of the cluster is left {took:.0f} s later")


def test_ray_down_ends_the_cluster_and_nobody_elses_ray(site: Site) -> None:
    """Somebody else's runs where the command is given."""
    site.run("RAY_AUTH_MODE=disabled ray start --head --port=6390 --num-cpus=1 --object-store-memory=100000000")
    others = site.submitter.processes(RAYLET) | site.submitter.processes("gcs_server")
    assert len(others) == 2
    down(site)
    assert site.submitter.processes(RAYLET) | site.submitter.processes("gcs_server") == others


def test_ray_up_after_that_brings_new_files_to_all(site: Site) -> None:
    site.run(site.commands["up"], 900)
    site.say(f"all nodes are there {site.until(site.all_there, 900, every=5):.0f} s after the head")
    assert all(map(site.has_new_files, [site.head, *site.workers]))
    down(site)
