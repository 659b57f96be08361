"""A small client for the Kubernetes API: apply, read, watch, delete, with its warnings."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import h11
import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

Document = dict[str, Any]
"""One Kubernetes object, as JSON has it."""

MANAGER = "trio-echo"


class RefusedError(Exception):
    """The API server, or a webhook that it asked, refused a request."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Quiet(Exception):  # noqa: N818 - a state, and part of no interface
    """The API server ended a connection in the middle of an answer."""


@dataclass(frozen=True)
class Kind:
    """Where the API server keeps a kind of object."""

    base: str
    plural: str
    namespaced: bool


class Api:
    """One API server, as one client sees it. A request opens a connection of its own."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._kinds: dict[tuple[str, str], Kind] = {}
        self.warnings: list[str] = []
        """The warnings of all answers so far. Whoever reads them may clear them."""

    async def get(self, path: str, **query: str) -> Document:
        """Read a path.

        Raises:
            RefusedError: It is not there, or not served.
        """
        return await self._ask("GET", path, query=query)

    async def items(self, path: str, **query: str) -> list[Document]:
        """The objects of a list."""
        listed: list[Document] = (await self.get(path, **query)).get("items") or []
        return listed

    async def create(self, path: str, document: Document) -> Document:
        """Create an object below a path.

        Raises:
            RefusedError: By the API server or by a webhook.
        """
        return await self._ask("POST", path, document)

    async def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        """Apply an object server-side, as ``kubectl apply --server-side --force-conflicts``.

        Raises:
            RefusedError: By the API server or by a webhook.
        """
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = await self.path(document)
        return await self._ask("PATCH", path, document, "application/apply-patch+yaml", query)

    async def merge(self, path: str, change: Document) -> Document:
        """Change some fields of an object, or of its status."""
        return await self._ask("PATCH", path, change, "application/merge-patch+json")

    async def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete an object. One that is gone already is no error."""
        query = {} if grace is None else {"gracePeriodSeconds": str(grace)}
        try:
            await self._ask("DELETE", path, query=query)
        except RefusedError as error:
            if error.status != 404:
                raise

    async def path(self, document: Document) -> str:
        """Where an object lives.

        Raises:
            RefusedError: The API server does not know its kind.
        """
        kind = await self._kind(document["apiVersion"], document["kind"])
        metadata = document["metadata"]
        middle = f"/namespaces/{metadata.get('namespace', 'default')}" if kind.namespaced else ""
        return f"{kind.base}{middle}/{kind.plural}/{metadata['name']}"

    async def watch(self, path: str, seen: Callable[[str, Document], None], **query: str) -> None:
        """Tell of each object of a list, and of each change to it, until cancelled.

        ``seen`` gets ADDED, MODIFIED or DELETED and the object. An object may be told
        again. A watch that ends is begun anew, from the list.
        """
        known: dict[str, Document] = {}
        while True:
            try:
                listed = await self.get(path, **query)
                items = {item["metadata"]["uid"]: item for item in listed.get("items") or []}
                for uid in known.keys() - items.keys():
                    seen("DELETED", known[uid])
                known = items
                for item in items.values():
                    seen("ADDED", item)
                version = listed["metadata"]["resourceVersion"]
                more = {**query, "watch": "true", "resourceVersion": version}
                async with self._answer("GET", path, None, "", more) as (_, _, body):
                    async for line in lines(body):
                        event = json.loads(line)
                        if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                            break
                        document = event["object"]
                        known[document["metadata"]["uid"]] = document
                        if event["type"] == "DELETED":
                            del known[document["metadata"]["uid"]]
                        seen(event["type"], document)
            except (OSError, trio.BrokenResourceError, h11.ProtocolError, Quiet, RefusedError):
                await trio.sleep(0.5)

    async def _kind(self, api_version: str, kind: str) -> Kind:
        key = (api_version, kind)
        if key not in self._kinds:
            base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for resource in (await self.get(base))["resources"]:
                if "/" not in resource["name"]:
                    self._kinds[api_version, resource["kind"]] = Kind(
                        base, resource["name"], resource["namespaced"]
                    )
        if key not in self._kinds:
            raise RefusedError(404, f"{api_version} has no kind {kind}")
        return self._kinds[key]

    async def _ask(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Document:
        async with self._answer(method, path, body, content_type, query or {}) as answer:
            status, warnings, pieces = answer
            text = b"".join([piece async for piece in pieces])
        self.warnings += warnings
        try:
            document: Document = json.loads(text)
        except ValueError:
            document = {"message": text.decode(errors="replace").strip()}
        if status >= 400:
            raise RefusedError(status, document.get("message", ""))
        return document

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        body: Document | None,
        content_type: str,
        query: Mapping[str, str],
    ) -> AsyncIterator[tuple[int, list[str], AsyncIterator[bytes]]]:
        content = b"" if body is None else json.dumps(body).encode()
        headers = [
            ("Host", f"{self._host}:{self._port}"),
            ("Accept", "application/json"),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
        ]
        if body is not None:
            headers.append(("Content-Type", content_type))
        target = f"{path}?{urlencode(query)}" if query else path
        async with await trio.open_ssl_over_tcp_stream(
            self._host, self._port, ssl_context=self._context, https_compatible=True
        ) as stream:
            http = h11.Connection(h11.CLIENT)
            request = h11.Request(method=method, target=target, headers=headers)
            await stream.send_all(
                http.send(request)
                + http.send(h11.Data(data=content))
                + http.send(h11.EndOfMessage())
            )
            response = await _next(http, stream)
            if not isinstance(response, h11.Response):
                raise Quiet
            warnings = [
                re.sub(r'^\d+ \S+ "(.*)"$', r"\1", value.decode())
                for name, value in response.headers
                if name == b"warning"
            ]
            yield response.status_code, warnings, _body(http, stream)


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a body, each as soon as it is complete."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line


async def _body(http: h11.Connection, stream: trio.abc.Stream) -> AsyncIterator[bytes]:
    while isinstance(event := await _next(http, stream), h11.Data):
        yield bytes(event.data)


async def _next(http: h11.Connection, stream: trio.abc.Stream) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some()
        if not data and http.their_state is h11.DONE:
            raise Quiet
        http.receive_data(bytes(data))
    if isinstance(event, h11.ConnectionClosed):
        raise Quiet
    return event
