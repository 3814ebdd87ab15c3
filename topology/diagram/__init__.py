"""Diagrams: positions are data, pens only draw. Imports nothing heavy."""
