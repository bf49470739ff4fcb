"""An OpenAI-compatible server around one `Generator`, and a page to chat with it.

It needs the packages of the extra ``server``: ``pip install "candlewick[server]"``. `create_app` makes an ASGI
application, which any server of such applications can run; ``candlewick serve`` runs it on uvicorn.
"""

from candlewick.server.app import create_app
from candlewick.server.limits import Limits

__all__ = ["Limits", "create_app"]
