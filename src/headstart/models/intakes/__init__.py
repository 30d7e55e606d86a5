"""How a network is given its inputs and how its output becomes features, one file a modality.

``Intake(spec)(module, inputs, …)`` gives features (B, D); ``CALL`` tells people how it calls the module. Where rows
differ in length it is ``ragged``: ``lengths`` tells them, ``stand_in`` makes an input of given lengths, for resuming
from a recorded block.
"""
