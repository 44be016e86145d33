"""Which backend serves: an explicit name, or the highest probe score. Never one by accident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerscale_core.errors import BackendError, LayerScaleError, PluginError
from layerscale_core.plugins.plugin import Contribution, Plugin, one_line
from layerscale_core.specs import Backend, BackendOptions, Device, Probe


@dataclass(frozen=True, slots=True)
class RejectedBackend:
    """A backend that was not chosen, and why."""

    name: str
    plugin: Plugin
    reason: str


@dataclass(frozen=True, slots=True)
class ChosenBackend:
    """The backend that serves, and why not the others."""

    backend: Backend
    plugin: Plugin
    probe: Probe
    rejected: tuple[RejectedBackend, ...]

    def load(self, options: BackendOptions) -> Device:
        """Load it. There is no other to fall back to.

        Raises:
            BackendError: names the backend and the cause.
        """
        try:
            return self.backend.load(options)
        except LayerScaleError:
            raise
        except Exception as error:
            raise BackendError(
                f"backend {self.backend.name!r} of plugin {self.plugin} cannot load: {one_line(error)}"
            ) from error


Candidate = Contribution[Backend]


def choose_backend(candidates: Sequence[Candidate], name: str | None, plugins: Sequence[Plugin]) -> ChosenBackend:
    """Choose by name when one is given, else by the highest probe score.

    Args:
        plugins: all that were found; the broken ones are named when the choice fails.

    Raises:
        PluginError: no backend of that name; or two share the highest score.
        BackendError: the named backend, or every one, cannot serve on this machine.
    """
    if name is not None:
        return _choose_named(candidates, name, plugins)
    probes = [(candidate, _probe(candidate)) for candidate in candidates]
    best_score = max((probe.score for _, probe in probes), default=0)
    best = [(candidate, probe) for candidate, probe in probes if probe.score == best_score]
    if best_score == 0:
        reasons = [f"{candidate.item.name}: {probe.reason}" for candidate, probe in probes]
        raise BackendError("; ".join(["no backend can serve on this machine", *reasons, *_broken(plugins)]))
    if len(best) > 1:
        tied = " and ".join(f"{candidate.item.name!r} of plugin {candidate.plugin}" for candidate, _ in best)
        raise PluginError(f"backends {tied} both score {best_score}; choose one with --backend")
    ((chosen, chosen_probe),) = best
    rejected = tuple(
        RejectedBackend(candidate.item.name, candidate.plugin, f"scores {probe.score}: {probe.reason}")
        for candidate, probe in probes
        if candidate is not chosen
    )
    return ChosenBackend(chosen.item, chosen.plugin, chosen_probe, rejected)


def _choose_named(candidates: Sequence[Candidate], name: str, plugins: Sequence[Plugin]) -> ChosenBackend:
    chosen = next((candidate for candidate in candidates if candidate.item.name == name), None)
    if chosen is None:
        choices = ", ".join(sorted(candidate.item.name for candidate in candidates)) or "none"
        raise PluginError("; ".join([f"no backend named {name!r}; there are: {choices}", *_broken(plugins)]))
    probe = _probe(chosen)
    if probe.score == 0:
        raise BackendError(f"backend {name!r} of plugin {chosen.plugin} cannot serve here: {probe.reason}")
    rejected = tuple(
        RejectedBackend(candidate.item.name, candidate.plugin, f"{name!r} was asked for")
        for candidate in candidates
        if candidate is not chosen
    )
    return ChosenBackend(chosen.item, chosen.plugin, probe, rejected)


def _probe(candidate: Candidate) -> Probe:
    """A backend's probe; one that raises breaks its plugin, and scores 0."""
    try:
        probe = candidate.item.probe()
        if not isinstance(probe, Probe):
            raise TypeError(f"returned {type(probe).__name__}, not Probe")
        return probe
    except Exception as error:
        candidate.plugin.cause = f"probe of backend {candidate.item.name!r} failed: {one_line(error)}"
        return Probe(score=0, reason=candidate.plugin.cause)


def _broken(plugins: Sequence[Plugin]) -> list[str]:
    return [f"plugin {plugin} is broken: {plugin.cause}" for plugin in plugins if plugin.cause is not None]
