"""The device code, in Triton. Its launchers are the modules beside this folder."""
