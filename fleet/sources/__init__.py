"""Where facts come from: one file per source. Each gives snapshots with their absences."""
