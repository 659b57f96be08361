"""Arguments: files, folders and kustomizations are read as ``kubectl apply`` reads them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from manifest_texts import ISTIO, parse_once

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.documents import parse
from trio_echo.rehearsal.kustomize import Manifests, read_manifests
from trio_echo.rehearsal.plan import make_plan

MANIFESTS = Path(__file__).parents[2] / "manifests"

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="compares with kubectl, which is not on the PATH"
)


@pytest.fixture
def no_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubectl is found."""
    monkeypatch.setattr(shutil, "which", lambda _: None)


def read(*paths: Path | str) -> Manifests:
    """What these arguments hold."""
    return read_manifests([str(path) for path in paths])


def names(manifests: Manifests) -> list[tuple[str, str, str]]:
    """Kind, namespace and name of each document."""
    return [(each.kind, each.namespace, each.name) for each in manifests.documents]


def write(folder: Path, **files: str) -> Path:
    """A folder with these files, ``.yaml`` each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def an_object(name: str, namespace: str = "") -> str:
    """Any object."""
    return f"kind: Thing\nmetadata: {{name: {name}, namespace: '{namespace}'}}\n"


def test_file_folder_and_standard_input(tmp_path: Path) -> None:
    """Each stands for its documents, in order; a folder for its YAML and JSON files."""
    folder = write(tmp_path / "folder", b=an_object("b"), a=an_object("a"))
    (folder / "c.json").write_text('{"kind": "Thing", "metadata": {"name": "c"}}')
    (folder / "README.md").write_text("not: yaml: at all")
    write(folder / "deeper", d=an_object("d"))
    found = read_manifests([str(folder), "-", str(folder / "a.yaml")], an_object("stdin"))
    assert [name for _, _, name in names(found)] == ["a", "b", "c", "stdin", "a"]
    assert found.documents[3].place() == "standard input:1, document 1 (Thing stdin)"
    assert folder / "b.yaml" in found.files
    assert folder in found.files


@pytest.mark.usefixtures("no_kubectl")
def test_plain_kustomization_needs_no_kubectl(tmp_path: Path) -> None:
    """Resources, namespaces, components that set one, and tags: messages keep the real file."""
    write(tmp_path / "parts", kustomization="kind: Component\nnamespace: shared\n")
    write(
        tmp_path / "inner",
        kustomization="resources: [x.yaml]\nnamespace: inner\n",
        x=an_object("x", "own"),
    )
    write(
        tmp_path / "outer",
        kustomization="resources: [../inner, y.yaml]\ncomponents: [../parts]\n"
        "images: [{name: trio-echo, newTag: '1'}]\n",
        y=an_object("y"),
    )
    assert names(read(tmp_path / "inner")) == [("Thing", "inner", "x")]
    found = read(tmp_path / "outer")
    assert names(found) == [("Thing", "shared", "x"), ("Thing", "shared", "y")]
    inner = tmp_path / "outer" / ".." / "inner" / "x.yaml"
    assert found.documents[0].place() == f"{inner}:1, document 1 (Thing x)"


@pytest.mark.usefixtures("no_kubectl")
@pytest.mark.parametrize(
    ("kustomization", "reason"),
    [
        ("patches: [{path: p.yaml}]", "patches"),
        ("namePrefix: a-", "namePrefix"),
        ("images: [{name: a, newName: b}]", "images"),
        ("resources: [https://example.com/all.yaml]", "resources: https://example.com/all.yaml"),
        ("components: [part]", "what the component"),
        ("components: [file.yaml]", "the component"),
    ],
)
def test_kustomization_that_does_more_needs_kubectl(
    tmp_path: Path, kustomization: str, reason: str
) -> None:
    """The message says what it does, and two remedies."""
    write(tmp_path, kustomization=kustomization, file=an_object("x"))
    write(tmp_path / "part", kustomization="resources: [x.yaml]", x=an_object("x"))
    with pytest.raises(ManifestError) as caught:
        read(tmp_path)
    assert "needs kubectl on the PATH" in str(caught.value)
    assert reason in str(caught.value)
    assert f"kubectl kustomize {tmp_path} | trio-echo rehearse -" in str(caught.value)


@needs_kubectl
@pytest.mark.parametrize("folder", ["istio", "gateway-api", "gateway-api/v1alpha2"])
def test_plain_reading_is_what_kubectl_renders(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the project's own manifests directly gives the route that kubectl would apply."""
    rendered = [
        document
        for each in ("base", folder)
        for document in parse(
            subprocess.run(
                ["kubectl", "kustomize", str(MANIFESTS / each)],  # noqa: S607 - the one on the PATH
                capture_output=True,
                text=True,
                check=True,
            ).stdout,
            each,
        )
    ]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    plain = read(MANIFESTS / "base", MANIFESTS / folder).documents
    assert make_plan(plain, parse_once).route == make_plan(rendered, parse_once).route
    assert {(each.kind, each.name) for each in plain} == {
        (each.kind, each.name) for each in rendered
    }


@needs_kubectl
def test_kustomization_with_patches_is_rendered() -> None:
    """The project's own walk through the weights: all to v1."""
    found = read(MANIFESTS / "base", MANIFESTS / "shift" / "istio" / "all-v1")
    plan = make_plan(found.documents, parse_once)
    (listener,) = plan.route.listeners
    assert plan.route.shares(listener.chains[0]) == {"one": 100, "two": 0}
    assert any("as kubectl kustomize renders it" in each.origin for each in found.documents)


