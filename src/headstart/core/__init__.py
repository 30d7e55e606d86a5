"""The ground floor: errors, events, the registry and the run folder. No torch here."""
