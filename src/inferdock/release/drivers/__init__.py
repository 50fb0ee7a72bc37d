"""Platforms that releases run on."""
