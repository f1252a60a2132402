"""A crash campaign: runs killed, stopped, starved and fed with damaged files, at random; what must hold afterwards.

``python -m tests.chaos`` from the repository's folder, or ``make chaos KILLS=30 INPUTS=1000``. It prints a line a kind
with counts, and for each failure the seed that repeats it (``--again KIND:SEED``). No part of the test suite.
"""
