"""Chat templates: a conversation to the text a model was trained on, by the model's own Jinja source, in bounds."""

from layerscale_core.chat_template.budget import MAX_OUTPUT_CHARS, MAX_RENDER_S
from layerscale_core.chat_template.template import MAX_SOURCE_CHARS, ChatTemplate

__all__ = ["MAX_OUTPUT_CHARS", "MAX_RENDER_S", "MAX_SOURCE_CHARS", "ChatTemplate"]
