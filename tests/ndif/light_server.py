"""The NDIF server without Ray's cluster, on 127.0.0.1 and a CPU.

Left out is scheduling: the models are loaded at once, and one job runs at a time, in this process. Everything that a
client can see is NDIF's own (HTTP, websocket, statuses, results, versions, errors), and so is what runs its code
(`BaseModelDeployment` here, `SandboxModelDeployment` in a process of its own).

    python light_server.py HOME    answers every line of its input with one line, and ends with it; HOME is removed

Lines are JSON: {"host": FOLDER, "dtype": NAME}, {"trusts": BOOL} (False: every request runs in the sandbox),
{"outline": BOOL} (whether the sandbox has an outline of the model), {"timeout": SECONDS}. The first answer,
{"url": URL}, comes by itself. Whoever started this process and is killed closes its input, so it ends too; what this
process started ends with it in the same way.
"""

import asyncio
import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path
from threading import Thread
from typing import Any

from tied import start_redis

LOOPBACK = "127.0.0.1"
HOME = Path(sys.argv[1])
RUNNER = Path(__file__).with_name("sandbox_runner.py")
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer


def start_object_store() -> str:
    """Results that do not fit into an answer, over HTTP as from S3."""
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    store.start()
    return f"http://{LOOPBACK}:{store.get_host_and_port()[1]}"


redis = start_redis(HOME, "--port", "0", "--unixsocket", str(HOME / "redis.sock"))  # no port to find
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NDIF_REDIS_URL": f"unix://{HOME / 'redis.sock'}",
    "NDIF_OBJECT_STORE_URL": start_object_store(),
    "NDIF_OBJECT_STORE_ACCESS_KEY": "local",
    "NDIF_OBJECT_STORE_SECRET_KEY": "local",
}
os.environ.pop("NDIF_POSTGRES_URL", None)

import psutil  # noqa: E402 (NDIF reads the environment when it is imported)
import ray  # noqa: E402 (imported by NDIF, never started)
import torch  # noqa: E402
import uvicorn  # noqa: E402
from anyio.abc import SocketAttribute  # noqa: E402, F401 (it fails once nnsight has given every object a `save`)
from ndif.common.providers.redis import RedisProvider  # noqa: E402
from ndif.common.redis import ENV_KEY, STATUS_KEY  # noqa: E402
from ndif.common.schema import Status  # noqa: E402
from ndif.services.api.app import app  # noqa: E402
from ndif.services.api.queue.config import CONFIG  # noqa: E402
from ndif.services.ray.deployments.controller.controller import _ControllerActor  # noqa: E402
from ndif.services.ray.sandbox.host import Sandbox  # noqa: E402
from ndif.services.ray.sandbox.model import SandboxModelDeployment  # noqa: E402
from nnsight.modeling.huggingface import HuggingFaceModel  # noqa: E402

torch.set_num_threads(1)
torch.cuda.synchronize = lambda *_args, **_kwargs: None
ray.get_runtime_context = lambda: None


class Forks:
    """NDIF's pool of processes for its sandbox: each is forked when it is needed, see sandbox_runner.py."""

    origin: subprocess.Popen[str] | None = None
    outline = True

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key

    def acquire(self) -> Sandbox:
        if Forks.origin is None:
            command = [sys.executable, str(RUNNER), str(os.getpid())]
            Forks.origin = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        path = f"{HOME}/{uuid.uuid4().hex[:12]}.sock"
        wanted = {"path": path, "model": self.model_key, "outline": self.outline}
        assert Forks.origin.stdin is not None
        assert Forks.origin.stdout is not None
        print(json.dumps(wanted), file=Forks.origin.stdin, flush=True)
        fork = Fork(path, psutil.Process(int(Forks.origin.stdout.readline())))
        while not fork.is_ready():
            time.sleep(0.01)
        return fork


