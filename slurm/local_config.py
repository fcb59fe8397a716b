"""The configuration files of one local cluster; their reasons stand in README.md, "Why it is configured so"."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import socket
from collections.abc import Sequence
from pathlib import Path

DBD = """AuthType=auth/munge
AuthInfo=socket=@D@/munge.sock
DbdHost=localhost
DbdPort=@DBD_PORT@
SlurmUser=@ME@
LogFile=@D@/log/slurmdbd.log
PidFile=@D@/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=@ME@
StoragePass=unused
StorageLoc=slurm_acct_db
"""
NODE = "NodeName={} NodeHostname=localhost NodeAddr=127.0.0.1 Port={} CPUs={} RealMemory={} {}State=UNKNOWN\n"


def write_configuration(folder: Path, nodes: Sequence[str], cpus: int, memory: int, gpus: int) -> None:
    """Write munge's key and slurm.conf, slurmdbd.conf, gres.conf, cgroup.conf into `folder`.

    nodes: their names. cpus, memory (MB), gpus: of each node. OSError when fewer free TCP ports than needed are found.
    """
    for name in ("log", "run", "state", "spool", "db", "dev"):
        (folder / name).mkdir(parents=True, mode=0o700, exist_ok=True)
    ctld_port, dbd_port, *node_ports = _free_ports(2 + len(nodes))
    values = {
        "@D@": str(folder),
        "@ME@": pwd.getpwuid(os.geteuid()).pw_name,
        "@CTLD_PORT@": str(ctld_port),
        "@DBD_PORT@": str(dbd_port),
        "@FIRST_JOB@": str(random.randrange(1000, 60000)),  # submitit derives MASTER_PORT from the job id
    }
    slurm = Path(__file__).with_name("local_slurm.conf").read_text()
    gres = f"Gres=gpu:{gpus} " if gpus else ""
    for node, port in zip(nodes, node_ports, strict=True):
        slurm += NODE.format(node, port, cpus, memory, gres)
    with contextlib.suppress(OSError):  # a host name that is not 127.0.0.1, or none at all, would break the start
        if socket.gethostbyname(socket.gethostname()) == "127.0.0.1":
            slurm += "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n"
    for name in ("slurmdbd.conf", "munge.key"):
        (folder / name).touch(mode=0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "slurm.conf").write_text(_fill(slurm, values))
    (folder / "slurmdbd.conf").write_text(_fill(DBD, values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "plugstack.conf").touch()
    (folder / "gres.conf").touch()
    for i in range(gpus):  # device files that exist: plain files or a bare count leave the node invalid
        (folder / "dev" / f"nvidia{i}").symlink_to("/dev/null")
        with (folder / "gres.conf").open("a") as gres_conf:
            gres_conf.write(f"Name=gpu Flags=nvidia_gpu_env File={folder}/dev/nvidia{i}\n")


def _fill(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _free_ports(count: int) -> list[int]:
    """Free TCP ports, below the kernel's ephemeral range and below submitit's MASTER_PORT (20000 to 60000)."""
    ports: list[int] = []
    for port in random.sample(range(10000, 20000), 2000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"no {count} free TCP ports between 10000 and 19999")
