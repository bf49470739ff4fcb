"""Beyond one machine, on Ray: `Predictor` for the rows of a data set, `deployment` for a server with many replicas.

It needs the packages of the extra ``ray``: ``pip install "candlewick[ray]"``, on every machine of the cluster.
"""

from candlewick.ray.predictor import Predictor
from candlewick.ray.serving import deployment

__all__ = ["Predictor", "deployment"]
