"""Tests. A docstring's "Red when …" names a change that was tried and turned the test red; "Untried: when …"
names one that should and was not tried yet.
"""
