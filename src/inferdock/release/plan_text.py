"""A plan in words, as ``--dry-run`` prints it: what will happen, in order, and why."""

from __future__ import annotations

from inferdock.release.plan import Kind, Plan
from inferdock.release.steps import (
    Bake,
    Check,
    Demote,
    Gate,
    Hold,
    Mirror,
    Promote,
    Retire,
    Scale,
    Shift,
    Start,
    Step,
    Target,
)


def describe(plan: Plan) -> str:
    """The whole plan; ends with a line break."""
    names = {target.revision: target.reference for target in (plan.stable, plan.to) if target is not None}
    before = f"{_size(plan.stable)} -> " if plan.stable is not None else ""
    what = "Rollback" if plan.kind is Kind.ROLLBACK else "Release"
    lines = [f"{what} {plan.id} of {plan.model}: {before}{_size(plan.to)} ({plan.mode})"]
    lines += [f"  note: {note}" for note in plan.notes]
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number:3}. {say(step, names)}")
        lines.append(f"       {step.reason}")
    return "\n".join(lines) + "\n"


def _size(target: Target) -> str:
    return f"{target.reference} x{target.replicas}"


def say(step: Step, names: dict[str, str] | None = None) -> str:
    """One step in a few words.

    Args:
        step: the step.
        names: revision to reference, where people know it by that.
    """
    known = names or {}
    match step:
        case Check():
            return "check the files"
        case Start(target=target, ready=ready):
            return f"start {target.reference}: {counted(target.replicas)}, {ready} ready to go on"
        case Scale(revision=revision, replicas=replicas):
            return f"scale {known.get(revision, revision)} down to {replicas}"
        case Gate(gate=gate):
            return f"gate {gate}"
        case Shift(weights=weights):
            return "traffic " + ", ".join(
                f"{known.get(name, name)} {percent(share)}" for name, share in weights.items()
            )
        case Hold():
            return f"hold {step.seconds:g} s and {step.samples} requests, at most {step.limit_s:g} s"
        case Mirror(revision=revision, share=share):
            return f"copies of {percent(share)} to {known.get(revision, revision)}" if revision else "no more copies"
        case Promote(reference=reference):
            return f"promote {reference} to champion"
        case Demote(reference=reference):
            return f"champion back to {reference or 'none'}"
        case Bake(seconds=seconds):
            return f"bake {seconds:g} s"
        case Retire(revision=revision):
            return f"retire {known.get(revision, revision)}"


def counted(replicas: int) -> str:
    """A number of replicas, for people."""
    return "1 replica" if replicas == 1 else f"{replicas} replicas"


def percent(share: float) -> str:
    """A share, 0-1, for people."""
    return f"{share * 100:.4g} %"
