"""Destinations of one route that select the same pods, as a copied label makes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from trio_echo.rehearsal.documents import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.notes import Notes
    from trio_echo.rehearsal.route import Destination
    from trio_echo.rehearsal.workloads import Service, Workload, Workloads

__all__ = ["Part", "warn_of_overlaps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One destination of a route, and what in the manifests selects its pods.

    Attributes:
        destination: where it leads.
        service: whose pods these are, or some of whose.
        name: of the subset, or of the Service where there is none.
        rule: the DestinationRule of the subset, in words; empty for a Service.
        document: that selects the pods; None where no manifest has it.
        path: the selecting field there.
    """

    destination: Destination
    service: Service
    name: str
    rule: str
    document: Document | None
    path: str

    def __str__(self) -> str:
        return f"subset {self.name} of {self.rule}" if self.rule else f"Service {self.name}"


def warn_of_overlaps(parts: Sequence[Part], workloads: Workloads, notes: Notes) -> None:
    """Warn of two destinations of a route that lead to the same pods, and of pods left out.

    Which of a Rollout's pods a Service selects is its controller's affair.
    """
    by_name = {each.name: each for each in workloads.workloads}
    reached = {one.backend for part in parts for one in part.destination.endpoints}
    for first, second in combinations(parts, 2):
        ours, theirs = (set(each.destination.endpoints) for each in (first, second))
        shared = [by_name[one.backend] for one in ours & theirs if one.backend in by_name]
        wider = first if ours > theirs else second
        known = str(first) == str(second) or any(each.role for each in shared)
        if not shared or known or wider.document is None:
            continue
        behind = {*workloads.behind(first.service), *workloads.behind(second.service)}
        missed = [each for each in workloads.workloads if each in behind]
        missed = [each for each in missed if each.name not in reached]
        workloads.missed.update(missed)
        words = _in_words(first, second, wider, same=ours == theirs)
        notes.warn(f"{words}{_without(missed)}", wider.document, wider.path)


def _in_words(first: Part, second: Part, wider: Part, *, same: bool) -> str:
    """What two parts have in common."""
    if not same:
        other = first if wider is second else second
        narrow = f"subset {other.name}" if other.rule == wider.rule != "" else str(other)
        return f"{wider} selects pods of {narrow} too"
    if first.rule and first.rule == second.rule:
        return f"subsets {first.name} and {second.name} of {first.rule} select the same pods"
    return f"{first} and {second} select the same pods"


def _without(missed: Sequence[Workload]) -> str:
    """Which workloads get no connection, to be added to a sentence."""
    if not missed:
        return ""
    names = listed([f"{each.kind} {each.short}" for each in missed])
    return f": {names} {'get' if len(missed) > 1 else 'gets'} no connection"
