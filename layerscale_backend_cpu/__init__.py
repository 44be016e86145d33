"""The embedded CPU backend: native C++ kernels for x86-64 and arm64, and numpy where there was no compiler."""
