"""What fits a project's own data: the kernel radius, alpha and the distance scale. Behind `tsds calibrate`.

Everything is read from what is stored and nothing is changed. The rules, on arrays, are in ``core.calibration``; how it
is laid out is in ``cli.calibrate`` and ``report.calibration``.
"""
