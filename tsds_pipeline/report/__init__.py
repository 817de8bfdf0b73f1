"""Pictures and pages by which a person judges a selection. What they show is computed in ``stages``."""
