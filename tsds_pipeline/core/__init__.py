"""The numeric core: arrays in, arrays and dataclasses out.

``neighbors`` finds the nearest candidates, ``density`` the kernel densities (``close_pairs`` and ``row_stack``
help), ``transport`` the optimal plan over a candidate ``pool``, ``sampling`` draws from it, and ``selection``
composes them over an ``array_pool``. The optimum's closed forms are in ``kernel_transport`` and
``variation_transport``, what they share in ``problem`` and ``rows``. ``metrics`` measures a selection,
``baselines`` has other ways to select, and ``compat`` selects as the paper's public script defines it.

Nothing here knows Dagster, SQL or file formats. The mathematics is TSDS (Liu, Karbasi, Rekatsinas, NeurIPS 2024,
arXiv 2410.11303) with the corrections that the README lists.
"""
