"""Custom resources against the schemas of their definitions, where those are at hand.

The definitions are no part of this repository: ``TRIO_ECHO_SCHEMAS`` names a folder
with one CustomResourceDefinition a file, else it is looked for beside the clone.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

if TYPE_CHECKING:
    from kustomized import Document

FOLDER = Path(
    os.environ.get("TRIO_ECHO_SCHEMAS")
    or Path(__file__).resolve().parents[2] / "shared" / "schemas"
)


class NotServedError(Exception):
    """An API server with these definitions would refuse the document's version."""


def check(document: Document, definitions: str) -> None:
    """Check a document as strictly as an API server, but for its CEL rules.

    Args:
        document: the custom resource.
        definitions: the file name, without suffix, of its definition.

    Raises:
        NotServedError: the definition does not serve the document's version.
        jsonschema.ValidationError: a field is unknown, missing or wrong.
    """
    group, _, version = document["apiVersion"].partition("/")
    schemas = served(definitions)
    key = (group, document["kind"], version)
    if key not in schemas:
        message = f"{group}/{version} {document['kind']} is not served: {sorted(schemas)}"
        raise NotServedError(message)
    jsonschema.Draft202012Validator(schemas[key]).validate(document)


@cache
def served(definitions: str) -> dict[tuple[str, str, str], Any]:
    """The closed schemas of a file by group, kind and version, served versions only."""
    text = (FOLDER / f"{definitions}.yaml").read_text(encoding="utf-8")
    return {
        (crd["spec"]["group"], crd["spec"]["names"]["kind"], version["name"]): closed(
            version["schema"]["openAPIV3Schema"]
        )
        for crd in yaml.safe_load_all(text)
        for version in crd["spec"]["versions"]
        if version["served"]
    }


def closed(schema: Any) -> Any:
    """Forbid what a structural schema does not name: an API server would prune it.

    The parts of ``anyOf`` and the like only narrow what the structure names, and
    stay as they are.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            # A definition's root leaves these three to the API server.
            always = dict.fromkeys(("apiVersion", "kind", "metadata"), True)
            if "spec" in schema["properties"]:
                result["properties"] = always | result["properties"]
            result.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = closed(schema[key])
    return result
