"""Shows in one minute what lensmesh does: photos go in, findings, matches and search results come out."""
