"""What requests look like. Types are strict; fields that are not named here are ignored."""
