"""The probe: opens connections, counts who answered, judges the split."""
