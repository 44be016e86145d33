"""The hooks a LayerScale plugin may implement.

Hooks run at start-up and hand over objects; the hot path calls those objects. A plugin is any module or object that is
registered under the entry-point group ``layerscale.plugins`` and implements some of these functions with
``@hookimpl``. It declares ``LAYERSCALE_SPEC_VERSION = 1`` (an int attribute); core accepts its own version and the one
before.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from layerscale_core.specs.backend import Backend
from layerscale_core.specs.executor import KVLayout
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.licensing import LicenseVerifier
from layerscale_core.specs.model_format import ModelFile, ModelFormat
from layerscale_core.specs.offload import OffloadPlanner
from layerscale_core.specs.scheduler import SchedulerPolicy
from layerscale_core.specs.stream_type import StreamType

PROJECT_NAME = "layerscale"
ENTRY_POINT_GROUP = "layerscale.plugins"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def layerscale_backends() -> Sequence[Backend]:
    """Called once at start, before any device is touched: the backends this plugin brings.

    Two backends of one name are an error that names both plugins. Since spec version 1.
    """
    return ()


@hookspec
def layerscale_model_formats() -> Sequence[ModelFormat]:
    """Called once when a model is opened: the file formats this plugin reads.

    The first whose ``matches`` says yes opens the file; later registered plugins are asked first. Since spec version 1.
    """
    return ()


@hookspec(firstresult=True)
def layerscale_backend_of_model(model: ModelFile) -> Backend | None:  # noqa: ARG001 (a specification has no body)
    """Called once when a model was opened, before its memory is planned: the backend that alone can compute it.

    For formats whose files hold a program in place of weights (``ModelFile.weights`` has none then). Return None to
    pass, as for all models that are weights: the backend that was named, or probes best, computes those. A model's own
    backend declares ``is_host``, because nothing of a program can be offloaded, and is asked for no kernels.
    Since spec version 1.
    """
    return None


@hookspec
def layerscale_stream_types() -> Sequence[StreamType]:
    """Called once at start: the session types this plugin brings.

    Two of one name are an error that names both plugins. Since spec version 1.
    """
    return ()


@hookspec(firstresult=True)
def layerscale_make_kv_pool(layout: KVLayout) -> KVPool | None:  # noqa: ARG001 (a specification has no body)
    """Called once, after the memory plan and before the first request: build the pool's bookkeeping.

    Return None to pass; the first pool returned serves all sequences. Since spec version 1.
    """
    return None


@hookspec(firstresult=True)
def layerscale_make_scheduler_policy() -> SchedulerPolicy | None:
    """Called once before the engine starts: the policy that decides every step.

    Return None to pass; the first policy returned is used. Since spec version 1.
    """
    return None


@hookspec(firstresult=True)
def layerscale_make_offload_planner() -> OffloadPlanner | None:
    """Called once when the memory plan is made: who decides which layers stay in host memory.

    Return None to pass. Since spec version 1.
    """
    return None


@hookspec
def layerscale_license_verifiers() -> Sequence[LicenseVerifier]:
    """Called once at start when a licence key is given: who can read it.

    The first verifier whose ``verify`` returns a licence decides; one that raises ``LicenseError`` stops the start.
    Since spec version 1.
    """
    return ()
