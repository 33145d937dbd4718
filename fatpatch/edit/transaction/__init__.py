"""From a plan to a file: written beside, checked, recorded, named; and the way back."""
