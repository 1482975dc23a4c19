"""A front end on an origin of its own, as it stands beside the server: its page, its script, and a view for tickets."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.browser.bundling import Bundle

PAGE = b"""<!doctype html><title>Elsewhere</title><link rel="stylesheet" href="page.css"><link rel="icon" href="data:">
<div id="editor"></div><p id="state"></p><script src="page.js"></script>"""


@contextlib.contextmanager
def front_end(bundle: Bundle, ticket: Callable[[], str]) -> Iterator[str]:
    """Serve the bundle's page and, at /ticket, what `ticket` returns; the page's address."""
    files: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": ("text/html", lambda: PAGE),
        "/page.js": ("text/javascript", bundle.script.encode),
        "/page.css": ("text/css", bundle.styles.encode),
        "/ticket": ("text/plain", lambda: ticket().encode()),
    }

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = files[self.path]
            body = content()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is written about what was asked for."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join()
