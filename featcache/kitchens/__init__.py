"""The renderer of the demo benchmark `kitchens`: a seed becomes clips with pictures and sound.

`plan` chooses the clips, `paint` and `props` paint sprites, `actions` moves them, `sound` makes the sound, and `film`
writes the file of a clip. `featcache/builders/kitchens.py` makes the manifest.
"""
