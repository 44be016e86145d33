"""A model's chat template, compiled once and rendered for each request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from layerscale_core.chat_template.budget import Budget, TemplateLimitError, TemplateLimits
from layerscale_core.chat_template.functions import RefusedError
from layerscale_core.chat_template.sandbox import BoundedEnvironment
from layerscale_core.errors import InvalidRequestError, UnsupportedModelError

MAX_SOURCE_CHARS = 256 * 1024
_MAX_REASON_CHARS = 200
_DEFAULT_LIMITS = TemplateLimits()


class ChatTemplate:
    """A template from a model file: code that nobody here has read.

    Rendering is bounded in output, time and memory (``budget``): a template can be stopped between any two steps, and
    no step handles more than a few megabytes. A step is not interrupted: sorting the longest list there can be
    outlasts the time by about a tenth of a second. Immutable; safe from any thread; too slow for an event loop.

    Args:
        source: Jinja, in the dialect of transformers' ``apply_chat_template``.
        bos, eos: what the template gets as ``bos_token`` and ``eos_token``; "" where the model has none.
        limits: of each rendering.

    Attributes:
        variables: names that it reads and does not define.

    Raises:
        UnsupportedModelError: the source does not compile, or is too long.
    """

    def __init__(self, source: str, *, bos: str, eos: str, limits: TemplateLimits = _DEFAULT_LIMITS) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise UnsupportedModelError(
                f"the model's chat template has {len(source)} characters; at most {MAX_SOURCE_CHARS} are supported"
            )
        try:
            environment = BoundedEnvironment(Budget(limits))
            self._code = environment.compile(source, "chat template", "<chat template>")
            self.variables = frozenset(find_undeclared_variables(environment.parse(source)))
        except TemplateSyntaxError as error:
            raise UnsupportedModelError(
                f"the model's chat template does not compile: line {error.lineno}: {_one_line(error.message)}"
            ) from error
        except Exception as error:  # what Python's compiler raises for what Jinja let pass, such as deep nesting
            raise UnsupportedModelError(
                f"the model's chat template does not compile: {type(error).__name__}"
            ) from error
        self.source = source
        self._bos = bos
        self._eos = eos
        self._limits = limits

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The conversation as text.

        Args:
            messages, tools: JSON values, as OpenAI's API has them.
            kwargs: further variables, JSON values too; they replace none of the others.

        Raises:
            InvalidRequestError: the template refuses the conversation, fails on it, or exceeds a limit.
        """
        variables = {
            **kwargs,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }
        try:
            return self._render(variables)
        except RefusedError as error:
            reason = f"the model's chat template refuses these messages: {_one_line(str(error))}"
        except TemplateLimitError as error:
            reason = f"the model's chat template exceeds a limit with these messages: {error}"
        except TemplateError as error:
            reason = f"the model's chat template fails on these messages: {_one_line(error.message)}"
        except Exception as error:  # the template's own mistakes; their text may hold the client's
            reason = f"the model's chat template fails on these messages: {type(error).__name__}"
        raise InvalidRequestError(reason, param="messages")

    def _render(self, variables: dict[str, Any]) -> str:
        budget = Budget(self._limits)
        budget.admit(variables)
        environment = BoundedEnvironment(budget)
        template = Template.from_code(environment, self._code, environment.make_globals(None))
        return _collect(template.generate(variables), self._limits.max_chars)


def _collect(pieces: Iterable[str], max_chars: int) -> str:
    output: list[str] = []
    num_chars = 0
    for piece in pieces:
        num_chars += len(piece)
        if num_chars > max_chars:
            raise TemplateLimitError(f"the prompt has more than {max_chars} characters")
        output.append(piece)
    text = "".join(output)
    text.encode()  # raises where a literal of the template holds half a surrogate pair, which no tokenizer takes
    return text


def _one_line(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= _MAX_REASON_CHARS else f"{line[:_MAX_REASON_CHARS]}…"
