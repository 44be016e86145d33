"""Stream types: the kinds of live data that sessions hold."""

from layerscale_core.streams.event import EventStream
from layerscale_core.streams.iot import IotStream
from layerscale_core.streams.ohlcv import OhlcvStream
from layerscale_core.streams.spatial import SpatialStream
from layerscale_core.streams.vitals import VitalsStream

__all__ = ["EventStream", "IotStream", "OhlcvStream", "SpatialStream", "VitalsStream"]
