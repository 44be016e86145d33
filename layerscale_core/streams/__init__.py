"""Stream types: the kinds of live data that sessions hold."""

from layerscale_core.streams.ohlcv import OhlcvStream

__all__ = ["OhlcvStream"]
