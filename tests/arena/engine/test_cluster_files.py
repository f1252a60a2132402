"""The files of CLUSTER.md for SLURM and Kubernetes are what these take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.config
import pytest
import yaml
from dask_cluster import Cluster

import arena.engine

FILES = Path(arena.engine.__path__[0]) / "clusters"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dask_jobqueue_makes_a_job_of_slurm(tmp_path: Path) -> None:
    from dask_jobqueue.slurm import SLURMJob

    ours = yaml.safe_load((FILES / "jobqueue.yaml").read_text(encoding="utf-8"))
    with dask.config.set(dask.config.merge(dask.config.config, ours)):  # as dask reads its folder of settings
        script = SLURMJob("tls://here:8786", name="arena", protocol="tls://").job_script()
    (tmp_path / "job.sh").write_text(script, encoding="utf-8")
    subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)
    lines = script.splitlines()
    assert {"#SBATCH -J arena", "#SBATCH -p cpu", "#SBATCH --cpus-per-task=16", "#SBATCH --mem=60G"} <= set(lines)
    (command,) = (line for line in lines if "dask_worker" in line)
    assert "tls://here:8786" in command and "--nthreads 16" in command and "--resources CPU=16" in command
    assert "--local-directory ${TMPDIR:-/tmp} " in command  # is expanded on the machine of the job


def test_the_worker_of_slurm_joins_with_what_it_has_and_leaves_nothing(tmp_path: Path) -> None:
    from distributed import Client

    script, scratch = FILES / "slurm-worker.sh", tmp_path / "scratch"
    scratch.mkdir()
    cluster = Cluster(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(script), cluster.address, "GPU=1"]
    job = subprocess.Popen(command, env={**os.environ, "PATH": path, "TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL)
    try:
        with Client(cluster.address, timeout=30) as client:
            client.wait_for_workers(1, timeout=90)
            (worker,) = client.scheduler_info()["workers"].values()
            assert worker["resources"] == {"GPU": 1} and worker["nthreads"] == 1
            assert worker["local_directory"].startswith(str(scratch))
            job.send_signal(signal.SIGTERM)
            assert job.wait(60) == 0 and not list(scratch.iterdir())
    finally:
        job.kill()
        cluster.stop()
    without = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert without.returncode and "usage: slurm-worker.sh tls://SCHEDULER:8786" in without.stderr


def documents() -> dict[str, Any]:
    text = (FILES / "kubernetes.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def unknown(value: Any, kind: str, where: str = "") -> list[str]:
    """Fields of a value that the type of Kubernetes of that name, as its client has it, does not know."""
    from kubernetes import client

    if kind.startswith("list["):
        return [u for n, each in enumerate(value) for u in unknown(each, kind[5:-1], f"{where}[{n}]")]
    model = getattr(client, kind, None)
    if model is None or not isinstance(value, dict):
        return []
    types = {name: model.openapi_types[own] for own, name in model.attribute_map.items()}
    wrong = [f"{where}.{name}" for name in value.keys() - types.keys()]
    return wrong + [
        u for name in value.keys() & types.keys() for u in unknown(value[name], types[name], f"{where}.{name}")
    ]


def test_kubernetes_knows_every_field() -> None:
    from dask_kubernetes.operator.controller import controller

    found = documents()
    assert unknown({"spec": {"kontainers": []}}, "V1Pod") == [".spec.kontainers"]
    cluster, group = found["DaskCluster"]["spec"], found["DaskWorkerGroup"]["spec"]
    name, labels = found["DaskCluster"]["metadata"]["name"], dict[str, str]()
    deployments = [
        controller.build_scheduler_deployment_spec(name, cluster["scheduler"]["spec"], {}, labels),
        controller.build_worker_deployment_spec(name, "default", name, "1", cluster["worker"]["spec"], {}, labels),
        controller.build_worker_deployment_spec(
            "gpu", "default", group["cluster"], "2", group["worker"]["spec"], {}, labels
        ),
    ]
    service = controller.build_scheduler_service_spec(name, cluster["scheduler"]["service"], {}, labels)
    assert [unknown(one, "V1Deployment") for one in deployments] == [[], [], []]
    assert unknown(service, "V1Service") == [] == unknown(found["Job"], "V1Job")
    assert unknown(found["NetworkPolicy"], "V1NetworkPolicy") == [] and len(found) == 4
    address = f"tls://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    clients = [*deployments[1:], found["Job"]]
    for pod in (one["spec"]["template"]["spec"] for one in clients):
        (container,) = pod["containers"]
        assert address in container["args"]
        files = {variable["value"] for variable in container["env"] if "TLS" in variable["name"]}
        assert files == {"/tls/arena.crt", "/tls/arena.key"}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    pods = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
    assert all(pods <= one["spec"]["template"]["metadata"]["labels"].items() for one in [*deployments, found["Job"]])
