"""Machines in this one, on a network of their own: namespaces of Linux.

Each machine has its own network, processes, mounts, host name, home, /tmp, /run and /dev/shm, an address and an sshd.
What it shares is the kernel, the cores, and the rest of the disk. A machine lasts as long as its first process, which
waits for the end of its standard input; that ends at the latest with the process that made the machine, and the kernel
then ends whatever runs in there and takes the mounts and the network away. So nothing is left, however a test ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

HOME = "/mnt"  # a place that every Linux has to mount on
PREFIX = "10.77.0"
GATEWAY = f"{PREFIX}.254"
UNSHARE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--mount-proc")
TOOLS = ("unshare", "nsenter", "mount", "ip", "/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync", "pgrep")
WAIT = "echo ready; read -r _ || true"
"""How a first process ends: with its standard input. bash meanwhile takes in the ends of orphans."""

MACHINE = f"""
hostname "$NAME"
mount --bind "$PLACE/home" {HOME}
mount --bind -o ro "$WHEELS" {HOME}/wheels
mount --bind "$PLACE/passwd" /etc/passwd
mount --bind "$PLACE/hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir /run/sshd
{WAIT}
"""
SWITCH = f"""
ip link add lan type bridge
ip addr add {GATEWAY}/24 dev lan
ip link set lan up
{WAIT}
"""
SSHD = """
HostKey {home}/.ssh/id_ed25519
AuthorizedKeysFile {home}/.ssh/authorized_keys
UsePAM no
PidFile none
"""
PIP = "[global]\nno-index = true\nfind-links = {home}/wheels\nno-compile = true\ndisable-pip-version-check = true\n"


def missing() -> str | None:
    """Why there can be no such machines here; None if there can."""
    lacking = [Path(tool).name for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"needs {', '.join(lacking)} (Debian: openssh-server openssh-client iproute2 rsync procps)"
    if any(Path(prefix).is_relative_to("/tmp") for prefix in (sys.prefix, sys.base_prefix)):
        return "Python or the environment lies in /tmp, of which each machine has its own"
    made = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True)
    return f"namespaces are not allowed here: {made.stderr.strip()}" if made.returncode else None


@contextmanager
def first_process(command: Sequence[str], script: str, **variables: str) -> Iterator[psutil.Process]:
    """The process in the new namespaces, once the script there is ready."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, **variables}
    with subprocess.Popen([*command, "bash", "-euc", script], **pipes, env=environment, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n", f"{command} failed"
        outer = psutil.Process(started.pid)
        yield next(iter(outer.children()), outer)  # the end of the block ends its input


@dataclass(frozen=True)
class Machine:
    name: str
    address: str
    place: Path
    """Its folder out here; its home is in there."""
    first: psutil.Process

    @property
    def home(self) -> Path:
        return self.place / "home"

    def start(self, command: str) -> subprocess.Popen[str]:
        """A command of bash there, in the home folder and as somebody who has logged in."""
        inside = ("nsenter", f"--target={self.first.pid}", "--all", f"--wd={HOME}")
        shell = ("env", "-i", f"HOME={HOME}", "USER=root", "TERM=dumb", "bash", "--login", "-c")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*inside, *shell, f". ~/.bashrc; {command}"], **pipes, text=True)

    def run(self, command: str, timeout: float = 60) -> str:
        """What it printed, errors among it. Raises AssertionError unless it ended well and in time (seconds)."""
        process = self.start(command)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{self.name}: {command}: not done after {timeout} s") from None
        assert process.returncode == 0, f"{self.name}: {command}: {process.returncode}\n{said}"
        return said

    def processes(self, words: str) -> set[int]:
        """The processes there whose command line has these words, by their numbers out here."""
        space = os.readlink(f"/proc/{self.first.pid}/ns/pid")
        found = set()
        for process in psutil.process_iter(["cmdline"]):
            try:
                if (
                    words in " ".join(process.info["cmdline"] or [])
                    and os.readlink(f"/proc/{process.pid}/ns/pid") == space
                ):
                    found.add(process.pid)
            except (psutil.Error, OSError):
                continue  # gone meanwhile
        return found


@dataclass
class Network:
    """A switch, and what is plugged in."""

    place: Path
    switch: psutil.Process
    stack: ExitStack

    def add(self, name: str, number: int, wheels: Path, names: str) -> Machine:
        """A machine with the last part of its address, and the network's names."""
        place = self.place / name
        (place / "home" / "wheels").mkdir(parents=True)
        (place / "passwd").write_text(
            f"root:*:0:0:root:{HOME}:/bin/bash\nsshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (place / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        about = {"NAME": name, "PLACE": str(place), "WHEELS": str(wheels)}
        first = self.stack.enter_context(first_process(UNSHARE, MACHINE, **about))
        machine = Machine(name, f"{PREFIX}.{number}", place, first)
        self._plug_in(machine)
        return machine

    def _plug_in(self, machine: Machine) -> None:
        self.link(f"add {machine.name} type veth peer name eth0 netns {machine.first.pid}")
        self.link(f"set {machine.name} master lan up")
        (machine.home / ".bashrc").write_text(f"export PATH={sys.base_prefix}/bin:$PATH\n")
        for command in ("link set lo up", f"addr add {machine.address}/24 dev eth0", "link set eth0 up"):
            machine.run(f"ip {command}")
        machine.run(f"ip route add default via {GATEWAY}")

    def link(self, what: str) -> None:
        """`ip link` at the switch."""
        subprocess.run(
            ["nsenter", f"--target={self.switch.pid}", "--net", "ip", "link", *shlex.split(what)], check=True
        )

    def cut(self, machine: Machine) -> None:
        """Pull its cable."""
        self.link(f"set {machine.name} down")

    def mend(self, machine: Machine) -> None:
        self.link(f"set {machine.name} up")


@contextmanager
def network(place: Path) -> Iterator[Network]:
    """A switch without machines; at the end all machines go, the last one first."""
    with ExitStack() as stack:
        switch = stack.enter_context(first_process(("unshare", "--net"), SWITCH))
        yield Network(place, switch, stack)


def reachable(machine: Machine, by: Machine) -> None:
    """Start the machine's sshd, with pip looking for wheels in a folder and nowhere else, and let somebody in."""
    pip = machine.home / ".config" / "pip" / "pip.conf"
    pip.parent.mkdir(parents=True)
    pip.write_text(PIP.format(home=HOME))
    keys = machine.home / ".ssh"
    if not keys.exists():
        machine.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    shutil.copy(by.home / ".ssh" / "id_ed25519.pub", keys / "authorized_keys")
    (machine.home / "sshd_config").write_text(SSHD.format(home=HOME))
    machine.run("/usr/sbin/sshd -f ~/sshd_config -E ~/sshd.log")
