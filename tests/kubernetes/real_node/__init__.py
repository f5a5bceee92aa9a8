"""One real node on this machine: its runtime, its kubelet, its guard, and an image for its containers."""
