"""Folders of images: their classes, their pixels, and batches from files."""
