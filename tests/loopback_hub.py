"""A hub on this machine that speaks the few calls huggingface_hub makes for a file, and misbehaves when told to.

As the real one it answers ``/OWNER/NAME/resolve/REVISION/FILE`` with the hash of the file and a redirect to another
host, which sends the bytes, from any offset. ``python -m tests.loopback_hub`` serves random weights of the small pair.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/[\w.-]+/([\w.-]+)")


@dataclass
class LoopbackHub:
    """The hub's files and manners; change them at any time.

    Attributes
    ----------
    files : dict
        Bytes by repository and name.
    stated : dict
        Hash that is stated in the place of the right one, by repository and name.
    refusals : dict
        Status and error code by repository.
    cuts : list of int
        Each answer of bytes takes the first entry and ends after so many.
    ranges : list of int
        First byte of each answer of bytes so far.
    tokens : list of str
        Authorization of each question for a file so far.
    port : int
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    stated: dict[tuple[str, str], str] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/cdn/"):
            owner, name, file = self.path.removeprefix("/cdn/").split("/")
            self._send_bytes(self.hub.files[f"{owner}/{name}", file])
            return
        found = _RESOLVE.fullmatch(self.path)
        if found is None:  # huggingface_hub 2 also asks for a list of programs that call it
            self._end(404, {})
            return
        repository, file = found.groups()
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if repository in self.hub.refusals:
            status, code = self.hub.refusals[repository]
            self._end(status, {"X-Error-Code": code} if code else {})
        elif not any(repository == known for known, _ in self.hub.files):
            self._end(404, {"X-Error-Code": "RepoNotFound"})
        elif (repository, file) not in self.hub.files:
            self._end(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._resolve(repository, file)

    def _resolve(self, repository: str, file: str) -> None:
        content = self.hub.files[repository, file]
        common = {"X-Repo-Commit": COMMIT}
        if file.endswith(".json"):  # no LFS object: sent at once, with git's own hash
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self._end(200, {**common, "ETag": f'"{etag}"'}, content)
            return
        sha256 = self.hub.stated.get((repository, file)) or hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # another host by name, so that the client takes it for one
        self._end(302, {**common, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{repository}/{file}"})

    def _send_bytes(self, content: bytes) -> None:
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.hub.ranges.append(first)
        part = content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(part)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.hub.cuts:
            part = part[: self.hub.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(part)

    def _end(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is what some tests are about."""


@contextmanager
def serve_hub(hub: LoopbackHub, port: int = 0) -> Iterator[LoopbackHub]:
    """Serve until the block ends, at a free port unless one is given."""
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def set_constant(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Set what huggingface_hub reads from the environment once; 0.23 copies some of it into the other module."""
    from huggingface_hub import constants, file_download

    for module in (constants, file_download):
        monkeypatch.setattr(module, name, value, raising=False)


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What ``HF_ENDPOINT`` does, in this process."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    set_constant(monkeypatch, "ENDPOINT", endpoint)
    set_constant(monkeypatch, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def main() -> None:
    """Serve random weights of the small pair until interrupted; prints the address for ``HF_ENDPOINT``."""
    from safetensors.torch import save

    from umscosod.features.architectures import build_vit
    from umscosod.features.specs import VIT_SPECS

    hub = LoopbackHub()
    for name in ("dino_vits8", "dinov2_vits14_reg"):
        spec = VIT_SPECS[name]
        hub.files[f"timm/{spec.timm_name}", "model.safetensors"] = save(build_vit(spec).state_dict())
    with serve_hub(hub):
        print(f"HF_ENDPOINT={hub.endpoint}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
