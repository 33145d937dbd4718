"""Renderers: the wording of results. They read the model and write lines; they decide nothing."""