class Fork(Sandbox):
    """A process of the sandbox, which is no child of this one."""

    def is_ready(self) -> bool:
        try:
            self.connection().close()
        except OSError:
            if self.process.is_running():
                return False
            raise RuntimeError("runner process exited before its socket was ready") from None
        return True

    def stop(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
            self.process.wait()
        Path(self.path).unlink(missing_ok=True)


class Deployment(SandboxModelDeployment):
    """A model on the CPU."""

    def load_from_disk(self) -> Any:
        model = HuggingFaceModel.from_model_key(
            self.model_key, dispatch=True, dtype=self.dtype_name, device="cpu", **self.kwargs
        )
        model._module.eval().requires_grad_(False)
        return model

    def open_pool(self, pool_size: int | None = None, peers: int = 1) -> None:
        self.pool = Forks(self.model_key)
        self.execution_sandbox = None

    def restart(self) -> None:
        raise SystemExit("the deployment wants to start again")


class Light:
    """The models that are hosted, their requests, and whether those are trusted."""

    def __init__(self) -> None:
        self.deployments: dict[str, Deployment] = {}
        self.trusts, self.outline, self.timeout = True, True, None
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()

    async def obey(self, order: dict[str, Any]) -> None:
        if "host" in order:
            self.load(order["host"], order["dtype"])
        self.trusts = order.get("trusts", self.trusts)
        self.outline = order.get("outline", self.outline)
        self.timeout = order.get("timeout", self.timeout)
        await RedisProvider.async_client.set(STATUS_KEY, json.dumps({"deployments": self.status(), "cluster": {}}))

    def load(self, folder: str, dtype: str) -> None:
        key = json.dumps({"repo_id": folder, "revision": None, "task": "text-generation"})
        key = f"nnsight.modeling.transformers.TransformersModel:{key}"
        self.deployments[key] = Deployment(key, dtype=dtype, trust_remote_code=False)

    def status(self) -> dict[str, Any]:
        return {
            f"light-{number}": {
                "deployment_level": "HOT",
                "application_state": "RUNNING",
                "model_key": key,
                "replica_id": f"light-{number}",
                **json.loads(key.split(":", 1)[1]),
                "dtype": one.dtype_name,
                "execution_timeout_seconds": self.timeout,
                "config": one.model._module.config.to_json_string(),
            }
            for number, (key, one) in enumerate(self.deployments.items())
        }

    async def receive(self) -> None:
        """Every request is told its place in the queue, as NDIF's dispatcher does."""
        while True:
            if found := await RedisProvider.async_bytes_client.brpop(CONFIG.queue_key, timeout=1):
                request = pickle.loads(found[1])
                await request.arespond(Status.QUEUED, f"Added to Queue at position {self.waiting.qsize() + 1}.")
                await self.waiting.put(request)

    async def work(self) -> None:
        while True:
            request = await self.waiting.get()
            deployment = self.deployments.get(request.model_key)
            if deployment is None:
                await request.arespond(Status.ERROR, f"Could not deploy {request.model_key}: it is not hosted here.")
                continue
            request.trusted = request.trusted and self.trusts
            deployment.execution_timeout = self.timeout
            Forks.outline = self.outline
            await request.arespond(Status.DISPATCHED, "Your job has been sent to the model deployment.")
            await deployment.run(request)

    def close(self) -> None:
        """Ends every process of the sandboxes."""
        if Forks.origin is not None:
            runners = [Forks.origin, *psutil.Process(Forks.origin.pid).children()]
            for one in runners:
                one.kill()
            psutil.wait_procs(runners, timeout=5)


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals end this process in their own order, below."""


async def main() -> None:
    while not RedisProvider.connected():
        await asyncio.sleep(0.02)
    light, over, loop = Light(), asyncio.Event(), asyncio.get_running_loop()
    await RedisProvider.async_client.set(ENV_KEY, json.dumps(_ControllerActor.env(None)))
    await RedisProvider.async_client.set("ray:connected", "1")
    await light.obey({})
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, over.set)
    listening = socket.create_server((LOOPBACK, 0))
    server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    tasks = [asyncio.create_task(one) for one in (server.serve([listening]), light.receive(), light.work())]
    while not server.started:
        await asyncio.sleep(0.02)
    answer({"url": f"http://{LOOPBACK}:{listening.getsockname()[1]}"})
    Thread(target=obey_lines, args=(light, loop, over), daemon=True).start()
    tasks.append(asyncio.create_task(over.wait()))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    for one in tasks[1:]:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    light.close()
    end()


def obey_lines(light: Light, loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    for line in sys.stdin:
        try:
            asyncio.run_coroutine_threadsafe(light.obey(json.loads(line)), loop).result()
            answer({})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})
    loop.call_soon_threadsafe(over.set)


def answer(what: dict[str, Any]) -> None:
    print(json.dumps(what), file=ANSWERS, flush=True)


def end(status: int = 0) -> None:
    assert redis.stdin is not None
    redis.stdin.close()
    redis.wait()
    shutil.rmtree(HOME, ignore_errors=True)
    os._exit(status)  # a job that never ends runs in a thread, which Python would wait for


try:
    asyncio.run(main())
except BaseException:
    traceback.print_exc()
    end(1)
