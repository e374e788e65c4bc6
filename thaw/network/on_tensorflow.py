"""Imported before Keras, so that it runs on TensorFlow, whatever trained.

Exports go through TensorFlow's graphs; a .keras file runs on any backend.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
