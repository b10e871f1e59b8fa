"""A real Slurm of one node on the loopback address: munged, slurmctld and slurmd, started by hand."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
START_S = 30.0


def why_not() -> str | None:
    """Return why there can be no Slurm here, None if there can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurmctld slurmd slurm-client munge)"
    return "slurmd must be started by root" if os.geteuid() != 0 else None


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Slurm whose state lies in `folder`, and yield the environment in which its commands find it."""
    host = socket.gethostname().split(".")[0]
    control, node = (_free_port() for _ in range(2))
    munge = _munge_folder(folder)
    config = folder / "slurm.conf"
    config.write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(config)}
    key, log = f"--key-file={munge}/key", f"--log-file={munge}/log"
    files = [f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed"]
    owner = pwd.getpwnam("munge").pw_uid
    commands = [
        (["munged", "--foreground", key, log, *files], owner),
        (["slurmctld", "-D", "-f", str(config)], 0),
        (["slurmd", "-D", "-f", str(config), "-N", host], 0),
    ]
    processes = []
    try:
        for command, user in commands:
            output = (folder / f"{command[0]}.out").open("wb")
            with output:
                processes.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment, user=user))
            if command[0] == "munged":
                _wait(lambda: (munge / "socket").exists(), "munged")
        _wait(lambda: "idle" in _out(["sinfo", "-h", "-o", "%T"], environment), "the node")
        yield environment
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _munge_folder(folder: Path) -> Path:
    """Make the folder of munge's key and socket, which only munge may write, and to which nobody may bar the way."""
    munge = folder / "munge"
    munge.mkdir()
    (munge / "key").write_bytes(secrets.token_bytes(128))
    (munge / "key").chmod(0o400)
    owner = pwd.getpwnam("munge")
    for path in (munge, munge / "key"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    munge.chmod(0o755)
    return munge


def _out(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout


def _wait(condition: Callable[[], object], what: str) -> None:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > START_S:
            raise AssertionError(f"{what} did not start")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
