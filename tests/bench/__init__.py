"""Measurements of a real pair of nodes, beside the limits of the machine, in one run: `make bench`.

Never a test: a figure of one run says little on a shared machine. All cells are run in turn, round after
round, and each is told as the median over the rounds with little stolen time, and as a ratio to a limit
taken in the same rounds.
"""
