"""The CUDA backend: NVIDIA's GPUs, with the portable kernels of ``layerscale_core.gpu``."""
