"""Tests against real servers, one package for each part of the mesh."""
