"""What workers and the scheduler run for people."""

from celery import shared_task

from portal.accounts import notices, outbox


@shared_task(name=notices.MAIL)
def mail_notices() -> None:
    """Send the mails of notices that are due. Idempotent; the sweep finds what no message reached."""
    outbox.send_due()


@shared_task(name="accounts.forget_notices")
def forget_notices() -> None:
    """Delete notices that are too old. Idempotent."""
    notices.forget()
