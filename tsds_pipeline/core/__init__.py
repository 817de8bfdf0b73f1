"""The numeric core: arrays in, arrays and dataclasses out.

``neighbors`` finds the nearest candidates, ``density`` the kernel densities, ``transport`` the optimal plan,
``sampling`` draws from it and ``selection`` composes them. Nothing here knows Dagster, SQL or file formats.
The mathematics is TSDS (Liu, Karbasi, Rekatsinas, NeurIPS 2024, arXiv 2410.11303) with the corrections that
the README lists.
"""
