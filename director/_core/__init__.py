"""The scheduler: queue, slots, the one decision, shifts, and the crew that hires and reaps.

Bottom up: `clock`, `states`; `job`, `slot`, `slot_thread`; `queue`, `placement`; `dispatch` (the decision, behind one
lock); `outbox`, `alarms`, `chronicle` (threads to loop, moments, events); `ledger` (how jobs end), `shift` (a worker's
work); `crew`.
"""
