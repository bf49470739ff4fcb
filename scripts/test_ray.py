"""`candlewick.ray` on a cluster of three nodes that are processes of this machine: `make test-ray` runs it with pytest.

One of the nodes is killed in the middle of a data set, and the server is asked by the official client.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy

from candlewick import Generator
from candlewick.ray import Predictor, deployment
from candlewick.server import Limits

# By a thread, because a signal does not get through to Ray where it waits for a process that does not come.
pytestmark = pytest.mark.timeout(300, method="thread")

N_ROWS = 300
MESSAGES = [{"role": "user", "content": "Write a haiku about rain"}]


@pytest.fixture(scope="module")
def demo() -> Iterator[Generator]:
    with Generator("demo", n_threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of two CPUs each."""
    node: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100_000_000}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(**node)
        made.wait_for_nodes()
        ray.init(made.address, logging_level="error", log_to_driver=False)
        yield made
    finally:
        serve.shutdown()
        ray.shutdown()
        made.shutdown()


class Witness(Predictor):
    """Says which node computed a row. On one node it does not come back from its third batch; on the others it waits
    with its sixth until that node is gone.

    Args:
        folder: Where word is left: ``doomed`` has the node's name; ``waits-`` and a name, ``gone``.
    """

    def __init__(self, folder: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._folder = Path(folder)
        self._node = ray.get_runtime_context().get_node_id()
        self._n_batches = 0

    def __call__(self, batch: Any) -> Any:
        answer = super().__call__(batch)
        self._n_batches += 1
        doomed = (self._folder / "doomed").read_text() == self._node
        if self._n_batches == (3 if doomed else 6):
            # This batch is computed, but nobody knows yet.
            (self._folder / f"waits-{self._node}").touch()
            while doomed or not (self._folder / "gone").exists():
                time.sleep(0.01)
        return {**answer, "node": [self._node] * len(answer["text"])}


def test_a_node_that_is_killed_loses_no_row(cluster: Cluster, tmp_path: Path) -> None:
    doomed = next(iter(cluster.worker_nodes))
    (tmp_path / "doomed").write_text(doomed.node_id)
    rows = [{"id": i, "prompt": f"Write a haiku about {i}"} for i in range(N_ROWS)]
    answers = iter(
        ray.data.from_items(rows, override_num_blocks=30)
        .map_batches(
            Witness,
            fn_constructor_kwargs={"folder": str(tmp_path), "model": "demo", "max_tokens": 40},
            batch_size=10,
            num_cpus=1,
            compute=ActorPoolStrategy(size=3),
        )
        .iter_rows()
    )
    got = [next(answers)]
    # 120 rows are done then, and 30 are computed.
    while len(list(tmp_path.glob("waits-*"))) < 3:
        time.sleep(0.01)
    cluster.remove_node(doomed, allow_graceful=False)
    (tmp_path / "gone").touch()
    got.extend(answers)

    assert sorted(row["id"] for row in got) == list(range(N_ROWS))
    alone = Predictor("demo", max_tokens=40, columns={"text": "text"})
    for row in got:
        assert row["prompt"] == rows[row["id"]]["prompt"]
        assert [row["text"]] == list(alone({"prompt": np.array([row["prompt"]])})["text"])
    nodes = Counter(row["node"] for row in got)
    # What it had done before counts, and its third batch came from another.
    assert nodes[doomed.node_id] == 20 and len(nodes) == 3


@pytest.fixture(scope="module")
def url(cluster: Cluster) -> str:
    """Where the server is: one replica, and a second one when there is more to do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    application = deployment(
        "demo",
        api_keys=["secret"],
        limits=Limits(max_running=16),
        ray_actor_options={"num_cpus": 1},
        autoscaling_config={"max_replicas": 2, "upscale_delay_s": 0, "look_back_period_s": 1},
    )
    serve.run(application)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as made:
        yield made


@pytest.fixture
def endless(demo: Generator) -> dict[str, Any]:
    """An answer that goes on to the end of the context."""
    bias = {str(id): -100 for id in demo.tokenizer.eos_token_ids}
    return {"model": "demo", "messages": MESSAGES, "max_tokens": 900, "logit_bias": bias}


def counts(url: str) -> dict[str, float]:
    """What the only replica counts."""
    text = httpx.get(f"{url}/metrics", headers={"authorization": "Bearer secret"}).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def replicas() -> int:
    [application] = serve.status().applications.values()
    [found] = application.deployments.values()
    return found.replica_states.get("RUNNING", 0)


def test_a_chat(client: openai.OpenAI, demo: Generator) -> None:
    [model] = client.models.list()
    assert (model.id, model.candlewick["n_threads"]) == ("demo", 1)
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, seed=7)
    expected = demo.generate(MESSAGES, seed=7)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.completion_tokens == expected.usage.completion_tokens


def test_streaming(client: openai.OpenAI, demo: Generator) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=MESSAGES, seed=7, stream=True, stream_options={"include_usage": True}
        )
    )
    expected = demo.generate(MESSAGES, seed=7)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected.text and len(texts) > 5
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens


def test_answers_come_while_they_are_written_and_end_when_nobody_listens(
    client: openai.OpenAI, url: str, endless: dict[str, Any]
) -> None:
    before = counts(url)
    with contextlib.ExitStack() as open_streams:
        for _ in range(6):
            next(open_streams.enter_context(client.chat.completions.create(**endless, stream=True)))
        assert counts(url)["candlewick_answers_running"] == 6
    while counts(url)["candlewick_answers_running"]:
        time.sleep(0.01)
    written = "candlewick_completion_tokens_total"
    assert 0 < counts(url)[written] - before[written] < 6 * endless["max_tokens"]


def test_errors(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError, match="`temperature` is 3"):
        client.chat.completions.create(model="demo", messages=MESSAGES, temperature=3)
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="guess", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_more_replicas_when_there_is_more_to_do(client: openai.OpenAI, endless: dict[str, Any]) -> None:
    assert replicas() == 1
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            assert client.chat.completions.create(**endless).choices[0].finish_reason == "length"

    with ThreadPoolExecutor(24) as pool:
        asking = [pool.submit(ask) for _ in range(24)]
        try:
            while replicas() < 2:
                time.sleep(0.1)
        finally:
            enough.set()
        for done in asking:
            done.result()
