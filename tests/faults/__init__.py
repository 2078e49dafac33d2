"""Real faults: killed processes, full disks, damaged and missing files."""
