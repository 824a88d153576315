"""Erasure (GDPR, article 17): photos, and everything that was made from them, are gone for good.

`plan` says what is to go, and keeps it in a journal until it is gone; `job` carries it out; `proof`
searches for what is left. Removing single files is the lake's and the source's business.
"""
