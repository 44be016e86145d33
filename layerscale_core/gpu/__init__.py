"""What GPU backends share: portable kernels in Triton. Needs torch and Triton, so nothing else in core imports it."""
