"""Keeper of PostgreSQL: every SQL statement about jobs. One function is one transaction.

intake      submit: write the job, remember the idempotency key
listing     read: pages, counts, one job
insight     read: what many jobs say together, for the charts
leases      run: claim, beat, release
endings     every way in which a job ends
ledger      model calls: begun, answered, failed
removal     delete for good
deliveries  webhooks: due, claimed, tried
upkeep      the reconciler's questions, and health's
arrays      how one statement takes many rows
"""
