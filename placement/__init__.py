"""Where a PodGroup fits and who goes first: vocabulary, fleet arrays, feasibility, assignment, scores, explanations.

Pure functions of their arguments. No I/O, clocks, asyncio or logging; imports the standard library, numpy and, in
`model` alone, pydantic.
"""
