"""An experiment and values of its settings -> what the sweep will cost, and the setting that a search finds."""
