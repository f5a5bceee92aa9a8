"""Real store servers as processes of the tests: on loopback, free ports, stopped by their process, nothing left."""
