"""A web server on the loopback with a certificate of its own, which can be told to fail as servers do."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme


@dataclass
class Served:
    """A file of the server, and how it is served."""

    data: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes that each next GET sends before it breaks off
    statuses: list[int] = field(default_factory=list)  # that each next request is answered with
    moved_to: str | None = None


@dataclass
class Server:
    """What the server holds, what it was asked, and its address."""

    address: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path with query, Range

    def put(self, name: str, data: bytes, **how: object) -> str:
        """Serve bytes under a name and return their address."""
        self.files[f"/{name}"] = Served(data, **how)  # type: ignore[arg-type]
        return f"{self.address}/{name}"


@contextmanager
def https_server(folder: Path) -> Iterator[tuple[Server, Path]]:
    """Serve until the block ends; also yield the certificate that clients must trust."""
    authority = trustme.CA()
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as listening:
        server = Server(f"https://127.0.0.1:{listening.server_port}")
        listening.RequestHandlerClass = _handler(server)
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server, trusted
        listening.shutdown()
        thread.join()


def _handler(held: Server) -> type["_Handler"]:
    class Bound(_Handler):
        files, requests = held.files, held.requests

    return Bound


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, Served]
    requests: list[tuple[str, str, str | None]]

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, with_body: bool) -> None:
        self.requests.append((self.command, self.path, self.headers.get("Range")))
        self.close_connection = True
        served = self.files.get(self.path.partition("?")[0])
        if served is None:
            self._head(404, {"Content-Length": "0"})
        elif served.statuses:
            self._head(served.statuses.pop(0), {"Content-Length": "0"})
        elif served.moved_to:
            self._head(302, {"Location": served.moved_to, "Content-Length": "0"})
        else:
            self._send(served, with_body)

    def _send(self, served: Served, with_body: bool) -> None:
        start = self._start(served)
        body = served.data[start:]
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/octet-stream"}
        if served.etag:
            headers["ETag"] = served.etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(served.data) - 1}/{len(served.data)}"
        self._head(206 if start else 200, headers)
        if with_body:
            self.wfile.write(body[: served.break_after.pop(0)] if served.break_after else body)

    def _start(self, served: Served) -> int:
        asked = self.headers.get("Range")
        if not (asked and served.ranges) or self.headers.get("If-Range") != served.etag:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        return
