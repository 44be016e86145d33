"""Chat templates: a conversation to the text a model was trained on, by the model's own Jinja source, in bounds."""

from layerscale_core.chat_template.budget import TemplateLimits
from layerscale_core.chat_template.template import MAX_SOURCE_CHARS, ChatTemplate

__all__ = ["MAX_SOURCE_CHARS", "ChatTemplate", "TemplateLimits"]
