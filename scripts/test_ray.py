"""`candlewick.ray` on a cluster of three nodes that are processes of this machine: `make test-ray` runs it with pytest.

One of the nodes is killed in the middle of a data set, and the server is asked by the official client.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy

from candlewick import Generator
from candlewick.ray import Predictor, deployment
from candlewick.server import Limits

# Ray's own, which are many.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

N_ROWS = 300
MESSAGES = [{"role": "user", "content": "Write a haiku about rain"}]
# So long that what the demo model writes does not end by itself before it.
LONG = {"model": "demo", "messages": MESSAGES, "max_tokens": 900, "extra_body": {"logit_bias": {}}}


@pytest.fixture(scope="module")
def demo() -> Iterator[Generator]:
    with Generator("demo", n_threads=1) as made:
        yield made


@pytest.fixture
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
    """Says which node computed a row; on one of them, it does not come back from its third batch.

    Args:
        folder: Where it leaves word: a file for each batch that was begun, and ``doomed``, the node's name.
    """

    def __init__(self, folder: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._folder = Path(folder)
        self._node = ray.get_runtime_context().get_node_id()
        self._n_batches = 0

    def __call__(self, batch: Any) -> Any:
        self._n_batches += 1
        doomed = self._folder / "doomed"
        if self._n_batches == 3 and doomed.read_text() == self._node:
            # It has computed this batch, but nobody gets to know.
            super().__call__(batch)
            (self._folder / "stuck").touch()
            time.sleep(3600)
        answer = super().__call__(batch)
        return {**answer, "node": [self._node] * len(answer["text"])}


def test_a_node_that_is_killed_loses_no_row(cluster: Cluster, demo: Generator, tmp_path: Path) -> None:
    doomed = next(node for node in cluster.worker_nodes)
    (tmp_path / "doomed").write_text(doomed.node_id)
    rows = [{"id": i, "prompt": f"Write a haiku about {i}"} for i in range(N_ROWS)]
    answers = (
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
    got = [next(answers) for _ in range(N_ROWS // 2)]
    while not (tmp_path / "stuck").exists():
        time.sleep(0.01)
    cluster.remove_node(doomed, allow_graceful=False)
    got.extend(answers)

    assert sorted(row["id"] for row in got) == list(range(N_ROWS))
    for row in got:
        assert row["prompt"] == rows[row["id"]]["prompt"]
        assert row["text"] == demo.generate(row["prompt"], seed=row["seed"], max_tokens=40).text
    nodes = Counter(row["node"] for row in got)
    print(nodes)
    assert nodes[doomed.node_id] == 20 and len(nodes) == 3
