"""Starts and keeps alive the processes of a lensmesh on one machine."""
