"""From GPUs to devices: the NVML probe, ResourceSlices and node labels.

Reads and reports; decides nothing.
"""
