"""Stages: what one step of a plan trains or solves, when it is good enough, and the plans made of them."""
