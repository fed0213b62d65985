"""Fetch, process, store: what each of the three verbs does for one day.

They join `source` and `store`, which do not know each other. Dagster's contexts and events are not known here.
"""
