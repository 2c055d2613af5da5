"""The whole NDIF on 127.0.0.1 and a CPU: redis, an object store, Ray, controller, dispatcher and API, as they ship.

    python stack_server.py HOME FOLDER    hosts the model of FOLDER; HOME is removed in the end

Says {"url": URL} once the model runs, and ends with its input, after all that it started.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import psutil
from tied import start_redis, start_tied

LOOPBACK = "127.0.0.1"
HOME, FOLDER = Path(sys.argv[1]), sys.argv[2]
PATIENCE = 300.0
"""Seconds that a part may take to get ready, on a machine that others use, too."""


def free_ports(*names: str) -> dict[str, int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in names]
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}


PORTS = free_ports("api", "redis", "store", "gcs", "client", "dashboard")
URL = f"http://{LOOPBACK}:{PORTS['api']}"
KEY = json.dumps({"repo_id": FOLDER, "revision": None, "task": "text-generation"})
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(sys.path),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes the machine's own address for 127.0.0.1, and binds it
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_TMPDIR": str(HOME),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "NDIF_REDIS_URL": f"redis://{LOOPBACK}:{PORTS['redis']}",
    "NDIF_OBJECT_STORE_URL": f"http://{LOOPBACK}:{PORTS['store']}",
    "NDIF_OBJECT_STORE_ACCESS_KEY": "local",
    "NDIF_OBJECT_STORE_SECRET_KEY": "local",
    "NDIF_RAY_ADDRESS": f"ray://{LOOPBACK}:{PORTS['client']}",
    "NDIF_CONTROLLER_IMPORT_PATH": "stack_actors.Controller",
    "NDIF_MODEL_IMPORT_PATH": "stack_actors.Model",
    "NDIF_DEPLOYMENTS": f"nnsight.modeling.transformers.TransformersModel:{KEY}",
    "NDIF_DEFAULT_DTYPE": "float32",
    "NDIF_DEFAULT_PADDING_BIAS": "0",
    "NDIF_MINIMUM_DEPLOYMENT_TIME_SECONDS": "0",
    "NDIF_AUTOSCALING_MAX_REPLICAS": "1",
    "NDIF_SANDBOX_POOL_SIZE": "1",
    "NDIF_STATUS_TTL_S": "10",  # what /status says is as old as that
}
RESOURCES = {"head": 10, "cuda_memory_bytes": 8 << 30, "cpu_memory_bytes": 8 << 30}
RAY = [
    *(f"--node-ip-address={LOOPBACK}", f"--port={PORTS['gcs']}", f"--ray-client-server-port={PORTS['client']}"),
    *("--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={PORTS['dashboard']}"),
    *("--min-worker-port=0", "--max-worker-port=0"),  # whichever is free
    *("--num-cpus=4", "--num-gpus=1", f"--resources={json.dumps(RESOURCES)}"),  # a card that no actor asks for
    *("--object-store-memory=80000000", "--disable-usage-stats"),
]
API = ["-m", "uvicorn", "ndif.services.api.app:app", "--host", LOOPBACK, "--port", str(PORTS["api"])]


def start(parts: list[subprocess.Popen[bytes]]) -> None:
    """Starts one part after the other, each once what it needs is there."""
    redis = start_redis(HOME, "--bind", LOOPBACK, "--port", str(PORTS["redis"]))
    parts.append(redis)
    store = start_tied([sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(PORTS["store"])])
    parts.append(store)
    wait(redis, lambda: listens("redis"))
    wait(store, lambda: listens("store"))
    ray = start_tied([sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *RAY])
    parts.append(ray)
    wait(ray, lambda: listens("client") and listens("dashboard"))
    controller = [sys.executable, "-m", "ndif.services.ray.deployments.controller.controller"]
    address = {"RAY_ADDRESS": f"{LOOPBACK}:{PORTS['gcs']}"}
    subprocess.run(controller, env=os.environ | address, check=True, timeout=PATIENCE)  # it stays in Ray
    parts.append(start_tied([sys.executable, "-m", "ndif.services.api.queue.dispatcher"]))
    parts.append(start_tied([sys.executable, *API, "--log-level", "warning"]))
    wait(parts[-1], hosts)


def listens(name: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, PORTS[name])) == 0


def hosts() -> bool:
    """Whether the model runs."""
    try:
        with urlopen(f"{URL}/status", timeout=10) as answer:
            found = json.load(answer)["deployments"].values()
    except OSError:  # it does not listen yet, or has not found Ray
        return False
    return any(one["application_state"] == "RUNNING" for one in found)


def wait(part: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if any(one.status() == psutil.STATUS_ZOMBIE for one in psutil.Process(part.pid).children()):
            raise RuntimeError(f"It has ended: {part.args}")
        if time.monotonic() > until:
            raise TimeoutError(f"It does not get ready: {part.args}")
        time.sleep(0.1)


def end(parts: list[subprocess.Popen[bytes]]) -> None:
    """Ends every part, the last one first, and each process of theirs by its id."""
    family = psutil.Process().children(recursive=True)
    sockets = [Path(word) for one in family for word in words(one) if word.startswith("/tmp/sbx-")]
    for part in reversed(parts):
        part.communicate()  # closes what it is tied to
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:  # a process of the sandbox that is still importing does not notice
        one.kill()
    psutil.wait_procs(alive, timeout=5)
    for one in sockets:
        one.unlink(missing_ok=True)
    shutil.rmtree(HOME, ignore_errors=True)


def words(process: psutil.Process) -> list[str]:
    """The command of a process, nothing if it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    os.environ.update(ENVIRONMENT)
    os.environ.pop("NDIF_POSTGRES_URL", None)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # tests hide all cards, and Ray would refuse its own
    parts: list[subprocess.Popen[bytes]] = []
    try:
        start(parts)
        print(json.dumps({"url": URL}), file=answers, flush=True)
        sys.stdin.read()
    finally:
        end(parts)


main()
