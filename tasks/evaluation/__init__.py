"""Arithmetic of an evaluation: intervals, the report, the gate. No database, no Prefect."""
