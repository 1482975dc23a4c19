"""The local stack: PostgreSQL and Valkey from wheels, web workers, Celery, and what starts and stops them in order.

Nothing of the product imports this package. Every failure that a person can mend is a StackError: one sentence.
"""
