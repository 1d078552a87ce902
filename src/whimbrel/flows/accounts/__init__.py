"""Accounts: who may do what, who has which token, and when another person must agree. Pure."""
