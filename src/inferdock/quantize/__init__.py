"""Makes a model of fewer bits from one that the registry or a folder holds: what may be done, and the doing.

:mod:`source`, :mod:`recipe` and :mod:`calibration` need no torch: they refuse what cannot work before anything is
loaded. :mod:`awq`, :mod:`blocks` and :mod:`export` need it, and are loaded by name.
"""
