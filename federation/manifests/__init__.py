"""What people write, turned into a `PodGroup`: one module per dialect.

Pure; no cluster access.
"""
