"""The project's commands. A fresh machine needs Python and ``python -m pip install nox``, nothing more.

``nox -s demo`` shows the server at work, ``nox -s tests`` is what CI runs, ``nox -s fast`` is the loop while editing.
With ``nox -R`` a session starts at once, in the environment as it was last installed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
MODELS = Path(".cache", "models").absolute()
MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
SECOND_MODEL = MODELS / "gemma-3-270m-Q4_K_M.gguf"
BARS = Path(".cache", "bars", "GOOG.csv").absolute()
DRAIN_LIMIT_S = 30
GPU_TOOLS = ("gguf", "pytest>", "pytest-timeout", "transformers")
"""What the GPU session takes of the extra ``test``."""
WORKERS = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadgroup")
"""Test processes; tests that share something costly name a group and stay in one of them."""


@nox.session
def demo(session: nox.Session) -> None:
    """Replay real market data into a session and ask about it, until Ctrl-C (``-- --once``: sixty bars)."""
    session.install(".[demo]")
    fetch_model(session)
    fetch_bars(session)
    files = ("--model", str(MODEL), "--bars", str(BARS))
    session.run("python", "examples/demo/demo.py", *files, *session.posargs, interrupt_timeout=DRAIN_LIMIT_S)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything: lint, types, documentation, and the whole suite with the real models (``-- ARGS``: only pytest)."""
    session.install("-e", ".[test,lint,types,docs]")
    if not session.posargs:
        check_lint(session)
        check_types(session)
        build_docs(session)
    fetch_model(session)
    session.run("python", "examples/demo/fetch.py", "gemma3", str(SECOND_MODEL))
    models = {"LAYERSCALE_TEST_MODEL": str(MODEL), "LAYERSCALE_TEST_GEMMA": str(SECOND_MODEL)}
    one_thread = {"OMP_NUM_THREADS": "1"}  # in numpy and torch: the test processes are as many as the cores
    session.run("pytest", *WORKERS, *session.posargs, env=models | one_thread)


@nox.session
def fast(session: nox.Session) -> None:
    """The loop while editing: no real model, nothing slow, stop at the first failure (``-- ARGS`` go to pytest)."""
    session.install("-e", ".[test]")
    session.run("pytest", "-x", "-m", "not slow and not model", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*requirements("lint"))
    check_lint(session)


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install(*PROJECT["dependencies"], *requirements("test", "types"))
    check_types(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build/html; a warning is an error."""
    session.install(*PROJECT["dependencies"], *requirements("docs"))
    build_docs(session)


@nox.session
def docker_steps(session: nox.Session) -> None:
    """The steps of the CPU image without a container engine: downloads, compiles, serves (``-- ARGS`` go to pytest)."""
    session.install("-e", ".[test]")
    tests = ("tests/packaging/test_docker.py", "-rs", *session.posargs)
    session.run("pytest", *tests, env={"LAYERSCALE_TEST_DOCKER_STEPS": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """LayerScale and llama.cpp side by side on the small real model (``-- ARGS`` go to the script)."""
    session.install(".[bench]")
    fetch_model(session)
    session.run("python", "benchmarks/compare_llama_cpp.py", "--model", str(MODEL), *session.posargs)


@nox.session
def bench_streaming(session: nox.Session) -> None:
    """Questions about bars that keep coming, with and without a session (``-- ARGS`` go to the script)."""
    session.install(".[bench]")
    fetch_model(session)
    fetch_bars(session)
    files = ("--model", str(MODEL), "--bars", str(BARS))
    session.run("python", "benchmarks/streaming_queries.py", *files, *session.posargs)


@nox.session
def bench_agent(session: nox.Session) -> None:
    """An agent's conversation beside llama.cpp (``-- ARGS`` go to the script)."""
    session.install(".[bench]")
    fetch_model(session)
    session.run("python", "benchmarks/agent_turns.py", "--model", str(MODEL), *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """Sixty-four sessions under a stream of pushes for two minutes (``-- ARGS`` go to the script)."""
    session.install(".[bench]")
    fetch_model(session)
    session.run("python", "benchmarks/session_load.py", "--model", str(MODEL), *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU, unattended: the conformance kit on it, and how near it comes to its best rates.

    Writes into benchmarks/results, goes on where an earlier run was interrupted, and names at its end what failed;
    ``-- ARGS`` go to the script. On ROCm torch comes from where docker/rocm has it; TORCH_INDEX names another place.
    """
    vendor = "rocm" if Path("/dev/kfd").exists() else "cuda"
    if vendor == "rocm":
        index = re.search(r"^ARG TORCH_INDEX=(\S+)$", Path("docker/rocm/Dockerfile").read_text(), re.MULTILINE)
        session.install("torch>=2.9", "--index-url", os.environ.get("TORCH_INDEX") or index[1])
    # The suite's own torch and Triton are for machines without a device: here its vendor's are what is tried.
    tools = [tool for tool in requirements("test") if tool.startswith(GPU_TOOLS)]
    session.install("-e", f".[{vendor}]", *tools)
    session.run("python", "benchmarks/gpu_run.py", "--backend", vendor, *session.posargs)


def requirements(*extras: str) -> list[str]:
    """What the project's extras name, for sessions that need no compiled package."""
    return [requirement for extra in extras for requirement in PROJECT["optional-dependencies"][extra]]


def fetch_model(session: nox.Session) -> None:
    """Bring the small real model into the cache, once."""
    session.run("python", "examples/demo/fetch.py", "model", str(MODEL))


def fetch_bars(session: nox.Session) -> None:
    """Bring the real market data into the cache, once."""
    session.run("python", "examples/demo/fetch.py", "bars", str(BARS))


def check_lint(session: nox.Session) -> None:
    """Run the linter and compare the formatting."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


def check_types(session: nox.Session) -> None:
    """Run the type checker on the packages that pyproject.toml names."""
    session.run("mypy")


def build_docs(session: nox.Session) -> None:
    """Build the documentation, reporting every problem before failing."""
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html")
