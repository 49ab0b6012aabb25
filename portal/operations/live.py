"""Live pieces of operations, and what their page shows."""

from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.live.panels import Panel, register, row_keys
from portal.operations.ledger import amount_text
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.policies.demands import summary
from portal.operations.registry import kind_of
from portal.operations.states import FINAL, WORKING, State

TONES = {
    State.AWAITING_APPROVAL: "waiting",
    State.QUEUED: "waiting",
    State.RUNNING: "busy",
    State.SUCCEEDED: "good",
    State.UNDOING: "warn",
    State.CANCELLING: "warn",
    State.FAILED: "bad",
    State.LOST: "bad",
    State.REJECTED: "bad",
}
Stage = StepRecord.Stage
_TONE_OF_STAGE = {Stage.INTENDED: "busy", Stage.DONE: "good", Stage.UNDONE: "off"}


def progress(operation: Operation) -> dict[str, Any]:
    """Return the steps of `operation` with how far it is in percent and how long it took in seconds."""
    records = {record.name: record for record in operation.steps.all()}
    steps, done, error = [], 0, ""
    planned = kind_of(operation.kind).steps
    for step in planned:
        record = records.get(step.name)
        done += bool(record and record.stage == Stage.DONE)
        if record and record.error_code:
            error = sentence(record.error_code)
        steps.append(
            {
                "title": step.title,
                "tone": _TONE_OF_STAGE[Stage(record.stage)] if record else "unknown",
                "word": record.get_stage_display() if record else "",
                "raw": record.error_raw if record else "",
                "record": record,
            }
        )
    begun = min((record.started_at for record in records.values() if record.started_at), default=None)
    end = operation.finished_at or timezone.now()
    return {
        "operation": operation,
        "tone": TONES.get(State(operation.state), "off"),
        "steps": steps,
        "percent": round(100 * done / len(planned)) if planned else 100,
        "elapsed": end - begun if begun else None,
        "error": error,
        "moving": operation.state in WORKING or operation.state == State.QUEUED,
        "over": operation.state in FINAL,
        "left": [step["title"] for step in steps if step["tone"] in {"busy", "good"}]
        if operation.state in {State.UNDOING, State.CANCELLING, State.LOST}
        else [],
        "lost": _lost(operation),
    }


def _lost(operation: Operation) -> str:
    """Say what becomes of an operation whose host is away, '' for any other."""
    if operation.state != State.LOST:
        return ""
    if operation.lost_from == State.RUNNING:
        return _("The host is away. The work goes on by itself when it is back; what was promised is kept.")
    return _("The host is away. What is left there is taken back by itself when it is back.")


_PROCESSORS = {"best": "Best available", "kvm": "Hardware-assisted only", "qemu": "Emulated only"}


def facts(operation: Operation) -> list[tuple[str, str]]:
    """Return what was asked in words and values, as it was frozen."""
    spec = operation.frozen
    words = {"vcpu": "vCPUs", "memory": "Memory", "disk": "Disk", "lease": "Lease"}
    found = []
    for name, value in spec["sizes"].items():
        text = f"{value // 86400} days" if name == "lease" else amount_text(name, value)
        found.append((words.get(name, name), text))
    pinned = spec["pinned"]
    for name in ("name", "item", "flavour", "cost_month", "why"):
        if name in pinned:
            found.append((name.replace("_", " ").capitalize(), str(pinned[name])))
    if "network" in pinned:
        found.append(("Network", pinned["network"]["name"]))
    if "virtualization" in pinned:
        asked = pinned["virtualization"]
        found.append(("Devices", asked["devices"].capitalize()))
        found.append(("Processor", _PROCESSORS.get(asked["accelerator"], asked["accelerator"])))
    if "cloud" in pinned:
        cloud = pinned["cloud"]
        found.append(("Login user", cloud["user"]))
        found.append(("SSH keys", str(len(cloud["ssh_keys"]))))
        if cloud["packages"]:
            found.append(("Packages", ", ".join(cloud["packages"])))
        if cloud["user_data"]:
            found.append(("User-data", cloud["user_data"]))
    return found


def _render(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = Operation.objects.restrict(user, "view").filter(pk__in=row_keys(ids)).prefetch_related("steps")
    return {
        str(item.pk): render_to_string("operations/progress.html", {"progress": progress(item)})
        for item in found
    }


def _render_consent(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = Operation.objects.restrict(user, "view").filter(pk__in=row_keys(ids), demand__isnull=False)
    return {
        str(item.pk): render_to_string("operations/consent.html", {"consent": summary(item)})
        for item in found.select_related("project", "requester")
    }


def register_panels() -> None:
    """Make the panels known to the live socket."""
    register(Panel("operations.progress", _render, lambda identity: [f"operations.operation:{identity}"]))
