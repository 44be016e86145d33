"""The ROCm backend: AMD's GPUs, with the portable kernels of ``layerscale_core.gpu``."""
