"""Arguments of the command -> documents: files, folders, kustomizations, standard input."""

from __future__ import annotations

import atexit
import codecs
import os
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.documents import MOST_BYTES, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_echo.rehearsal.documents import Document

__all__ = ["Manifests", "read_manifests"]

_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_SUFFIXES = {".yaml", ".yml", ".json"}
# What plain reading carries out exactly as kustomize does; "metadata" says nothing,
# and an image's tag or digest is nothing that a rehearsal looks at.
_PLAIN = {"apiVersion", "kind", "metadata", "resources", "namespace", "components", "images"}
_PLAIN_IMAGE = {"name", "newTag", "digest"}
_RENDER_TIMEOUT = 60.0
_DEEPEST = 50
_MOST_KUSTOMIZATIONS = 500
_LONGEST_PATH = 200
"""Characters of a path in a complaint that no system takes for one."""


@dataclass(slots=True)
class Manifests:
    """What the command's arguments hold.

    Attributes:
        documents: every object, in the order of the arguments.
        files: every file and folder that was read, to see when one changes.
    """

    documents: list[Document] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)


def read_manifests(
    arguments: Sequence[str], standard_input: str = "", *, again: bool = False
) -> Manifests:
    """Read what ``kubectl apply`` would apply.

    A folder with a kustomization is read by itself where it only lists
    resources and sets their namespace, so that messages name the real file and
    line; where it does more, ``kubectl kustomize`` renders it. A folder
    without one stands for its YAML and JSON files.

    Args:
        arguments: paths of files and folders; ``-`` is standard input.
        standard_input: the text for ``-``.
        again: whether they were read before, so that a path that is not there
            was deleted, with all that it held.

    Raises:
        ManifestError: a path that is not there, that is no text or no YAML,
            or a kustomization that needs a kubectl where there is none.
    """
    found = Manifests()
    for argument in arguments:
        if argument == "-":
            found.documents += parse(standard_input, "standard input")
        elif again and not _checked(Path(argument), Path.exists):
            found.files.add(Path(argument))
        else:
            found.documents += _read(Path(argument), found.files)
    return found


def _read(path: Path, files: set[Path]) -> list[Document]:
    """The documents of one file or folder."""
    files.add(path)
    if not _checked(path, Path.is_dir):
        return parse(_text(path), str(path))
    if (kustomization := _kustomization_in(path)) is not None:
        return _read_kustomization(kustomization, files)
    if _checked(path / "Chart.yaml", Path.is_file):
        raise ManifestError(
            f"{path}: is a Helm chart; render it first: helm template {path} | trio-echo rehearse -"
        )
    entries = _checked(path, lambda folder: sorted(folder.iterdir()))
    inside = [each for each in entries if each.suffix in _SUFFIXES and _checked(each, Path.is_file)]
    if not inside:
        raise ManifestError(f"{path}: no YAML file and no kustomization in this folder")
    return [document for each in inside for document in _read(each, files)]


def _read_kustomization(path: Path, files: set[Path]) -> list[Document]:
    """The documents that a kustomization stands for."""
    folder = path.parent
    more: list[str] = []
    plain = _Plain(files, more)
    documents = plain.documents(path)
    return _render(folder, more, files) if more else documents


