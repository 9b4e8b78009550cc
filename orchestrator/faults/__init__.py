"""What breaks a fleet on a timetable: one file per fault, and how faults are read and resolved."""