@needs_kubectl
def test_kubectl_that_fails_is_told(tmp_path: Path) -> None:
    """With its own reason."""
    write(tmp_path, kustomization="resources: [missing.yaml]")
    with pytest.raises(ManifestError, match=r"kubectl kustomize failed: .*missing\.yaml"):
        read(tmp_path)


def test_kubectl_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is no program."""
    broken = tmp_path / "kubectl"
    broken.write_text("")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(broken))
    write(tmp_path / "folder", kustomization="patches: []")
    with pytest.raises(ManifestError, match=r"kubectl kustomize failed: .*Exec format error"):
        read(tmp_path / "folder")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"kustomization": "resources: one"}, "resources must be a list of paths"),
        ({"kustomization": "namespace: [1]"}, "namespace must be a name"),
        ({"kustomization": "images: 5"}, "images must be a list"),
        ({"kustomization": "resources: [.]"}, "is among its own resources"),
        ({"broken": "a: [1"}, r"broken.yaml:\d+:\d+: "),
        ({}, "no YAML file and no kustomization in this folder"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """With the file."""
    write(tmp_path, **files)
    with pytest.raises(ManifestError, match=message):
        read(tmp_path)


def test_kustomizations_that_list_each_other_are_an_error(tmp_path: Path) -> None:
    """Also by way of another; listing one twice is no circle."""
    write(tmp_path / "one", kustomization="resources: [../two]")
    write(tmp_path / "two", kustomization="resources: [../one]")
    with pytest.raises(ManifestError, match=r"two/../one/kustomization.yaml: is among its own"):
        read(tmp_path / "one")
    write(tmp_path / "leaf", kustomization="resources: [x.yaml]", x=an_object("x"))
    write(tmp_path / "both", kustomization="resources: [../leaf, ../leaf]")
    assert len(read(tmp_path / "both").documents) == 2


def test_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone, or closed to this user, by the time it is read."""

    def vanish(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", vanish)
    with pytest.raises(ManifestError, match=rf"{tmp_path}: Permission denied"):
        read(tmp_path)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or no text."""
    with pytest.raises(ManifestError, match=r"missing.yaml: No such file or directory"):
        read(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\x00")
    with pytest.raises(ManifestError, match=r"binary.yaml: is no UTF-8 text"):
        read(tmp_path / "binary.yaml")


def test_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + ISTIO.encode())
    assert len(read(tmp_path / "x.yaml").documents) == 6


@pytest.mark.usefixtures("no_kubectl")
def test_kustomizations_without_an_end_are_refused(tmp_path: Path) -> None:
    """A chain too long, and 22 that each list the next twice: four million readings."""
    for number in range(60):
        write(tmp_path / f"chain{number}", kustomization=f"resources: [../chain{number + 1}]")
    with pytest.raises(ManifestError, match="more than 50 kustomizations inside each other"):
        read(tmp_path / "chain0")
    for number in range(22):
        listed = f"[../twice{number + 1}, ../twice{number + 1}]"
        write(tmp_path / f"twice{number}", kustomization=f"resources: {listed}")
    write(tmp_path / "twice22", kustomization="resources: []")
    with pytest.raises(ManifestError, match="or 500 in all"):
        read(tmp_path / "twice0")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b"])
def test_path_that_no_system_takes_is_named(tmp_path: Path, name: str) -> None:
    """As an argument, and among the resources of a kustomization."""
    with pytest.raises(ManifestError) as caught:
        read(name)
    assert len(str(caught.value)) < 300
    if "\0" not in name:
        write(tmp_path, kustomization=f"resources: [{name}]")
        with pytest.raises(ManifestError) as caught:
            read(tmp_path)
        assert len(str(caught.value)) < 300


def test_only_files_and_pipes_of_the_shell_are_read(tmp_path: Path) -> None:
    """A FIFO would be waited for, and a device may have no end."""
    os.mkfifo(tmp_path / "fifo.yaml")
    for path in (tmp_path / "fifo.yaml", "/dev/zero"):
        with pytest.raises(ManifestError, match="is neither a file nor a folder"):
            read(path)
    write(tmp_path, a=an_object("a"))
    assert len(read(tmp_path).documents) == 1
    reading, writing = os.pipe()
    os.write(writing, an_object("piped").encode())
    os.close(writing)
    assert names(read(f"/dev/fd/{reading}")) == [("Thing", "default", "piped")]
    os.close(reading)


def test_file_longer_than_the_bound_is_refused(tmp_path: Path) -> None:
    """And not read to its end."""
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ManifestError, match=r"long\.yaml: is longer than 16 MiB"):
        read(tmp_path / "long.yaml")


def test_folder_with_a_chart_is_to_be_rendered(tmp_path: Path) -> None:
    """Its files are for Helm, not for a cluster."""
    (tmp_path / "Chart.yaml").write_text("name: x")
    (tmp_path / "values.yaml").write_text("replicas: 1")
    with pytest.raises(ManifestError, match=rf"render it first: helm template {tmp_path} \| "):
        read(tmp_path)


def test_text_that_a_shell_wrote_in_another_encoding_is_named(tmp_path: Path) -> None:
    """PowerShell's ``>`` writes UTF-16."""
    (tmp_path / "x.yaml").write_text("kind: A", encoding="utf-16")
    with pytest.raises(ManifestError, match=r"x\.yaml: is UTF-16 text; save it as UTF-8"):
        read(tmp_path)
