#!/usr/bin/env python3
# -*- coding: latin-1 -*-
"""Docs of the module."""
import os


@decorator
def first(x):
    """Says what it does."""

    if x:
        return 1

    else:
        return 2


class Second:
    # A comment.

    def method(self):
        pass