class _Plain:
    """Reads kustomizations that need no patching.

    Args:
        files: takes every file that is read.
        more: takes what only kustomize can do; if anything, the documents are
            not what it would make of them.
    """

    def __init__(self, files: set[Path], more: list[str]) -> None:
        self._files = files
        self._more = more
        self._count = 0

    def documents(self, path: Path, within: frozenset[Path] = frozenset()) -> list[Document]:
        """The documents of the kustomization at `path`.

        Args:
            path: where it is.
            within: the kustomizations that list it, directly or not.

        Raises:
            ManifestError: it cannot be read, or lists itself.
        """
        itself = path.resolve()
        if itself in within:
            raise ManifestError(f"{path}: is among its own resources", origin=str(path))
        self._count += 1
        if len(within) >= _DEEPEST or self._count > _MOST_KUSTOMIZATIONS:
            raise ManifestError(
                f"{path}: more than {_DEEPEST} kustomizations inside each other,"
                f" or {_MOST_KUSTOMIZATIONS} in all",
                origin=str(path),
            )
        content = self._content(path)
        found: list[Document] = []
        for resource in self._local(path, content, "resources"):
            kustomization = _kustomization_in(resource)
            if kustomization is not None:
                found += self.documents(kustomization, within | {itself})
            else:
                found += _read(resource, self._files)
        # The outermost namespace wins, and a component's before one's own.
        names = [
            self._component_namespace(each) for each in self._local(path, content, "components")
        ]
        for name in [*names, self._namespace(path, content)]:
            if name:
                found = [replace(document, forced_namespace=name) for document in found]
        return found

    def _component_namespace(self, folder: Path) -> str:
        """The namespace that a component sets; empty for none."""
        path = _kustomization_in(folder)
        if path is None:
            self._more.append(f"the component {folder}")
            return ""
        content = self._content(path)
        if content.get("resources") or content.get("components"):
            self._more.append(f"what the component {folder} adds")
        return self._namespace(path, content)

    def _content(self, path: Path) -> dict[str, Any]:
        """What a kustomization says, all that plain reading cannot do noted."""
        self._files.add(path)
        parsed = parse(_text(path), str(path))
        content = parsed[0].content if parsed else {}
        self._more.extend(sorted(set(map(str, content)) - _PLAIN))
        images = content.get("images") or []
        if not isinstance(images, list):
            raise ManifestError(f"{path}: images must be a list")
        for image in images:
            if not isinstance(image, dict) or not set(image) <= _PLAIN_IMAGE:
                self._more.append("images")
        return content

    def _local(self, path: Path, content: dict[str, Any], field: str) -> list[Path]:
        """The paths in a list that are there: others kustomize may know."""
        value = content.get(field) or []
        if not isinstance(value, list):
            raise ManifestError(f"{path}: {field} must be a list of paths")
        there = [each for each in value if _checked(path.parent / str(each), Path.exists)]
        self._more.extend(f"{field}: {each}" for each in value if each not in there)
        return [path.parent / str(each) for each in there]

    @staticmethod
    def _namespace(path: Path, content: dict[str, Any]) -> str:
        """The namespace that a kustomization sets; empty for none."""
        namespace = content.get("namespace") or ""
        if not isinstance(namespace, str):
            raise ManifestError(f"{path}: namespace must be a name")
        return namespace


def _kustomization_in(path: Path) -> Path | None:
    """The kustomization of a folder, if it is one."""
    paths = (path / name for name in _KUSTOMIZATIONS)
    return next((each for each in paths if _checked(each, Path.is_file)), None)


def _render(folder: Path, reasons: Sequence[str], files: set[Path]) -> list[Document]:
    """What ``kubectl kustomize`` makes of a folder."""
    files.update(folder.rglob("*"))
    command = shutil.which("kubectl")
    if command is None:
        raise ManifestError(
            f"{folder}: this kustomization does more than list resources, set a namespace"
            f" and tag images ({', '.join(reasons)}), which needs kubectl on the PATH;"
            f" or render it elsewhere: kubectl kustomize {folder} | trio-echo rehearse -"
        )
    try:
        code, out, err = _run([command, "kustomize", str(folder)])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ManifestError(f"{folder}: kubectl kustomize failed: {error}") from error
    if code:
        reason = " ".join(err.decode(errors="replace").split())
        raise ManifestError(f"{folder}: kubectl kustomize failed: {reason}")
    text = out.decode(errors="replace")
    return parse(text, f"{folder} (as kubectl kustomize renders it)")


def _run(command: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Run a command to its end; return its exit code, and what it printed.

    Whatever ends this, or the interpreter while a thread that nobody waits for
    is in here, nothing of the command stays: kubectl may have started git.
    """
    process = subprocess.Popen(  # noqa: S603 - kubectl from the PATH, on the user's folder
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    atexit.register(end)
    with process:
        try:
            out, err = process.communicate(timeout=_RENDER_TIMEOUT)
        except BaseException:
            end()
            raise
        finally:
            atexit.unregister(end)
    return process.returncode, out, err


def _text(path: Path) -> str:
    """The text of a file, which is read no further than a manifest may be long.

    A pipe from the shell (``<(helm template chart)``) is read to its end; a
    FIFO that somebody made may never have one.
    """
    mode = _checked(path, Path.stat).st_mode
    piped = stat.S_ISFIFO(mode) and str(path).startswith(("/dev/", "/proc/"))
    if not (stat.S_ISREG(mode) or piped):
        raise ManifestError(f"{path}: is neither a file nor a folder", origin=str(path))
    raw = _checked(path, _first_bytes)
    try:
        # Without translating line ends: lines are counted as the parser does.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is UTF-16 text; save it as UTF-8" if wide else f"is no UTF-8 text ({error.reason})"
        reason = f"{path}: {what}"
        raise ManifestError(reason, origin=str(path)) from None


def _first_bytes(path: Path) -> bytes:
    """As many bytes of a file as a manifest may have, and one more."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


_T = TypeVar("_T")


def _checked(path: Path, ask: Callable[[Path], _T]) -> _T:
    """What a question about a path is answered with.

    Raises:
        ManifestError: the system refuses it, or the path cannot be one.
    """
    try:
        return ask(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = str(path) if len(str(path)) <= _LONGEST_PATH else f"{str(path)[:_LONGEST_PATH]}…"
        raise ManifestError(f"{shown}: {reason}", origin=shown) from None
