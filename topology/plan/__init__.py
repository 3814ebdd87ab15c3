"""Plan: moves become candidates, candidates verdicts: scale in before scale out."""
