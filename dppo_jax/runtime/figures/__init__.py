"""Figures of the papers: runs to points, points to a picture and a verdict."""
