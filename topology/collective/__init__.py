"""Collectives as schedules: who sends what to whom in which step, and the proof that it works."""
