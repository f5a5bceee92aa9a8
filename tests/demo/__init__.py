"""The demo with a bug planted into the agent: it must exit 1 and name the promise. The product ships no mutants."""
